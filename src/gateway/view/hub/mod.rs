//! Tells what changes to all watchers: one mailbox per open stream, none of which can hold anybody up.
//!
//! The run index and the worker mirror publish under their own locks what their watches tell, so that nobody
//! sees a run go backwards. A mailbox is bounded: a [`RunWatch`] holds the newest version of its run, a
//! [`Feed`] the newest summary of each run that its reader has not taken. What a slow reader did not get is
//! counted. This floor knows neither HTTP nor how an event is written.

mod feed;
mod run_watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

pub use feed::{Batch, Change, Feed, RunFilter};
use parking_lot::Mutex;
pub use run_watch::{News, RunWatch, Shown, Version};

use crate::model::limits::MAX_STREAMS;
use crate::model::run::RunSummary;
use crate::model::worker::WorkerRecord;

#[derive(Clone)]
pub struct Hub {
    inner: Arc<HubInner>,
}

struct HubInner {
    subscribers: Mutex<Subscribers>,
    limit: AtomicUsize,
    open: AtomicUsize,
    /// States that slow readers did not get.
    skipped: AtomicU64,
}

#[derive(Default)]
struct Subscribers {
    next_id: u64,
    runs: HashMap<String, Vec<(u64, Arc<run_watch::Slot>)>>,
    feeds: HashMap<u64, Arc<feed::Queue>>,
    view: Liveness,
    closed: bool,
}

