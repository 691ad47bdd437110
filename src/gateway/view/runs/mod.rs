//! Every run in memory: what lists, counters and the rescue of lost runs read.
//!
//! One watch on the bucket of snapshots feeds it; what this gateway itself writes goes in at once,
//! so that a client reads its own writes. Of two versions of a run the higher KV revision wins.
//! While the watch is stale the index says so and lists wait for it or fail: old data is never
//! shown as new. Each change is published to the hub under the index's own lock, so that whoever
//! watches sees the versions of a run in their order.

mod documents;
mod order;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use documents::Documents;
use order::Order;
pub use order::Position;
use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::hub::{Hub, Side, Version};
use crate::bus::{self, Entry, Kv, Operation, Watch, WatchEvent};
use crate::gateway::metrics::RunFigures;
use crate::model::json;
use crate::model::limits::SNAPSHOT_CACHE_BYTES;
use crate::model::run::{RunStatus, RunSummary};

/// All runs of one bucket. Clones share it.
#[derive(Clone, Default)]
pub struct RunIndex {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: RwLock<State>,
    hub: Hub,
    figures: RunFigures,
    /// Woken when the index becomes live or stale.
    liveness: (Mutex<()>, Condvar),
}

struct State {
    runs: HashMap<String, Indexed>,
    order: Order,
    documents: Documents,
    /// Our own deletes that the watch has not told yet.
    tombstones: HashMap<String, u64>,
    /// Revision up to which the watch has told everything.
    told: u64,
    /// Since when the watch has told everything; `None` while it is stale.
    live_since: Option<Instant>,
}

impl Default for State {
    fn default() -> Self {
        State {
            runs: HashMap::new(),
            order: Order::default(),
            documents: Documents::new(SNAPSHOT_CACHE_BYTES),
            tombstones: HashMap::new(),
            told: 0,
            live_since: None,
        }
    }
}

/// A run as the index has it.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// What a list shows.
    pub summary: Arc<RunSummary>,
    /// KV revision of the snapshot that it was read from.
    pub revision: u64,
    /// When this revision was first seen here; silence is measured against our own clock.
    pub seen_at: Instant,
}

/// What a list asks for.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    /// Only runs of this tenant.
    pub tenant: Option<&'a str>,
    /// Only runs in this state, by its word on the wire; an unknown word matches nothing.
    pub status: Option<&'a str>,
    /// Only runs of this flow.
    pub flow: Option<&'a str>,
    /// Only runs with this routing tag.
    pub tag: Option<&'a str>,
    /// Only runs that this worker has or had.
    pub worker: Option<&'a str>,
    /// Only runs with this text, in lower case, in their id, flow, tags, worker or error.
    pub text: Option<String>,
    /// Only runs of this document.
    pub workflow_yaml_sha256: Option<&'a str>,
    /// Only runs written after this time.
    pub updated_after: Option<f64>,
    /// Only what stands behind this position.
    pub after: Option<Position>,
}

/// What is known of a run's snapshot without asking NATS.
pub enum Known {
    /// This is its newest version.
    Document(Version),
    /// Ask NATS: the index is stale, has dropped the document, or does not know the run (yet).
    Ask,
}

impl RunIndex {
    /// An empty index that publishes to `hub` and counts in `figures`.
    pub fn new(hub: Hub, figures: RunFigures) -> Self {
        RunIndex { inner: Arc::new(Inner { hub, figures, ..Inner::default() }) }
    }

