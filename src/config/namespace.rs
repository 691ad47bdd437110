//! Names of what an installation keeps in NATS: those of the contract, or names of its own.

/// `PYOCO_NAMESPACE`: unset for the one installation of a NATS account, else a word that is part of the name
/// of each stream, bucket, consumer and subject. No name of one namespace is a name of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace(Option<String>);

impl Namespace {
    pub(super) fn new(word: Option<String>) -> Namespace {
        Namespace(word)
    }

    /// `PYOCO_WORK` for `WORK`, or `PYOCO_team2_WORK`.
    pub fn stream(&self, role: &str) -> String {
        match &self.0 {
            None => format!("PYOCO_{role}"),
            Some(word) => format!("PYOCO_{word}_{role}"),
        }
    }

    /// `pyoco_runs` for `runs`, or `pyoco_team2_runs`: the name of a bucket or a consumer.
    pub fn name(&self, role: &str) -> String {
        match &self.0 {
            None => format!("pyoco_{role}"),
            Some(word) => format!("pyoco_{word}_{role}"),
        }
    }

    /// `pyoco.work` for `work`, or `pyoco_team2.work`. The first token differs, so that no namespace is a
    /// part of another one's subjects.
    pub fn subject(&self, role: &str) -> String {
        match &self.0 {
            None => format!("pyoco.{role}"),
            Some(word) => format!("pyoco_{word}.{role}"),
        }
    }
}