/// Which of the two watches tell everything at the moment.
#[derive(Debug, Clone, Copy, Default)]
struct Liveness {
    runs: bool,
    workers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Runs,
    Workers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

struct Place(Arc<HubInner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Default for Hub {
    fn default() -> Self {
        Hub::new(MAX_STREAMS)
    }
}

impl Hub {
    pub fn new(limit: usize) -> Hub {
        let inner = HubInner {
            subscribers: Mutex::default(),
            limit: AtomicUsize::new(limit),
            open: AtomicUsize::new(0),
            skipped: AtomicU64::new(0),
        };
        Hub { inner: Arc::new(inner) }
    }

    /// Lowers the number of streams that may be open at once, for want of descriptors.
    pub fn lower_limit(&self, limit: usize) {
        self.inner.limit.fetch_min(limit, Ordering::SeqCst);
    }

    /// It holds what comes from now on, so look at the present version after this. `owner` is the key with
    /// which [`Hub::close_streams_of`] ends it.
    pub fn watch(&self, run_id: &str, owner: Option<&str>) -> Result<RunWatch, Full> {
        let place = self.place()?;
        let slot = Arc::new(run_watch::Slot::new(owner));
        let mut subscribers = self.inner.subscribers.lock();
        if subscribers.closed {
            slot.close();
        }
        let id = subscribers.new_id();
        subscribers.runs.entry(run_id.to_owned()).or_default().push((id, slot.clone()));
        Ok(RunWatch::new(self.clone(), run_id.to_owned(), id, slot, place))
    }

    /// For runs that `visible` lets through, and all workers; the first batch says whether the view is live.
    pub fn feed(&self, visible: RunFilter, owner: Option<&str>) -> Result<Feed, Full> {
        let place = self.place()?;
        let mut subscribers = self.inner.subscribers.lock();
        let queue = Arc::new(feed::Queue::new(visible, owner));
        queue.set_live(subscribers.view.is_live());
        if subscribers.closed {
            queue.close();
        }
        let id = subscribers.new_id();
        subscribers.feeds.insert(id, queue.clone());
        Ok(Feed::new(self.clone(), id, queue, place))
    }

    pub fn run_changed(&self, summary: &Arc<RunSummary>, revision: u64, document: &Arc<Vec<u8>>) {
        let subscribers = self.inner.subscribers.lock();
        let mut skipped = 0;
        if let Some(slots) = subscribers.runs.get(&summary.run_id) {
            let version = Version::new(revision, document.clone());
            skipped += slots.iter().map(|(_, slot)| slot.offer(version.clone())).sum::<u64>();
        }
        for queue in subscribers.feeds.values() {
            skipped += queue.run_changed(summary);
        }
        self.count_skipped(skipped);
    }

    /// A run is not there any more; `last` is what lists showed of it.
    pub fn run_removed(&self, run_id: &str, last: Option<&RunSummary>) {
        let subscribers = self.inner.subscribers.lock();
        for (_, slot) in subscribers.runs.get(run_id).into_iter().flatten() {
            slot.removed();
        }
        self.count_skipped(last.map_or(0, |last| subscribers.unlist(last)));
    }

    /// A run's newest version cannot be read: lists leave it out, whoever watches it waits for the next.
    pub fn run_unreadable(&self, last: &RunSummary) {
        let subscribers = self.inner.subscribers.lock();
        self.count_skipped(subscribers.unlist(last));
    }

    pub fn worker_changed(&self, record: &Arc<WorkerRecord>, heard: Instant) {
        let subscribers = self.inner.subscribers.lock();
        let skipped = subscribers.feeds.values().map(|queue| queue.worker_changed(record, heard)).sum();
        self.count_skipped(skipped);
    }

    pub fn worker_removed(&self, worker_id: &str) {
        let subscribers = self.inner.subscribers.lock();
        let skipped = subscribers.feeds.values().map(|queue| queue.worker_removed(worker_id)).sum();
        self.count_skipped(skipped);
    }

    /// The bucket is another one than before: what was told is void, and revisions begin anew.
    pub fn reset(&self, side: Side) {
        let subscribers = self.inner.subscribers.lock();
        if side == Side::Runs {
            subscribers.runs.values().flatten().for_each(|(_, slot)| slot.reset());
        }
        subscribers.feeds.values().for_each(|queue| queue.reset());
    }

    /// One side tells everything from now on, or does not any more.
    pub fn set_live(&self, side: Side, live: bool) {
        let mut subscribers = self.inner.subscribers.lock();
        match side {
            Side::Runs => subscribers.view.runs = live,
            Side::Workers => subscribers.view.workers = live,
        }
        let live = subscribers.view.is_live();
        subscribers.feeds.values().for_each(|queue| queue.set_live(live));
    }

    /// Ends every stream, and those that are opened later at once.
    pub fn close(&self) {
        let mut subscribers = self.inner.subscribers.lock();
        subscribers.closed = true;
        subscribers.runs.values().flatten().for_each(|(_, slot)| slot.close());
        subscribers.feeds.values().for_each(|queue| queue.close());
    }

    pub fn close_streams_of(&self, owner: &str) {
        let subscribers = self.inner.subscribers.lock();
        let watches = subscribers.runs.values().flatten().map(|(_, slot)| slot);
        watches.filter(|slot| slot.owner() == Some(owner)).for_each(|slot| slot.close());
        let feeds = subscribers.feeds.values();
        feeds.filter(|queue| queue.owner() == Some(owner)).for_each(|queue| queue.close());
    }

    pub fn open_streams(&self) -> usize {
        self.inner.open.load(Ordering::SeqCst)
    }

    /// States that slow readers did not get, since the start.
    pub fn skipped(&self) -> u64 {
        self.inner.skipped.load(Ordering::Relaxed)
    }

    fn count_skipped(&self, count: u64) {
        self.inner.skipped.fetch_add(count, Ordering::Relaxed);
    }

    fn place(&self) -> Result<Place, Full> {
        // Counted first, so that two at the last place cannot both have it.
        let place = Place(self.inner.clone());
        let limit = self.inner.limit.load(Ordering::SeqCst);
        match self.inner.open.fetch_add(1, Ordering::SeqCst) < limit {
            true => Ok(place),
            false => Err(Full),
        }
    }

    fn forget_watch(&self, run_id: &str, id: u64) {
        let mut subscribers = self.inner.subscribers.lock();
        if let Some(slots) = subscribers.runs.get_mut(run_id) {
            slots.retain(|(known, _)| *known != id);
            if slots.is_empty() {
                subscribers.runs.remove(run_id);
            }
        }
    }

    fn forget_feed(&self, id: u64) {
        self.inner.subscribers.lock().feeds.remove(&id);
    }
}

impl Subscribers {
    fn unlist(&self, last: &RunSummary) -> u64 {
        self.feeds.values().map(|queue| queue.run_removed(last)).sum()
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Liveness {
    fn is_live(self) -> bool {
        self.runs && self.workers
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::run::{RunSnapshot, RunStatus};

    const SOON: Duration = Duration::from_millis(20);

    fn summary(run_id: &str, status: RunStatus) -> Arc<RunSummary> {
        let mut run = RunSnapshot::pending(run_id.into(), "main".into(), "default".into(), 1.0);
        run.status = status;
        Arc::new(run.summary())
    }

    fn publish(hub: &Hub, run_id: &str, revision: u64) {
        let document = Arc::new(revision.to_string().into_bytes());
        hub.run_changed(&summary(run_id, RunStatus::Running), revision, &document);
    }

    #[test]
    fn a_run_watch_holds_the_newest_version_alone_and_counts_the_rest() {
        let hub = Hub::new(2);
        let watch = hub.watch("a", None).unwrap();
        assert!(matches!(watch.next(SOON), News::Nothing));
        for revision in 1..=5 {
            publish(&hub, "a", revision);
            publish(&hub, "b", revision);
        }
        match watch.next(SOON) {
            News::Version(version) => assert_eq!(version.revision, 5),
            other => panic!("{other:?}"),
        }
        assert_eq!(hub.skipped(), 4);
        assert!(matches!(watch.next(SOON), News::Nothing));
        hub.run_removed("a", None);
        assert!(matches!(watch.next(SOON), News::Removed));
        hub.close();
        assert!(matches!(watch.next(SOON), News::Closed));
        assert!(matches!(hub.watch("a", None).unwrap().next(SOON), News::Closed));
    }

    #[test]
    fn the_streams_of_one_owner_end_and_no_others() {
        let hub = Hub::new(9);
        let mine = hub.watch("a", Some("k1")).unwrap();
        let my_feed = hub.feed(Box::new(|_| true), Some("k1")).unwrap();
        let others = [hub.watch("a", Some("k2")).unwrap(), hub.watch("a", None).unwrap()];
        let other_feed = hub.feed(Box::new(|_| true), Some("k2")).unwrap();
        hub.close_streams_of("k1");
        assert!(matches!(mine.next(SOON), News::Closed) && my_feed.next(SOON).is_err());
        assert!(others.iter().all(|watch| matches!(watch.next(SOON), News::Nothing)));
        assert!(other_feed.next(SOON).is_ok());
    }

    #[test]
    fn a_version_is_taken_apart_once_for_all_who_watch() {
        let hub = Hub::new(3);
        let watches = [(); 3].map(|()| hub.watch("a", None).unwrap());
        publish(&hub, "a", 7);
        let mut made = 0;
        for watch in &watches {
            let News::Version(version) = watch.next(SOON) else { panic!("no version") };
            for with_records in [false, true] {
                let view = version.view(with_records, |document| {
                    made += 1;
                    let json = document.to_vec();
                    Some(Shown { updated_at: None, is_terminal: false, json })
                });
                assert_eq!(view.unwrap().json, b"7");
            }
        }
        assert_eq!(made, 2);
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let hub = Hub::new(2);
        let first = hub.watch("a", None).unwrap();
        let second = hub.feed(Box::new(|_| true), None).unwrap();
        assert!(hub.watch("b", None).is_err() && hub.feed(Box::new(|_| true), None).is_err());
        assert_eq!(hub.open_streams(), 2);
        drop((first, second));
        assert_eq!(hub.open_streams(), 0);
        assert!(
            hub.inner.subscribers.lock().runs.is_empty() && hub.inner.subscribers.lock().feeds.is_empty()
        );
        assert!(hub.watch("b", None).is_ok());
    }

    #[test]
    fn a_feed_tells_each_run_once_in_its_newest_state_and_only_what_is_visible() {
        let hub = Hub::new(2);
        let feed = hub.feed(Box::new(|run| run.run_id != "secret"), None).unwrap();
        hub.set_live(Side::Runs, true);
        let Batch { live, .. } = feed.next(SOON).unwrap().unwrap();
        assert_eq!(live, Some(false), "workers are not live yet");
        hub.set_live(Side::Workers, true);
        for status in [RunStatus::Pending, RunStatus::Running, RunStatus::Completed] {
            for run_id in ["a", "secret", "b"] {
                hub.run_changed(&summary(run_id, status), 1, &Arc::default());
            }
        }
        hub.run_removed("secret", Some(&summary("secret", RunStatus::Completed)));
        hub.run_removed("b", Some(&summary("b", RunStatus::Completed)));
        let batch = feed.next(SOON).unwrap().unwrap();
        assert_eq!((batch.live, batch.lost), (Some(true), 0));
        match batch.changes.as_slice() {
            [Change::Run(run), Change::RunRemoved(gone)] => {
                assert_eq!((run.run_id.as_str(), run.status), ("a", RunStatus::Completed));
                assert_eq!(gone, "b");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(feed.next(SOON).unwrap(), None);
        assert_eq!(hub.skipped(), 5);
    }

    #[test]
    fn what_comes_while_a_reader_rests_is_not_lost_by_slowness() {
        let hub = Hub::new(1);
        let feed = hub.feed(Box::new(|_| true), None).unwrap();
        let (rests, goes_on) = (feed.next(SOON).unwrap().unwrap(), Duration::from_secs(60));
        assert!(rests.changes.is_empty());
        std::thread::scope(|scope| {
            let resting = scope.spawn(|| feed.rest(goes_on));
            while !feed.is_resting() {
                std::thread::yield_now();
            }
            for status in [RunStatus::Pending, RunStatus::Running, RunStatus::Completed] {
                hub.run_changed(&summary("a", status), 1, &Arc::default());
            }
            assert_eq!(hub.skipped(), 0);
            hub.close();
            assert!(resting.join().unwrap().is_err());
        });
    }

    #[test]
    fn a_feed_that_is_not_read_stays_small_and_says_that_it_lost_something() {
        let hub = Hub::new(1);
        let feed = hub.feed(Box::new(|_| true), None).unwrap();
        let many = crate::model::limits::MAX_FEED_PENDING + 10;
        for n in 0..many {
            hub.run_changed(&summary(&n.to_string(), RunStatus::Pending), 1, &Arc::default());
        }
        let batch = feed.next(SOON).unwrap().unwrap();
        assert!(batch.lost as usize + batch.changes.len() == many && batch.lost > 0);
        assert_eq!(hub.skipped(), batch.lost);
        // From here on it is complete again.
        hub.run_changed(&summary("x", RunStatus::Pending), 1, &Arc::default());
        let batch = feed.next(SOON).unwrap().unwrap();
        assert_eq!((batch.lost, batch.changes.len()), (0, 1));
    }
}
