//! Snapshot documents by run and revision, bounded by their bytes; the oldest write goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Documents {
    by_run: HashMap<String, (u64, Arc<Vec<u8>>)>,
    /// In order of writing; an entry whose revision is not the run's any more is skipped.
    written: VecDeque<(String, u64)>,
    bytes: usize,
    limit: usize,
}

impl Documents {
    pub(super) fn new(limit: usize) -> Self {
        Documents { by_run: HashMap::new(), written: VecDeque::new(), bytes: 0, limit }
    }

    pub(super) fn get(&self, run_id: &str, revision: u64) -> Option<Arc<Vec<u8>>> {
        let (known, document) = self.by_run.get(run_id)?;
        (*known == revision).then(|| document.clone())
    }

    pub(super) fn insert(&mut self, run_id: &str, revision: u64, document: Arc<Vec<u8>>) {
        self.remove(run_id);
        self.bytes += document.len();
        self.by_run.insert(run_id.to_owned(), (revision, document));
        self.written.push_back((run_id.to_owned(), revision));
        // Versions that were replaced leave their place in the queue behind; at most one in two
        // may be such a leftover.
        while self.bytes > self.limit || self.written.len() > 2 * self.by_run.len() + 16 {
            let Some((run_id, revision)) = self.written.pop_front() else { break };
            match self.by_run.get(&run_id) {
                Some((current, _)) if *current == revision && self.bytes > self.limit => {
                    self.remove(&run_id);
                }
                Some((current, _)) if *current == revision => {
                    self.written.push_back((run_id, revision));
                }
                _ => {}
            }
        }
    }

    pub(super) fn remove(&mut self, run_id: &str) {
        if let Some((_, document)) = self.by_run.remove(run_id) {
            self.bytes -= document.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_bytes_and_forgets_the_oldest() {
        let mut documents = Documents::new(1000);
        for n in 0..100u64 {
            documents.insert(&format!("r{n}"), n, Arc::new(vec![0; 100]));
        }
        assert!(documents.bytes <= 1000 && documents.by_run.len() == 10);
        assert!(documents.get("r0", 0).is_none());
        assert!(documents.get("r99", 99).is_some());
        assert!(documents.get("r99", 98).is_none(), "another revision");
    }

    #[test]
    fn writing_one_run_again_and_again_does_not_grow_it() {
        let mut documents = Documents::new(1000);
        for n in 0..10_000u64 {
            documents.insert("r", n, Arc::new(vec![0; 100]));
            documents.insert("s", n, Arc::new(vec![0; 100]));
        }
        assert_eq!(documents.bytes, 200);
        assert!(documents.written.len() < 50, "{}", documents.written.len());
        assert!(documents.get("r", 9_999).is_some() && documents.get("s", 9_999).is_some());
    }
}
