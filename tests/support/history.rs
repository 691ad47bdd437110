//! All revisions of one run's snapshot, and what must hold of them.

use std::collections::BTreeMap;

use serde_json::Value;

/// Revision and document, oldest first.
pub struct History(pub Vec<(u64, Value)>);

impl History {
    pub fn last(&self) -> &Value {
        &self.0.last().expect("the run has a snapshot").1
    }

    /// The statuses in the order in which they were written, repetitions left out.
    pub fn statuses(&self) -> Vec<&str> {
        let mut statuses: Vec<&str> = self.all("status").map(|s| s.as_str().unwrap()).collect();
        statuses.dedup();
        statuses
    }

    /// One field over all revisions.
    pub fn all<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().map(move |(_, document)| &document[field])
    }

    /// Revisions that a worker has written in this attempt.
    pub fn of_attempt(&self, attempt: u64) -> Vec<&Value> {
        let mine = self.0.iter().filter(|(_, document)| document["attempt"] == attempt);
        mine.map(|(_, document)| document).collect()
    }

    /// The rules for every run that has ended: only the arrows of the state diagram, nothing after
    /// the terminal snapshot, attempts that only grow, one worker per attempt, no time that runs
    /// backwards, no trace of the delivery at the end.
    pub fn assert_lawful(&self, status: &str) {
        let statuses = self.statuses();
        for pair in statuses.windows(2) {
            let lawful = matches!(
                (pair[0], pair[1]),
                ("PENDING" | "RUNNING", "RUNNING" | "FAILED" | "CANCELLING")
                    | ("RUNNING" | "CANCELLING", "COMPLETED" | "FAILED")
                    | ("CANCELLING", "CANCELLED")
            );
            assert!(lawful, "{} after {}: {statuses:?}", pair[1], pair[0]);
        }
        let is_terminal = |s: &&Value| ["COMPLETED", "FAILED", "CANCELLED"].contains(&s.as_str().unwrap());
        assert_eq!(self.all("status").filter(is_terminal).count(), 1, "{statuses:?}");
        let last = self.last();
        assert_eq!(last["status"], status, "{last}");
        assert!(last.get("delivery").is_none(), "{last}");
        assert!(last["end_time"].as_f64().is_some(), "{last}");
        let mut workers: BTreeMap<u64, Value> = BTreeMap::new();
        let (mut attempt, mut written) = (0, 0.0);
        for (_, document) in &self.0 {
            let now = document["attempt"].as_u64().unwrap_or(attempt);
            assert!(now >= attempt, "attempt {now} after {attempt}");
            attempt = now;
            if document["worker_id"].is_string() {
                let worker = workers.entry(now).or_insert_with(|| document["worker_id"].clone());
                assert_eq!(*worker, document["worker_id"], "two workers in attempt {now}");
            }
            let at = document["updated_at"].as_f64().expect("updated_at");
            assert!(at >= written, "updated_at went back from {written} to {at}");
            written = at;
        }
    }
}
