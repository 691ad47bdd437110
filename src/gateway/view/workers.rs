//! A mirror of the worker registry: who is there, and when it was heard of last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hub::{Hub, Side};
use crate::bus::{self, Entry, Kv, Mirror, Operation, Watch, WatchEvent};
use crate::model::json;
use crate::model::worker::{WorkerRecord, WorkerState};

/// All worker records. Clones share it.
#[derive(Clone, Default)]
pub struct WorkerMirror {
    state: Mirror<State>,
    hub: Hub,
}

#[derive(Default)]
struct State {
    records: HashMap<String, Seen>,
    /// Revision up to which the watch has told everything.
    told: u64,
}

/// A record and when this version of it arrived, by our own clock.
#[derive(Debug, Clone)]
pub struct Seen {
    pub record: Arc<WorkerRecord>,
    pub revision: u64,
    /// When it arrived here.
    pub at: Instant,
    /// The derived state that was published last: it also changes as time passes.
    shown: WorkerState,
}

impl WorkerMirror {
    /// An empty mirror that publishes to `hub`.
    pub fn new(hub: Hub) -> Self {
        WorkerMirror { state: Mirror::default(), hub }
    }

    /// Starts to follow `workers`; the mirror lives as long as the returned watch.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(&self, workers: &Kv) -> bus::Result<Watch> {
        let mirror = self.clone();
        workers.watch(move |event| match event {
            WatchEvent::Reset => mirror.clear(),
            WatchEvent::Entry(entry) => mirror.take(entry, true),
            WatchEvent::Live => mirror.set_live(true),
            WatchEvent::Stale(_) => mirror.set_live(false),
        })
    }

    /// Takes in what this gateway has written itself.
    pub fn wrote(&self, worker_id: &str, document: Vec<u8>, revision: u64) {
        let (key, operation) = (worker_id.to_owned(), Operation::Put);
        self.take(Entry { key, value: document, revision, operation }, false);
    }

    /// The newest record of a worker.
    pub fn get(&self, worker_id: &str) -> Option<Seen> {
        self.state.with(|state| state.records.get(worker_id).cloned())
    }

    /// All records, in no order.
    pub fn all(&self) -> Vec<Seen> {
        self.state.with(|state| state.records.values().cloned().collect())
    }

    /// Whether it tells everything.
    pub fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// Waits until it tells everything; `false` when that takes longer than `timeout`.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.state.wait_live(timeout)
    }

    /// Publishes the workers whose derived state has changed because time has passed.
    pub fn publish_silent(&self, now: f64, disconnect_timeout: Duration) {
        self.state.with(|state| {
            for seen in state.records.values_mut() {
                let derived = seen.record.derived_state(now, disconnect_timeout);
                if derived != seen.shown {
                    seen.shown = derived;
                    self.hub.worker_changed(&seen.record);
                }
            }
        });
    }

    /// Drops what is known of a worker unless there is something newer.
    pub fn forget(&self, worker_id: &str, revision: u64) {
        self.state.with(|state| {
            if state.records.get(worker_id).is_some_and(|seen| seen.revision == revision) {
                state.records.remove(worker_id);
                self.hub.worker_removed(worker_id);
            }
        });
    }

    fn take(&self, entry: Entry, is_told: bool) {
        // What is published is so in the order in which it is taken.
        self.state.with(|state| self.take_into(state, entry, is_told));
    }

    fn take_into(&self, state: &mut State, entry: Entry, is_told: bool) {
        let Entry { key, value, revision, operation } = entry;
        if is_told {
            state.told = state.told.max(revision);
        } else if revision <= state.told {
            // The watch has passed by already; the record may have been deleted since.
            return;
        }
        if state.records.get(&key).is_some_and(|known| known.revision >= revision) {
            return;
        }
        if operation == Operation::Delete {
            if state.records.remove(&key).is_some() {
                self.hub.worker_removed(&key);
            }
            return;
        }
        match json::from_wire::<WorkerRecord>(&value) {
            Ok(record) => {
                // Whatever the record says: the key is what can be asked for.
                let record = Arc::new(WorkerRecord { worker_id: key.clone(), ..record });
                self.hub.worker_changed(&record);
                let (at, shown) = (Instant::now(), record.state);
                state.records.insert(key, Seen { record, revision, at, shown });
            }
            Err(e) => {
                log::warn!(worker_id = key.as_str(), error = e.to_string();
                    "a worker's record cannot be read");
            }
        }
    }

    fn clear(&self) {
        self.state.with(|state| {
            *state = State::default();
            self.hub.reset(Side::Workers);
        });
    }

    fn set_live(&self, live: bool) {
        self.hub.set_live(Side::Workers, live);
        self.state.set_live(live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_ours_that_the_watch_has_passed_by_brings_nothing_back() {
        let mirror = WorkerMirror::default();
        let record = || br#"{"worker_id":"w","last_seen_at":1.0}"#.to_vec();
        let told = |revision, operation| {
            mirror.take(Entry { key: "w".into(), value: record(), revision, operation }, true);
        };
        told(1, Operation::Put);
        told(3, Operation::Delete);
        // The thread that wrote revision 2 gets to say so only now.
        mirror.wrote("w", record(), 2);
        assert!(mirror.get("w").is_none());
        mirror.wrote("w", record(), 4);
        assert_eq!(mirror.get("w").map(|seen| seen.revision), Some(4));
    }
}
