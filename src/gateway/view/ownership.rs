//! Whether what the gateway uses in NATS is that of its installation, as a chore has found last.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::bus;

#[derive(Debug, Clone, Default)]
pub struct Ownership(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// A look has found that the runs and their jobs are ours.
    has_runs: bool,
    refusal: Option<String>,
    /// Why workers cannot pull from consumers of some tags.
    refusing: Vec<String>,
    /// It was logged that there are more consumers than a look reads.
    is_cut: bool,
}

impl Ownership {
    /// Why the gateway must not serve, if so.
    pub fn refusal(&self) -> Option<String> {
        self.0.lock().refusal.clone()
    }

    /// Whether the runs are ours for certain: before that nobody may write what becomes of them.
    pub fn has_runs(&self) -> bool {
        let known = self.0.lock();
        known.has_runs && known.refusal.is_none()
    }

    /// Consumers that no worker can pull from, in words.
    pub fn refusing(&self) -> Vec<String> {
        self.0.lock().refusing.clone()
    }

    /// Takes in why the gateway must not serve.
    pub fn refused(&self, reason: String) {
        let mut known = self.0.lock();
        if known.refusal.as_ref() != Some(&reason) {
            log::error!(reason = reason.as_str();
                "the gateway is not ready: what it needs in NATS is not its own");
        }
        known.refusal = Some(reason);
    }

    /// Takes in what was found where nothing belongs to others.
    pub fn found(&self, found: bus::Ownership) {
        let mut known = self.0.lock();
        // What had no answer may be what was refused before.
        if found.unanswered.is_none() {
            known.refusal = None;
        }
        known.has_runs |= found.has_runs;
        let refusing: Vec<String> = found.refusing.iter().map(ToString::to_string).collect();
        for reason in refusing.iter().filter(|reason| !known.refusing.contains(reason)) {
            log::warn!(reason = reason.as_str(); "runs of a tag wait: no worker can pull them");
        }
        if found.unanswered.is_none() || !refusing.is_empty() {
            known.refusing = refusing;
        }
        if found.is_cut && !known.is_cut {
            log::warn!("there are too many consumers to look at all; `pyoco-server-admin doctor` reads more");
        }
        known.is_cut |= found.is_cut;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Error;

    #[test]
    fn a_look_without_all_answers_takes_nothing_back_and_permits_what_it_has_seen() {
        let complete = || bus::Ownership { has_runs: true, ..bus::Ownership::default() };
        let cut_off = |has_runs| {
            let unanswered = Some(Error::Disconnected);
            bus::Ownership { has_runs, unanswered, ..bus::Ownership::default() }
        };
        let ownership = Ownership::default();
        assert!(!ownership.has_runs(), "nothing is known");
        ownership.found(cut_off(false));
        assert!(!ownership.has_runs());
        // A stream that has nothing to do with runs has no leader.
        ownership.found(cut_off(true));
        assert!(ownership.has_runs());
        ownership.refused("not ours".to_owned());
        ownership.found(cut_off(true));
        assert!(!ownership.has_runs() && ownership.refusal().is_some());
        ownership.found(complete());
        assert!(ownership.has_runs() && ownership.refusal().is_none());
    }
}
