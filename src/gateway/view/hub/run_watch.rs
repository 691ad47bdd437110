//! A mailbox with one place: the newest version of one run.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Hub, Place};

#[derive(Debug, Clone)]
pub struct Version {
    pub revision: u64,
    pub document: Arc<Vec<u8>>,
    /// Without and with records; shared by all who were told of this version.
    views: Arc<[OnceLock<Option<Shown>>; 2]>,
}

/// What a watcher tells of a version. A run that hundreds watch is taken apart once, not by each.
#[derive(Debug)]
pub struct Shown {
    /// When it was written, unix seconds, by its writer's clock.
    pub updated_at: Option<f64>,
    pub is_terminal: bool,
    pub json: Vec<u8>,
}

impl Version {
    pub fn new(revision: u64, document: Arc<Vec<u8>>) -> Version {
        Version { revision, document, views: Arc::default() }
    }

    /// What `make` makes of the document, the first time it is asked for; `None` when it cannot be read.
    pub fn view(&self, with_records: bool, make: impl FnOnce(&[u8]) -> Option<Shown>) -> Option<&Shown> {
        self.views[usize::from(with_records)].get_or_init(|| make(&self.document)).as_ref()
    }
}

#[derive(Debug)]
pub enum News {
    Version(Version),
    /// Revisions begin anew: the bucket was replaced.
    Reset,
    Removed,
    /// The gateway stops, or the watch's owner may see nothing any more.
    Closed,
    Nothing,
}

/// The reader's end; dropping it ends the watch.
pub struct RunWatch {
    hub: Hub,
    run_id: String,
    id: u64,
    slot: Arc<Slot>,
    _place: Place,
}

#[derive(Default)]
pub(super) struct Slot {
    owner: Option<String>,
    state: Mutex<SlotState>,
    woken: Condvar,
}

#[derive(Default)]
struct SlotState {
    newest: Option<Version>,
    reset: bool,
    removed: bool,
    closed: bool,
}

impl RunWatch {
    pub(super) fn new(hub: Hub, run_id: String, id: u64, slot: Arc<Slot>, place: Place) -> RunWatch {
        RunWatch { hub, run_id, id, slot, _place: place }
    }

    /// Waits for news, at most for `timeout`.
    pub fn next(&self, timeout: Duration) -> News {
        let deadline = Instant::now() + timeout;
        let mut state = self.slot.state.lock();
        loop {
            if state.closed {
                return News::Closed;
            }
            if std::mem::take(&mut state.reset) {
                return News::Reset;
            }
            if let Some(version) = state.newest.take() {
                return News::Version(version);
            }
            if state.removed {
                return News::Removed;
            }
            if self.slot.woken.wait_until(&mut state, deadline).timed_out() {
                return News::Nothing;
            }
        }
    }
}

impl Drop for RunWatch {
    fn drop(&mut self) {
        self.hub.forget_watch(&self.run_id, self.id);
    }
}

impl Slot {
    pub(super) fn new(owner: Option<&str>) -> Slot {
        Slot { owner: owner.map(str::to_owned), ..Slot::default() }
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Puts a version in; how many were pushed out by it.
    pub(super) fn offer(&self, version: Version) -> u64 {
        let mut state = self.state.lock();
        state.removed = false;
        let pushed_out = state.newest.replace(version).is_some();
        self.woken.notify_all();
        u64::from(pushed_out)
    }

    pub(super) fn removed(&self) {
        let mut state = self.state.lock();
        // Its last state matters to nobody any more.
        state.newest = None;
        state.removed = true;
        self.woken.notify_all();
    }

    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.newest = None;
        state.reset = true;
        self.woken.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.woken.notify_all();
    }
}