    /// Starts to follow `runs`; the index lives as long as the returned watch.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(&self, runs: &Kv) -> bus::Result<Watch> {
        let index = self.clone();
        runs.watch(move |event| match event {
            WatchEvent::Reset => index.clear(),
            WatchEvent::Entry(entry) => index.told(entry),
            WatchEvent::Live => index.set_live(true),
            WatchEvent::Stale(_) => index.set_live(false),
        })
    }

    /// Takes in what this gateway has written itself.
    pub fn wrote(&self, run_id: &str, document: Vec<u8>, revision: u64) {
        let (key, operation) = (run_id.to_owned(), Operation::Put);
        self.apply(Entry { key, value: document, revision, operation });
    }

    /// Takes in that this gateway has deleted a run, whose last version the watch may still be about
    /// to tell.
    pub fn deleted(&self, run_id: &str, tombstone: u64) {
        let (key, operation) = (run_id.to_owned(), Operation::Delete);
        let mut state = self.write();
        // Nothing can be late any more once the watch has told the delete itself.
        if tombstone > state.told {
            state.tombstones.insert(key.clone(), tombstone);
        }
        drop(state);
        self.apply(Entry { key, value: Vec::new(), revision: tombstone, operation });
    }

    /// Whether it tells everything.
    pub fn is_live(&self) -> bool {
        self.read().live_since.is_some()
    }

    /// Waits until it tells everything; `false` when that takes longer than `timeout`.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let (lock, changed) = &self.inner.liveness;
        let mut guard = lock.lock();
        changed.wait_while_until(&mut guard, |()| !self.is_live(), deadline);
        self.is_live()
    }

    /// A page of at most `limit` runs, newest first, and whether more match behind it.
    pub fn list(&self, filter: &Filter<'_>, limit: usize) -> (Vec<Arc<RunSummary>>, bool) {
        let state = self.read();
        let mut page = Vec::new();
        for run_id in state.order.newest_first(filter.tenant, filter.after.as_ref()) {
            let Some(run) = state.runs.get(run_id) else { continue };
            if filter.is_past(&run.summary) {
                break;
            }
            if filter.matches(&run.summary) {
                if page.len() == limit {
                    return (page, true);
                }
                page.push(run.summary.clone());
            }
        }
        (page, false)
    }

    /// What lists show of a run, if it is known.
    pub fn summary(&self, run_id: &str) -> Option<Arc<RunSummary>> {
        self.read().runs.get(run_id).map(|run| run.summary.clone())
    }

    /// The snapshot document of a run, if its newest version is at hand.
    pub fn document(&self, run_id: &str) -> Known {
        let state = self.read();
        let current = state.live_since.and_then(|_| state.runs.get(run_id));
        let newest = current.and_then(|run| {
            let document = state.documents.get(run_id, run.revision)?;
            Some(Version::new(run.revision, document))
        });
        match newest {
            Some(version) => Known::Document(version),
            None => Known::Ask,
        }
    }

    /// How many runs there are in each state.
    pub fn counts(&self) -> Vec<(RunStatus, usize)> {
        let state = self.read();
        RunStatus::ALL.iter().map(|status| (*status, state.order.count(*status))).collect()
    }

    /// How many runs in each state were written last on the present day, by the clock of this
    /// machine's time zone.
    pub fn counts_today(&self) -> Vec<(RunStatus, usize)> {
        let (state, today) = (self.read(), order::today());
        let count = |status| (status, state.order.count_on(today, status));
        RunStatus::ALL.iter().map(|status| count(*status)).collect()
    }

    /// Runs that have not ended, and since when the index is live; empty while it is stale.
    pub fn unfinished(&self) -> (Vec<Indexed>, Option<Instant>) {
        let state = self.read();
        if state.live_since.is_none() {
            return (Vec::new(), None);
        }
        let runs = state.order.unfinished().filter_map(|id| state.runs.get(id).cloned()).collect();
        (runs, state.live_since)
    }

    /// What the watch says comes in order: from here on nothing older follows.
    fn told(&self, entry: Entry) {
        self.take(entry, true);
    }

    /// What this gateway has done itself.
    fn apply(&self, entry: Entry) {
        self.take(entry, false);
    }

    fn take(&self, entry: Entry, is_told: bool) {
        let Entry { key, value, revision, operation } = entry;
        let summary = match operation {
            Operation::Delete => None,
            Operation::Put => match json::from_wire::<RunSummary>(&value) {
                // Whatever the document says: the key is what can be asked for.
                Ok(summary) => Some(Arc::new(RunSummary { run_id: key.clone(), ..summary })),
                Err(e) => {
                    log::warn!(run_id = key.as_str(), error = e.to_string();
                        "a snapshot cannot be read; leaving it out of lists");
                    None
                }
            },
        };
        let mut state = self.write();
        let is_dead = state.tombstones.get(&key).is_some_and(|tombstone| *tombstone > revision);
        if is_told {
            state.told = state.told.max(revision);
            if !is_dead {
                state.tombstones.remove(&key);
            }
        }
        // A write of our own that the watch has passed by already says nothing new, and must not
        // bring back what somebody has deleted since.
        let is_late = !is_told && revision <= state.told;
        if is_dead
            || is_late
            || state.runs.get(&key).is_some_and(|known| known.revision >= revision)
        {
            return;
        }
        let old = state.runs.remove(&key);
        if let Some(old) = &old {
            state.order.remove(&old.summary);
        }
        match summary {
            Some(summary) => {
                let (document, is_live) = (Arc::new(value), state.live_since.is_some());
                state.order.insert(&summary);
                state.documents.insert(&key, revision, document.clone());
                self.inner.figures.moved(old.as_ref().map(|old| &*old.summary), &summary, is_live);
                self.inner.hub.run_changed(&summary, revision, &document);
                state.runs.insert(key, Indexed { summary, revision, seen_at: Instant::now() });
            }
            None => {
                state.documents.remove(&key);
                let last = old.as_ref().map(|old| &*old.summary);
                match (operation, last) {
                    (Operation::Delete, last) => self.inner.hub.run_removed(&key, last),
                    (Operation::Put, Some(last)) => self.inner.hub.run_unreadable(last),
                    (Operation::Put, None) => {}
                }
            }
        }
    }

    fn clear(&self) {
        let mut state = self.write();
        *state = State::default();
        self.inner.hub.reset(Side::Runs);
    }

    fn set_live(&self, live: bool) {
        let mut state = self.write();
        state.live_since = live.then(Instant::now);
        self.inner.hub.set_live(Side::Runs, live);
        drop(state);
        let (lock, changed) = &self.inner.liveness;
        drop(lock.lock());
        changed.notify_all();
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.inner.state.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.inner.state.write()
    }
}

