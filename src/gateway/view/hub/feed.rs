//! A mailbox for everything: the newest state of each run and worker that its reader has not seen.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Hub, Place};
use crate::model::limits::MAX_FEED_PENDING;
use crate::model::run::RunSummary;
use crate::model::worker::WorkerRecord;

/// Which runs a reader may see; asked once per change, also for the removal of a run.
pub type RunFilter = Box<dyn Fn(&RunSummary) -> bool + Send + Sync>;

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Run(Arc<RunSummary>),
    RunRemoved(String),
    /// The record, and when the worker wrote it, by our own clock.
    Worker(Arc<WorkerRecord>, Instant),
    WorkerRemoved(String),
}

#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// When not zero, the reader was too slow or everything known is void: it has to load its lists anew.
    pub lost: u64,
    /// Whether the gateway's view is live, when that has changed or was never told.
    pub live: Option<bool>,
    /// The changes, the longest waiting first.
    pub changes: Vec<Change>,
}

/// The gateway stops, or the feed's owner may see nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The reader's end; dropping it ends the feed.
pub struct Feed {
    hub: Hub,
    id: u64,
    queue: Arc<Queue>,
    _place: Place,
}

pub(super) struct Queue {
    visible: RunFilter,
    owner: Option<String>,
    state: Mutex<FeedState>,
    woken: Condvar,
}

#[derive(Default)]
struct FeedState {
    /// Keys of `pending`, the longest waiting first.
    order: VecDeque<Key>,
    pending: HashMap<Key, Change>,
    lost: u64,
    told_live: Option<bool>,
    live: bool,
    closed: bool,
    /// The reader rests, so what comes twice meanwhile is put together on purpose.
    resting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Run(String),
    Worker(String),
}

impl Feed {
    pub(super) fn new(hub: Hub, id: u64, queue: Arc<Queue>, place: Place) -> Feed {
        Feed { hub, id, queue, _place: place }
    }

    /// Waits for changes, at most for `timeout`; `None` when there were none.
    pub fn next(&self, timeout: Duration) -> Result<Option<Batch>, Closed> {
        let deadline = Instant::now() + timeout;
        let mut state = self.queue.state.lock();
        loop {
            if state.closed {
                return Err(Closed);
            }
            if let Some(batch) = state.take() {
                return Ok(Some(batch));
            }
            if self.queue.woken.wait_until(&mut state, deadline).timed_out() {
                return Ok(None);
            }
        }
    }

    /// Waits for `pause` whatever comes, but for the end.
    pub fn rest(&self, pause: Duration) -> Result<(), Closed> {
        let mut state = self.queue.state.lock();
        let deadline = Instant::now() + pause;
        state.resting = true;
        self.queue.woken.wait_while_until(&mut state, |state| !state.closed, deadline);
        state.resting = false;
        if state.closed { Err(Closed) } else { Ok(()) }
    }

    #[cfg(test)]
    pub(super) fn is_resting(&self) -> bool {
        self.queue.state.lock().resting
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.hub.forget_feed(self.id);
    }
}

impl Queue {
    pub(super) fn new(visible: RunFilter, owner: Option<&str>) -> Queue {
        let owner = owner.map(str::to_owned);
        Queue { visible, owner, state: Mutex::default(), woken: Condvar::new() }
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// How many changes the reader loses by this one; so for all of them.
    pub(super) fn run_changed(&self, run: &Arc<RunSummary>) -> u64 {
        if !(self.visible)(run) {
            return 0;
        }
        self.put(Key::Run(run.run_id.clone()), Change::Run(run.clone()))
    }

    pub(super) fn run_removed(&self, last: &RunSummary) -> u64 {
        if !(self.visible)(last) {
            return 0;
        }
        let run_id = last.run_id.clone();
        self.put(Key::Run(run_id.clone()), Change::RunRemoved(run_id))
    }

    pub(super) fn worker_changed(&self, record: &Arc<WorkerRecord>, heard: Instant) -> u64 {
        self.put(Key::Worker(record.worker_id.clone()), Change::Worker(record.clone(), heard))
    }

    pub(super) fn worker_removed(&self, worker_id: &str) -> u64 {
        let id = worker_id.to_owned();
        self.put(Key::Worker(id.clone()), Change::WorkerRemoved(id))
    }

    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.order.clear();
        // What is void counts as lost, also when nothing was waiting.
        state.lost += 1 + state.pending.drain().count() as u64;
        self.woken.notify_all();
    }

    pub(super) fn set_live(&self, live: bool) {
        self.state.lock().live = live;
        self.woken.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.woken.notify_all();
    }

    fn put(&self, key: Key, change: Change) -> u64 {
        let mut state = self.state.lock();
        let mut skipped = 0;
        if let Some(waiting) = state.pending.get_mut(&key) {
            *waiting = change;
            return u64::from(!state.resting);
        }
        if state.pending.len() >= MAX_FEED_PENDING {
            // The reader has to load its lists anyway, so the rest need not be told any more.
            state.order.clear();
            skipped = state.pending.drain().count() as u64;
            state.lost += skipped;
        }
        state.order.push_back(key.clone());
        state.pending.insert(key, change);
        self.woken.notify_all();
        skipped
    }
}

impl FeedState {
    fn take(&mut self) -> Option<Batch> {
        let live = (self.told_live != Some(self.live)).then_some(self.live);
        if self.lost == 0 && live.is_none() && self.order.is_empty() {
            return None;
        }
        self.told_live = Some(self.live);
        let (order, pending) = (std::mem::take(&mut self.order), &mut self.pending);
        let changes = order.into_iter().filter_map(|key| pending.remove(&key)).collect();
        Some(Batch { lost: std::mem::take(&mut self.lost), live, changes })
    }
}
