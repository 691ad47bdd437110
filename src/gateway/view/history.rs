//! What was done to wheels: written by whoever did it, read from a mirror.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bus::{self, Entry, Kv, Mirror, Operation, Watch, WatchEvent};
use crate::model::limits::MAX_WHEEL_HISTORY;
use crate::model::wheel::{HistoryAction, HistoryEntry};
use crate::model::{clock, json};

/// The history. Its keys begin with the time, so their order is that of the events.
pub struct History {
    kv: Kv,
    /// How long entries are kept; the bucket drops them without a word.
    kept: Duration,
    mirror: Mirror<BTreeMap<String, HistoryEntry>>,
}

/// Which entries are wanted.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// Those about this wheel.
    pub wheel_name: Option<&'a str>,
    /// Those of this kind.
    pub action: Option<HistoryAction>,
}

impl History {
    pub(crate) fn new(kv: Kv, kept: Duration) -> Self {
        History { kv, kept, mirror: Mirror::default() }
    }

    pub(crate) fn follow(&self) -> bus::Result<Watch> {
        let mirror = self.mirror.clone();
        self.kv.watch(move |event| match event {
            WatchEvent::Reset => mirror.with(BTreeMap::clear),
            WatchEvent::Entry(entry) => mirror.with(|entries| take(entries, entry)),
            WatchEvent::Live => mirror.set_live(true),
            WatchEvent::Stale(_) => mirror.set_live(false),
        })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// Those of a request; then the entry may be missing.
    pub fn append(&self, entry: HistoryEntry) -> bus::Result<()> {
        let document = json::to_wire(&entry).map_err(|e| bus::Error::BadAnswer(e.to_string()))?;
        let key = key(&entry);
        self.kv.create(&key, &document)?;
        self.mirror.with(|entries| insert(entries, key, entry));
        Ok(())
    }

    /// Waits until it tells everything; `false` when that takes longer than `timeout`.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.mirror.wait_live(timeout)
    }

    /// The newest entries first, at most `limit`.
    pub fn newest(&self, wanted: &Wanted<'_>, limit: usize) -> Vec<HistoryEntry> {
        let oldest = clock::now() - self.kept.as_secs_f64();
        self.mirror.with(|entries| {
            let newest_first = entries.values().rev();
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

fn take(entries: &mut BTreeMap<String, HistoryEntry>, entry: Entry) {
    if entry.operation == Operation::Delete {
        entries.remove(&entry.key);
        return;
    }
    match json::from_wire(&entry.value) {
        Ok(read) => insert(entries, entry.key, read),
        Err(e) => log::warn!(key = entry.key.as_str(), error = e.to_string();
            "an entry of the history of wheels cannot be read"),
    }
}

/// Beyond the bound the oldest ones are forgotten here; the bucket still has them.
fn insert(entries: &mut BTreeMap<String, HistoryEntry>, key: String, entry: HistoryEntry) {
    entries.insert(key, entry);
    if entries.len() > MAX_WHEEL_HISTORY {
        entries.pop_first();
    }
}
