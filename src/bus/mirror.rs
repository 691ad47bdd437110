//! A view of one bucket, kept in memory by its watch, and whether it is current.
//!
//! What a process writes goes in at once, so that it reads its own writes. The watch tells of the same write
//! later, perhaps after older ones of the key, and a thread may report a write that the watch has long
//! passed. One rule serves both: a key never goes back to an older revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::bus::{Entry, ObjectMeta, WatchEvent};

/// What an owner makes of the newest messages of a bucket. All methods are called under the lock of
/// the mirror, so what they publish is in the order of the revisions of each key.
pub trait View {
    type Change: Versioned;

    /// `is_live`: it is a change that happens now, not one of those that were there before.
    fn take(&mut self, change: Self::Change, is_live: bool);

    /// The bucket is another one: nothing that was known holds.
    fn clear(&mut self);

    /// The view is current from now on, or is not any more.
    fn set_live(&mut self, _live: bool) {}
}

pub trait Versioned {
    fn key(&self) -> &str;
    fn revision(&self) -> u64;
}

impl Versioned for Entry {
    fn key(&self) -> &str {
        &self.key
    }

    fn revision(&self) -> u64 {
        self.revision
    }
}

impl Versioned for ObjectMeta {
    fn key(&self) -> &str {
        &self.name
    }

    fn revision(&self) -> u64 {
        self.revision
    }
}

#[derive(Debug, Default)]
pub struct ObjectView(BTreeMap<String, ObjectMeta>);

impl ObjectView {
    pub fn objects(&self) -> impl Iterator<Item = &ObjectMeta> {
        self.0.values()
    }
}

impl View for ObjectView {
    type Change = ObjectMeta;

    fn take(&mut self, meta: ObjectMeta, _: bool) {
        match meta.deleted {
            true => drop(self.0.remove(&meta.name)),
            false => drop(self.0.insert(meta.name.clone(), meta)),
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    Never,
    /// Since then.
    Live(Instant),
    /// It was until then.
    Lost(Instant),
}

impl Contact {
    pub fn live_since(self) -> Option<Instant> {
        match self {
            Contact::Live(since) => Some(since),
            Contact::Never | Contact::Lost(_) => None,
        }
    }
}

/// A [`View`] that a watch keeps current. Clones share it.
pub struct Mirror<V> {
    inner: Arc<MirrorInner<V>>,
}

struct MirrorInner<V> {
    state: RwLock<MirrorState<V>>,
    /// Woken when the view becomes current, or is not any more.
    liveness: (Mutex<()>, Condvar),
}

struct MirrorState<V> {
    view: V,
    contact: Contact,
    order: RevisionOrder,
}

/// Keeps each key from going back to an older revision. The watch tells in the order of revisions.
#[derive(Debug, Default)]
struct RevisionOrder {
    /// Revision up to which the watch has told everything.
    told: u64,
    /// Revisions of writes of our own that the watch has not told yet, by key.
    ahead: HashMap<String, u64>,
}

impl RevisionOrder {
    fn is_news(&mut self, key: &str, revision: u64) -> bool {
        self.told = self.told.max(revision);
        match self.ahead.get(key) {
            None => true,
            Some(ahead) if *ahead > revision => false,
            Some(ahead) => {
                let is_news = *ahead < revision;
                self.ahead.remove(key);
                is_news
            }
        }
    }

    /// What the watch has passed by must not bring back what another writer has deleted since.
    fn is_new_write(&mut self, key: &str, revision: u64) -> bool {
        let is_late = revision <= self.told;
        if is_late || self.ahead.get(key).is_some_and(|ahead| *ahead >= revision) {
            return false;
        }
        self.ahead.insert(key.to_owned(), revision);
        true
    }
}

impl<V> Clone for Mirror<V> {
    fn clone(&self) -> Self {
        Mirror { inner: Arc::clone(&self.inner) }
    }
}

impl<V: Default> Default for Mirror<V> {
    fn default() -> Self {
        Mirror::new(V::default())
    }
}

impl<V> Mirror<V> {
    pub fn new(view: V) -> Self {
        let state = MirrorState { view, contact: Contact::Never, order: RevisionOrder::default() };
        let liveness = (Mutex::new(()), Condvar::new());
        Mirror { inner: Arc::new(MirrorInner { state: RwLock::new(state), liveness }) }
    }

    pub fn look<R>(&self, look: impl FnOnce(&V, Contact) -> R) -> R {
        let state = self.inner.state.read();
        look(&state.view, state.contact)
    }

    pub fn change<R>(&self, change: impl FnOnce(&mut V) -> R) -> R {
        change(&mut self.inner.state.write().view)
    }

    pub fn is_live(&self) -> bool {
        self.look(|_, contact| contact.live_since().is_some())
    }

    /// Waits until the view is current; `false` when that takes longer than `timeout`.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let (lock, changed) = &self.inner.liveness;
        let mut guard = lock.lock();
        changed.wait_while_until(&mut guard, |()| !self.is_live(), deadline);
        self.is_live()
    }
}

impl<V: View> Mirror<V> {
    pub fn observer<E>(&self) -> impl FnMut(WatchEvent<E>) + Send + 'static
    where
        E: Into<V::Change>,
        V: Send + Sync + 'static,
    {
        let mirror = self.clone();
        move |event| mirror.observe(event)
    }

