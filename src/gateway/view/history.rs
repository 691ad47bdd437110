//! What was done to wheels: written by whoever did it, read from a mirror.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bus::{self, Entry, Kv, Mirror, Operation, View, Watch};
use crate::model::wheel::{HistoryAction, HistoryEntry};
use crate::model::{clock, json};

/// Events of the history of wheels that a gateway has in memory, and shows: years of uploads, in a few MiB.
const MAX_WHEEL_HISTORY: usize = 10_000;

/// The keys begin with the time, so their order is that of the events.
pub struct History {
    kv: Kv,
    /// How long entries are kept; the bucket drops them without a word.
    kept: Duration,
    mirror: Mirror<HistoryView>,
}

#[derive(Default)]
struct HistoryView(BTreeMap<String, HistoryEntry>);

#[derive(Debug, Default)]
pub struct Wanted<'a> {
    pub wheel_name: Option<&'a str>,
    pub action: Option<HistoryAction>,
}

impl History {
    pub(crate) fn new(kv: Kv, kept: Duration) -> Self {
        History { kv, kept, mirror: Mirror::default() }
    }

    pub(crate) fn follow(&self) -> bus::Result<Watch> {
        self.kv.watch(self.mirror.observer())
    }

    /// After an error the entry may be missing.
    pub fn append(&self, entry: &HistoryEntry) -> bus::Result<()> {
        let (key, document) = (key(entry), json::to_wire(entry)?);
        let revision = self.kv.create(&key, &document)?;
        self.mirror.wrote(Entry::put(&key, document, revision));
        Ok(())
    }

    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.mirror.wait_live(timeout)
    }

    /// The newest entries first, at most `limit`.
    pub fn newest(&self, wanted: &Wanted<'_>, limit: usize) -> Vec<HistoryEntry> {
        let oldest = clock::now() - self.kept.as_secs_f64();
        self.mirror.look(|view, _| {
            let newest_first = view.0.values().rev();
            newest_first
                .filter(|entry| entry.occurred_at >= oldest)
                .filter(|entry| wanted.wheel_name.is_none_or(|name| entry.wheel_name == name))
                .filter(|entry| wanted.action.is_none_or(|action| entry.action == action))
                .take(limit)
                .cloned()
                .collect()
        })
    }
}

/// `<13-digit unix ms>_<event_id>` (`docs/contract.md#wheels`).
fn key(entry: &HistoryEntry) -> String {
    format!("{:013}_{}", (entry.occurred_at * 1000.0) as u64, entry.event_id)
}

impl View for HistoryView {
    type Change = Entry;

    fn take(&mut self, entry: Entry, _: bool) {
        if entry.operation == Operation::Delete {
            self.0.remove(&entry.key);
            return;
        }
        match json::from_wire(&entry.value) {
            Ok(read) => drop(self.0.insert(entry.key, read)),
            Err(e) => log::warn!(key = entry.key.as_str(), error = e.to_string();
                "an entry of the history of wheels cannot be read"),
        }
        // Beyond the bound the oldest ones are forgotten here; the bucket still has them.
        if self.0.len() > MAX_WHEEL_HISTORY {
            self.0.pop_first();
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