impl Filter<'_> {
    /// Whether neither this run nor any older one can match.
    fn is_past(&self, run: &RunSummary) -> bool {
        // Written so that NaN, which nothing is newer than, ends the list at once.
        self.updated_after.is_some_and(|after| !matches!(run.updated_at, Some(at) if at > after))
    }

    fn matches(&self, run: &RunSummary) -> bool {
        self.status.is_none_or(|status| run.status.as_str() == status)
            && self.flow.is_none_or(|flow| run.flow_name == flow)
            && self.tag.is_none_or(|tag| run.tag == tag)
            && self.worker.is_none_or(|worker| run.worker_id.as_deref() == Some(worker))
            && self.text.as_deref().is_none_or(|text| says(run, text))
            && self
                .workflow_yaml_sha256
                .is_none_or(|hash| run.workflow_yaml_sha256.as_deref() == Some(hash))
    }
}

/// Whether `text`, which is in lower case, stands in something that a list shows of the run.
fn says(run: &RunSummary, text: &str) -> bool {
    let shown = [&run.run_id, &run.flow_name, &run.tag].into_iter();
    let shown = shown.chain(&run.tags).chain(&run.worker_id).chain(&run.error);
    shown.into_iter().any(|word| word.to_lowercase().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::run::RunSnapshot;

    fn entry(run_id: &str, updated_at: f64, revision: u64, status: RunStatus) -> Entry {
        let mut snapshot =
            RunSnapshot::pending(run_id.into(), "main".into(), "default".into(), updated_at);
        snapshot.status = status;
        let value = json::to_wire(&snapshot).unwrap();
        Entry { key: run_id.into(), value, revision, operation: Operation::Put }
    }

    fn ids(page: &[Arc<RunSummary>]) -> Vec<&str> {
        page.iter().map(|run| run.run_id.as_str()).collect()
    }

    #[test]
    fn lists_are_newest_first_and_the_higher_revision_wins() {
        let index = RunIndex::default();
        index.apply(entry("a", 1.0, 1, RunStatus::Pending));
        index.apply(entry("b", 2.0, 2, RunStatus::Pending));
        index.apply(entry("c", 2.0, 3, RunStatus::Pending));
        index.apply(entry("a", 3.0, 5, RunStatus::Running));
        // A late, older version changes nothing.
        index.apply(entry("a", 2.5, 4, RunStatus::Pending));
        let (page, more) = index.list(&Filter::default(), 2);
        assert_eq!((ids(&page), more), (vec!["a", "c"], true));
        let after = Some(Position::of(&page[1]));
        let (page, more) = index.list(&Filter { after, ..Filter::default() }, 2);
        assert_eq!((ids(&page), more), (vec!["b"], false));
        assert_eq!(index.counts()[0], (RunStatus::Pending, 2));
        assert_eq!(index.counts()[1], (RunStatus::Running, 1));
    }

    #[test]
    fn filters_narrow_and_times_cut() {
        let index = RunIndex::default();
        index.apply(entry("a", 1.0, 1, RunStatus::Failed));
        index.apply(entry("b", 2.0, 2, RunStatus::Pending));
        let list = |filter: Filter<'_>| index.list(&filter, 10).0.len();
        assert_eq!(list(Filter { status: Some("FAILED"), ..Filter::default() }), 1);
        assert_eq!(list(Filter { status: Some("failed"), ..Filter::default() }), 0);
        assert_eq!(list(Filter { tag: Some("gpu"), ..Filter::default() }), 0);
        assert_eq!(list(Filter { worker: Some("w"), ..Filter::default() }), 0);
        let text = |text: &str| Filter { text: Some(text.to_owned()), ..Filter::default() };
        assert_eq!(list(text("fau")), list(Filter { tag: Some("default"), ..Filter::default() }));
        assert_eq!(list(text("nowhere")), 0);
        assert_eq!(list(Filter { updated_after: Some(1.0), ..Filter::default() }), 1);
        assert_eq!(list(Filter { updated_after: Some(f64::NAN), ..Filter::default() }), 0);
        assert_eq!(list(Filter { updated_after: Some(f64::INFINITY), ..Filter::default() }), 0);
    }

    #[test]
    fn a_tenants_pages_hold_its_runs_alone() {
        let index = RunIndex::default();
        let put = |run_id: &str, tenant: Option<&str>, updated_at: f64, revision: u64| {
            let mut run =
                RunSnapshot::pending(run_id.into(), "m".into(), "default".into(), updated_at);
            run.tenant_id = tenant.map(str::to_owned);
            index.wrote(run_id, json::to_wire(&run).unwrap(), revision);
        };
        put("a1", Some("a"), 1.0, 1);
        put("b1", Some("b"), 2.0, 2);
        put("a2", Some("a"), 3.0, 3);
        put("n1", None, 4.0, 4);
        put("a3", Some("a"), 5.0, 5);
        let of = |tenant| Filter { tenant, ..Filter::default() };
        let (page, more) = index.list(&of(Some("a")), 2);
        assert_eq!((ids(&page), more), (vec!["a3", "a2"], true));
        let after = Some(Position::of(&page[1]));
        let (page, more) = index.list(&Filter { after, ..of(Some("a")) }, 2);
        assert_eq!((ids(&page), more), (vec!["a1"], false));
        assert_eq!(index.list(&of(Some("none")), 9).0.len(), 0);
        assert_eq!(index.list(&of(None), 9).0.len(), 5);
        // A position from another tenant's page shows nothing of that tenant.
        let after = Some(Position { updated_at: 4.5, run_id: "n1".into() });
        assert_eq!(ids(&index.list(&Filter { after, ..of(Some("b")) }, 9).0), ["b1"]);
        index.deleted("b1", 6);
        assert_eq!(index.list(&of(Some("b")), 9).0.len(), 0);
    }

    #[test]
    fn what_was_deleted_here_does_not_come_back_with_late_news() {
        let index = RunIndex::default();
        index.deleted("a", 2);
        index.told(entry("a", 1.0, 1, RunStatus::Pending));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 0);
        index.told(entry("a", 3.0, 3, RunStatus::Pending));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 1, "a later submit of that id");
        assert!(index.read().tombstones.is_empty());
    }

    #[test]
    fn a_write_of_ours_that_the_watch_has_passed_by_brings_nothing_back() {
        let index = RunIndex::default();
        let gone = |revision| {
            let (key, operation) = ("a".to_owned(), Operation::Delete);
            Entry { key, value: Vec::new(), revision, operation }
        };
        index.told(entry("a", 1.0, 1, RunStatus::Running));
        index.told(entry("a", 2.0, 2, RunStatus::Cancelling));
        index.told(gone(3));
        // The thread that wrote revision 2 gets to say so only now.
        let Entry { value, .. } = entry("a", 2.0, 2, RunStatus::Cancelling);
        index.wrote("a", value, 2);
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 0);
        index.deleted("a", 3);
        assert!(index.read().tombstones.is_empty(), "nobody would remove it");
        index.wrote("a", entry("a", 4.0, 4, RunStatus::Pending).value, 4);
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 1);
    }

    #[test]
    fn a_deleted_run_is_gone_and_documents_are_known_only_while_live() {
        let index = RunIndex::default();
        index.apply(entry("a", 1.0, 1, RunStatus::Pending));
        assert!(matches!(index.document("a"), Known::Ask));
        index.set_live(true);
        assert!(matches!(index.document("a"), Known::Document(_)));
        let tombstone =
            Entry { key: "a".into(), value: Vec::new(), revision: 2, operation: Operation::Delete };
        index.apply(tombstone);
        assert!(matches!(index.document("a"), Known::Ask));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 0);
        assert_eq!(index.counts()[0].1, 0);
    }
}