    pub fn observe<E: Into<V::Change>>(&self, event: WatchEvent<E>) {
        match event {
            WatchEvent::Reset => {
                let mut state = self.inner.state.write();
                state.view.clear();
                (state.contact, state.order) = (Contact::Never, RevisionOrder::default());
            }
            WatchEvent::Entry(entry) => self.take(entry.into(), RevisionOrder::is_news),
            WatchEvent::Live => self.set_live(true),
            WatchEvent::Stale(_) => self.set_live(false),
        }
    }

    /// Takes in what this process has written or deleted itself.
    pub fn wrote(&self, entry: impl Into<V::Change>) {
        self.take(entry.into(), RevisionOrder::is_new_write);
    }

    fn take(&self, change: V::Change, is_news: impl FnOnce(&mut RevisionOrder, &str, u64) -> bool) {
        let mut state = self.inner.state.write();
        if is_news(&mut state.order, change.key(), change.revision()) {
            let is_live = state.contact.live_since().is_some();
            state.view.take(change, is_live);
        }
    }

    fn set_live(&self, live: bool) {
        let mut state = self.inner.state.write();
        let now = Instant::now();
        state.contact = match state.contact {
            _ if live => Contact::Live(now),
            // Each try to come back that fails says so again; the first one counts.
            Contact::Live(_) => Contact::Lost(now),
            other => other,
        };
        if live {
            // Nothing older follows; a message that was purged before it was told leaves no trace.
            let told = state.order.told;
            state.order.ahead.retain(|_, revision| *revision > told);
        }
        state.view.set_live(live);
        drop(state);
        let (lock, changed) = &self.inner.liveness;
        drop(lock.lock());
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Operation;

    #[derive(Default)]
    struct Values(BTreeMap<String, u64>);

    impl View for Values {
        type Change = Entry;

        fn take(&mut self, entry: Entry, _: bool) {
            match entry.operation {
                Operation::Put => drop(self.0.insert(entry.key, entry.revision)),
                Operation::Delete => drop(self.0.remove(&entry.key)),
            }
        }

        fn clear(&mut self) {
            self.0.clear();
        }
    }

    fn put(revision: u64) -> Entry {
        Entry::put("a", Vec::new(), revision)
    }

    fn delete(revision: u64) -> Entry {
        Entry::tombstone("a", revision)
    }

    fn told(mirror: &Mirror<Values>, entry: Entry) {
        mirror.observe(WatchEvent::Entry(entry));
    }

    fn known(mirror: &Mirror<Values>) -> Option<u64> {
        mirror.look(|values, _| values.0.get("a").copied())
    }

    fn ahead(mirror: &Mirror<Values>) -> usize {
        mirror.inner.state.read().order.ahead.len()
    }

    #[test]
    fn a_write_of_ours_counts_at_once_and_older_news_do_not_undo_it() {
        let mirror = Mirror::<Values>::default();
        mirror.wrote(put(5));
        mirror.wrote(put(4));
        told(&mirror, put(3));
        assert_eq!((known(&mirror), ahead(&mirror)), (Some(5), 1));
        told(&mirror, put(5));
        assert_eq!((known(&mirror), ahead(&mirror)), (Some(5), 0), "told, and not ahead any more");
        told(&mirror, put(6));
        assert_eq!(known(&mirror), Some(6));
    }

    #[test]
    fn what_was_deleted_here_does_not_come_back_with_late_news() {
        let mirror = Mirror::<Values>::default();
        mirror.wrote(delete(2));
        told(&mirror, put(1));
        assert_eq!(known(&mirror), None);
        told(&mirror, put(3));
        assert_eq!((known(&mirror), ahead(&mirror)), (Some(3), 0), "a later value of that key");
    }

    #[test]
    fn a_write_of_ours_that_the_watch_has_passed_by_brings_nothing_back() {
        let mirror = Mirror::<Values>::default();
        told(&mirror, put(1));
        told(&mirror, put(2));
        told(&mirror, delete(3));
        // The thread that wrote revision 2 gets to say so only now.
        mirror.wrote(put(2));
        assert_eq!(known(&mirror), None);
        mirror.wrote(delete(3));
        assert_eq!(ahead(&mirror), 0, "nothing would remove it");
        mirror.wrote(put(4));
        assert_eq!(known(&mirror), Some(4));
    }

    #[test]
    fn a_mirror_says_since_when_it_is_current_and_until_when_it_was() {
        let mirror = Mirror::<Values>::default();
        let contact = || mirror.look(|_, contact| contact);
        let stale = || mirror.observe::<Entry>(WatchEvent::Stale("x".into()));
        stale();
        assert_eq!(contact(), Contact::Never);
        assert!(!mirror.wait_live(Duration::from_millis(5)));
        mirror.wrote(put(2));
        told(&mirror, Entry { key: "b".into(), ..put(3) });
        mirror.observe::<Entry>(WatchEvent::Live);
        assert_eq!(ahead(&mirror), 0, "revision 2 was purged before it was told");
        assert!(mirror.wait_live(Duration::ZERO) && contact().live_since().is_some());
        stale();
        let lost = contact();
        stale();
        assert!(matches!(lost, Contact::Lost(_)));
        assert_eq!(contact(), lost, "the first loss counts");
        mirror.observe::<Entry>(WatchEvent::Reset);
        assert_eq!((contact(), known(&mirror)), (Contact::Never, None));
        mirror.wrote(put(1));
        assert_eq!(known(&mirror), Some(1), "revisions begin anew");
    }
}
