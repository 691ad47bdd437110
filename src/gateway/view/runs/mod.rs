//! Every run in memory: what lists, counters and the rescue of lost runs read.
//!
//! A [`Mirror`] of the bucket of snapshots keeps it current. While the watch is stale the index says
//! so and lists wait for it or fail: old data is never shown as new. Each change is published to the
//! hub under the lock of the mirror, so that every watcher sees the versions of a run in their order.

mod documents;
mod order;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use documents::Documents;
pub use order::Position;
use order::RunOrder;

use super::hub::{Hub, Side, Version};
use crate::bus::{self, Entry, Kv, Mirror, Operation, Versioned, View, Watch};
use crate::model::json;
use crate::model::run::{RunStatus, RunSummary};

/// Snapshots that the gateway keeps in memory for `GET /runs/{id}`, in bytes of JSON.
const SNAPSHOT_CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Gets what was known of the run, the new version, and whether the index was live.
pub type Observer = Box<dyn Fn(Option<&RunSummary>, &RunSummary, bool) + Send + Sync>;

#[derive(Clone)]
pub struct RunIndex {
    mirror: Mirror<RunView>,
}

struct RunView {
    runs: HashMap<String, Indexed>,
    order: RunOrder,
    documents: Documents,
    hub: Hub,
    observer: Observer,
}

/// A message of the bucket, read before the lock is taken.
struct RunChange {
    /// `None` when the run was deleted, or its snapshot cannot be read.
    summary: Option<Arc<RunSummary>>,
    entry: Entry,
}

#[derive(Debug, Clone)]
pub struct Indexed {
    pub summary: Arc<RunSummary>,
    /// KV revision of the snapshot that it was read from.
    pub revision: u64,
    /// When this revision was first seen here; silence is measured against our own clock.
    pub seen_at: Instant,
}

#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub tenant: Option<&'a str>,
    /// Only runs in this state, by its word on the wire; an unknown word matches nothing.
    pub status: Option<&'a str>,
    pub flow: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub worker: Option<&'a str>,
    /// Only runs with this text, in lower case, in their id, flow, tags, worker or error.
    pub text: Option<String>,
    pub workflow_yaml_sha256: Option<&'a str>,
    pub updated_after: Option<f64>,
    pub after: Option<Position>,
}

impl RunIndex {
    pub fn new(hub: Hub, observer: Observer) -> Self {
        let view = RunView {
            runs: HashMap::new(),
            order: RunOrder::default(),
            documents: Documents::new(SNAPSHOT_CACHE_BYTES),
            hub,
            observer,
        };
        RunIndex { mirror: Mirror::new(view) }
    }

    pub fn follow(&self, runs: &Kv) -> bus::Result<Watch> {
        runs.watch(self.mirror.observer())
    }

    pub fn wrote(&self, entry: Entry) {
        self.mirror.wrote(entry);
    }

    pub fn is_live(&self) -> bool {
        self.mirror.is_live()
    }

    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.mirror.wait_live(timeout)
    }

    /// A page of at most `limit` runs, newest first, and whether more match behind it.
    pub fn list(&self, filter: &Filter<'_>, limit: usize) -> (Vec<Arc<RunSummary>>, bool) {
        self.mirror.look(|view, _| {
            let mut page = Vec::new();
            for run_id in view.order.newest_first(filter.tenant, filter.after.as_ref()) {
                let Some(run) = view.runs.get(run_id) else { continue };
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
        })
    }

    pub fn summary(&self, run_id: &str) -> Option<Arc<RunSummary>> {
        self.mirror.look(|view, _| view.runs.get(run_id).map(|run| run.summary.clone()))
    }

    /// `None`: ask NATS. The index is stale, has dropped the document, or does not know the run (yet).
    pub fn document(&self, run_id: &str) -> Option<Version> {
        self.mirror.look(|view, contact| {
            contact.live_since()?;
            let run = view.runs.get(run_id)?;
            let document = view.documents.get(run_id, run.revision)?;
            Some(Version::new(run.revision, document))
        })
    }

    pub fn counts(&self) -> Vec<(RunStatus, usize)> {
        let count = |view: &RunView, status| (status, view.order.count(status));
        self.mirror.look(|view, _| RunStatus::ALL.map(|status| count(view, status)).into())
    }

    /// Runs by state that were written last on the present day, in this machine's time zone.
    pub fn counts_today(&self) -> Vec<(RunStatus, usize)> {
        let today = order::today();
        let count = |view: &RunView, status| (status, view.order.count_on(today, status));
        self.mirror.look(|view, _| RunStatus::ALL.map(|status| count(view, status)).into())
    }

    /// A run, and since when the index is live; `None` while it is stale.
    pub fn get(&self, run_id: &str) -> (Option<Indexed>, Option<Instant>) {
        self.mirror.look(|view, contact| (view.runs.get(run_id).cloned(), contact.live_since()))
    }

    /// Runs that have not ended, and since when the index is live; empty while it is stale.
    pub fn unfinished(&self) -> (Vec<Indexed>, Option<Instant>) {
        self.mirror.look(|view, contact| {
            let Some(live_since) = contact.live_since() else { return (Vec::new(), None) };
            let unfinished = view.order.unfinished();
            let runs = unfinished.filter_map(|id| view.runs.get(id).cloned()).collect();
            (runs, Some(live_since))
        })
    }
}

