//! A mirror of the worker registry: who is there, and when it was heard of last.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crate::bus::{self, Kv, Operation, Watch, WatchEvent};
use crate::model::json;
use crate::model::worker::WorkerRecord;

/// All worker records. Clones share it.
#[derive(Clone, Default)]
pub struct WorkerMirror {
    records: Arc<RwLock<HashMap<String, Seen>>>,
}

/// A record and when this version of it arrived, by our own clock.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The record.
    pub record: Arc<WorkerRecord>,
    /// When it arrived here.
    pub at: Instant,
}

impl WorkerMirror {
    /// Starts to follow `workers`; the mirror lives as long as the returned watch.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(&self, workers: &Kv) -> bus::Result<Watch> {
        let records = self.records.clone();
        workers.watch(move |event| {
            let mut records = records.write().unwrap_or_else(PoisonError::into_inner);
            match event {
                WatchEvent::Reset => records.clear(),
                WatchEvent::Entry(entry) if entry.operation == Operation::Delete => {
                    records.remove(&entry.key);
                }
                WatchEvent::Entry(entry) => match json::from_wire::<WorkerRecord>(&entry.value) {
                    Ok(record) => {
                        let seen = Seen { record: Arc::new(record), at: Instant::now() };
                        records.insert(entry.key, seen);
                    }
                    Err(e) => {
                        log::warn!(worker_id = entry.key.as_str(), error = e.to_string();
                            "a worker's record cannot be read");
                    }
                },
                WatchEvent::Live | WatchEvent::Stale(_) => {}
            }
        })
    }

    /// The newest record of a worker.
    pub fn get(&self, worker_id: &str) -> Option<Seen> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).get(worker_id).cloned()
    }
}
