//! A mirror of the worker registry: who is there, and when it was heard of last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hub::{Hub, Side};
use crate::bus::{self, Entry, Kv, Mirror, Operation, View, Watch};
use crate::model::worker::{WorkerRecord, WorkerState};
use crate::model::{clock, json};

#[derive(Clone, Default)]
pub struct WorkerMirror(Mirror<WorkerView>);

#[derive(Default)]
struct WorkerView {
    records: HashMap<String, Seen>,
    hub: Hub,
}

/// A record and when this version of it arrived, by our own clock.
#[derive(Debug, Clone)]
pub struct Seen {
    pub record: Arc<WorkerRecord>,
    pub revision: u64,
    pub at: Instant,
    /// When the worker wrote it, by our own clock. Its own clock may be wrong, and an operator's change of
    /// the record is no sign of life.
    pub heard: Instant,
    /// The derived state that was published last: it also changes as time passes.
    shown: WorkerState,
}

impl WorkerMirror {
    pub fn new(hub: Hub) -> Self {
        WorkerMirror(Mirror::new(WorkerView { records: HashMap::new(), hub }))
    }

    pub fn follow(&self, workers: &Kv) -> bus::Result<Watch> {
        workers.watch(self.0.observer())
    }

    pub fn wrote(&self, entry: Entry) {
        self.0.wrote(entry);
    }

    pub fn get(&self, worker_id: &str) -> Option<Seen> {
        self.0.look(|view, _| view.records.get(worker_id).cloned())
    }

    pub fn all(&self) -> Vec<Seen> {
        self.0.look(|view, _| view.records.values().cloned().collect())
    }

    pub fn is_live(&self) -> bool {
        self.0.is_live()
    }

    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.0.wait_live(timeout)
    }

    /// Publishes the workers whose derived state has changed because time has passed.
    pub fn publish_silent(&self, disconnect_timeout: Duration) {
        self.0.change(|view| {
            for seen in view.records.values_mut() {
                let derived = seen.state(disconnect_timeout);
                if derived != seen.shown {
                    seen.shown = derived;
                    view.hub.worker_changed(&seen.record, seen.heard);
                }
            }
        });
    }

    /// Drops what is known of a worker unless there is something newer.
    pub fn forget(&self, worker_id: &str, revision: u64) {
        self.0.change(|view| {
            if view.records.get(worker_id).is_some_and(|seen| seen.revision == revision) {
                view.remove(worker_id);
            }
        });
    }
}

impl Seen {
    /// The derived state, now.
    pub fn state(&self, disconnect_timeout: Duration) -> WorkerState {
        self.record.derived_state(self.heard.elapsed(), disconnect_timeout)
    }

    /// When the worker was heard of last, by this machine's clock, unix seconds.
    pub fn heard_at(&self) -> f64 {
        clock::now() - self.heard.elapsed().as_secs_f64()
    }
}

impl WorkerView {
    fn remove(&mut self, worker_id: &str) {
        if self.records.remove(worker_id).is_some() {
            self.hub.worker_removed(worker_id);
        }
    }
}

impl View for WorkerView {
    type Change = Entry;

    fn take(&mut self, entry: Entry, _: bool) {
        let Entry { key, value, revision, operation, stored } = entry;
        if operation == Operation::Delete {
            return self.remove(&key);
        }
        match json::from_wire::<WorkerRecord>(&value) {
            Ok(record) => {
                // Whatever the record says: the key is what can be asked for.
                let record = Arc::new(WorkerRecord { worker_id: key.clone(), ..record });
                let before = self.records.get(&key).filter(|before| {
                    let same_life = before.record.instance_id == record.instance_id;
                    same_life && before.record.seen_at() == record.seen_at()
                });
                let heard = before.map_or(stored, |before| before.heard);
                self.hub.worker_changed(&record, heard);
                let (at, shown) = (Instant::now(), record.told_state());
                self.records.insert(key, Seen { record, revision, at, heard, shown });
            }
            Err(e) => {
                log::warn!(worker_id = key.as_str(), error = e.to_string();
                    "a worker's record cannot be read");
            }
        }
    }

    fn clear(&mut self) {
        self.records.clear();
        self.hub.reset(Side::Workers);
    }

    fn set_live(&mut self, live: bool) {
        self.hub.set_live(Side::Workers, live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::WatchEvent;

    #[test]
    fn a_write_of_ours_that_the_watch_has_passed_by_brings_nothing_back() {
        let mirror = WorkerMirror::default();
        let put = |revision| Entry::put("w", br#"{"worker_id":"w","last_seen_at":1.0}"#.to_vec(), revision);
        mirror.0.observe(WatchEvent::Entry(put(1)));
        mirror.0.observe(WatchEvent::Entry(Entry::tombstone("w", 3)));
        // The thread that wrote revision 2 gets to say so only now.
        mirror.wrote(put(2));
        assert!(mirror.get("w").is_none());
        mirror.wrote(put(4));
        assert_eq!(mirror.get("w").map(|seen| seen.revision), Some(4));
    }
}