impl From<Entry> for RunChange {
    fn from(entry: Entry) -> Self {
        let read = entry.live_value().map(json::from_wire::<RunSummary>).transpose();
        let summary = read.unwrap_or_else(|e| {
            log::warn!(run_id = entry.key.as_str(), error = e.to_string();
                "a snapshot cannot be read; leaving it out of lists");
            None
        });
        // Whatever the document says: the key is what can be asked for.
        let named = |summary| Arc::new(RunSummary { run_id: entry.key.clone(), ..summary });
        RunChange { summary: summary.map(named), entry }
    }
}

impl Versioned for RunChange {
    fn key(&self) -> &str {
        &self.entry.key
    }

    fn revision(&self) -> u64 {
        self.entry.revision
    }
}

impl View for RunView {
    type Change = RunChange;

    fn take(&mut self, RunChange { summary, entry }: RunChange, is_live: bool) {
        let Entry { key, value, revision, operation, .. } = entry;
        let old = self.runs.remove(&key);
        let last = old.as_ref().map(|old| &*old.summary);
        if let Some(last) = last {
            self.order.remove(last);
        }
        match summary {
            Some(summary) => {
                let document = Arc::new(value);
                self.order.insert(&summary);
                self.documents.insert(&key, revision, document.clone());
                (self.observer)(last, &summary, is_live);
                self.hub.run_changed(&summary, revision, &document);
                self.runs.insert(key, Indexed { summary, revision, seen_at: Instant::now() });
            }
            None => {
                self.documents.remove(&key);
                match (operation, last) {
                    (Operation::Delete, last) => self.hub.run_removed(&key, last),
                    (Operation::Put, Some(last)) => self.hub.run_unreadable(last),
                    (Operation::Put, None) => {}
                }
            }
        }
    }

    fn clear(&mut self) {
        self.runs.clear();
        self.order = RunOrder::default();
        self.documents = Documents::new(SNAPSHOT_CACHE_BYTES);
        self.hub.reset(Side::Runs);
    }

    fn set_live(&mut self, live: bool) {
        self.hub.set_live(Side::Runs, live);
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
            && self.workflow_yaml_sha256.is_none_or(|hash| run.workflow_yaml_sha256.as_deref() == Some(hash))
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
    use crate::bus::WatchEvent;
    use crate::model::run::RunSnapshot;

    fn entry(run_id: &str, updated_at: f64, revision: u64, status: RunStatus) -> Entry {
        let mut snapshot = RunSnapshot::pending(run_id.into(), "main".into(), "default".into(), updated_at);
        snapshot.status = status;
        let value = json::to_wire(&snapshot).unwrap();
        Entry::put(run_id, value, revision)
    }

    fn index() -> RunIndex {
        RunIndex::new(Hub::default(), Box::new(|_, _, _| ()))
    }

    fn tell(index: &RunIndex, entry: Entry) {
        index.mirror.observe(WatchEvent::Entry(entry));
    }

    fn ids(page: &[Arc<RunSummary>]) -> Vec<&str> {
        page.iter().map(|run| run.run_id.as_str()).collect()
    }

    #[test]
    fn lists_are_newest_first_and_the_higher_revision_wins() {
        let index = index();
        index.wrote(entry("a", 1.0, 1, RunStatus::Pending));
        index.wrote(entry("b", 2.0, 2, RunStatus::Pending));
        index.wrote(entry("c", 2.0, 3, RunStatus::Pending));
        index.wrote(entry("a", 3.0, 5, RunStatus::Running));
        // A late, older version changes nothing.
        index.wrote(entry("a", 2.5, 4, RunStatus::Pending));
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
        let index = index();
        index.wrote(entry("a", 1.0, 1, RunStatus::Failed));
        index.wrote(entry("b", 2.0, 2, RunStatus::Pending));
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
        let index = index();
        let put = |run_id: &str, tenant: Option<&str>, updated_at: f64, revision: u64| {
            let mut run = RunSnapshot::pending(run_id.into(), "m".into(), "default".into(), updated_at);
            run.tenant_id = tenant.map(str::to_owned);
            index.wrote(Entry::put(run_id, json::to_wire(&run).unwrap(), revision));
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
        index.wrote(Entry::tombstone("b1", 6));
        assert_eq!(index.list(&of(Some("b")), 9).0.len(), 0);
    }

    #[test]
    fn what_was_deleted_here_does_not_come_back_with_late_news() {
        let index = index();
        index.wrote(Entry::tombstone("a", 2));
        tell(&index, entry("a", 1.0, 1, RunStatus::Pending));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 0);
        tell(&index, entry("a", 3.0, 3, RunStatus::Pending));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 1, "a later submit of that id");
    }

    #[test]
    fn a_write_of_ours_that_the_watch_has_passed_by_brings_nothing_back() {
        let index = index();
        tell(&index, entry("a", 1.0, 1, RunStatus::Running));
        tell(&index, entry("a", 2.0, 2, RunStatus::Cancelling));
        tell(&index, Entry::tombstone("a", 3));
        // The thread that wrote revision 2 gets to say so only now.
        index.wrote(entry("a", 2.0, 2, RunStatus::Cancelling));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 0);
        index.wrote(Entry::tombstone("a", 3));
        index.wrote(entry("a", 4.0, 4, RunStatus::Pending));
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 1);
    }

    #[test]
    fn a_deleted_run_is_gone_and_documents_are_known_only_while_live() {
        let index = index();
        index.wrote(entry("a", 1.0, 1, RunStatus::Pending));
        assert!(index.document("a").is_none());
        index.mirror.observe::<Entry>(WatchEvent::Live);
        assert!(index.document("a").is_some());
        index.wrote(Entry::tombstone("a", 2));
        assert!(index.document("a").is_none());
        assert_eq!(index.list(&Filter::default(), 10).0.len(), 0);
        assert_eq!(index.counts()[0].1, 0);
    }
}
