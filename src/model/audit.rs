//! One line of the audit: who did what to which thing, and what came of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub const ANONYMOUS: &str = "anonymous";

/// An entry of the stream `PYOCO_AUDIT`. It never holds a secret, a parameter of a run, or a document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub time: f64,
    /// `api_key:<key_id>`, `anonymous`, or `cli:<user>@<host>`.
    pub actor: String,
    pub tenant_id: Option<String>,
    pub action: String,
    /// What it was done to: the id of a run, a worker or a key, the name of a wheel.
    pub object: Option<String>,
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    #[default]
    Done,
    /// It was not allowed, or made no sense.
    Refused,
    /// It was allowed and could not be done, or not for sure.
    Failed,
}

impl Outcome {
    pub fn of_status(status: u16) -> Outcome {
        match status {
            ..400 => Outcome::Done,
            400..500 => Outcome::Refused,
            500.. => Outcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_tell_what_came_of_a_request() {
        for (status, outcome) in [
            (200, Outcome::Done),
            (304, Outcome::Done),
            (403, Outcome::Refused),
            (422, Outcome::Refused),
            (503, Outcome::Failed),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }

    #[test]
    fn entries_of_other_versions_are_kept_whole() {
        let text = r#"{"time":1.5,"actor":"anonymous","action":"run.submit","outcome":"done","new":1}"#;
        let entry: AuditEntry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&entry).unwrap()["new"], 1);
    }
}
