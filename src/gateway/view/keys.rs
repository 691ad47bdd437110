//! All key records in memory: what is not in here opens nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::bus::{self, Entry, Kv, Operation, Watch, WatchEvent};
use crate::gateway::view::hub::Hub;
use crate::model::json;
use crate::model::key::{self, KeyRecord};
use crate::model::limits::KEYS_TRUSTED_FOR;

/// All key records of one bucket. Clones share it.
#[derive(Clone)]
pub struct KeyMirror {
    state: Arc<Mutex<State>>,
    /// Streams of keys that open nothing any more are ended there.
    hub: Hub,
}

struct State {
    records: HashMap<String, Known>,
    contact: Contact,
    /// Versions that were given out; none is given out twice, whatever bucket it is for.
    versions: u64,
}

/// Whether the watch tells everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    Never,
    Live,
    /// It did until then.
    Lost(Instant),
}

/// A record as the mirror has it.
#[derive(Clone)]
pub struct Known {
    pub record: Arc<KeyRecord>,
    /// Another one after each change of it but that of its use: what has been found out of a key
    /// holds for this version alone.
    pub version: u64,
    /// Its present KV revision.
    pub revision: u64,
}

impl KeyMirror {
    /// An empty mirror, which knows nothing.
    pub fn new(hub: Hub) -> KeyMirror {
        let state = State { records: HashMap::new(), contact: Contact::Never, versions: 0 };
        KeyMirror { state: Arc::new(Mutex::new(state)), hub }
    }

    /// Starts to follow `keys`; the mirror lives as long as the returned watch.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(&self, keys: &Kv) -> bus::Result<Watch> {
        let mirror = self.clone();
        keys.watch(move |event| match event {
            WatchEvent::Reset => mirror.clear(),
            WatchEvent::Entry(entry) => mirror.apply(entry),
            WatchEvent::Live => mirror.lock().contact = Contact::Live,
            WatchEvent::Stale(_) => mirror.lock().lose(Instant::now()),
        })
    }

    /// The record of a key; the outer `None` when the mirror is too old to be believed.
    pub fn get(&self, key_id: &str) -> Option<Option<Known>> {
        let state = self.lock();
        state.contact.is_trusted(Instant::now()).then(|| state.records.get(key_id).cloned())
    }

    /// Whether the watch tells everything.
    pub fn is_live(&self) -> bool {
        self.lock().contact == Contact::Live
    }

    /// Takes in what was written by this gateway itself.
    pub fn wrote(&self, record_key: String, document: Vec<u8>, revision: u64) {
        let operation = Operation::Put;
        self.apply(Entry { key: record_key, value: document, revision, operation });
    }

    fn apply(&self, entry: Entry) {
        let Entry { key: record_key, value, revision, operation } = entry;
        let Some(key_id) = key::key_id_of(&record_key) else { return };
        let record = match operation {
            Operation::Delete => None,
            Operation::Put => json::from_wire::<KeyRecord>(&value).ok().or_else(|| {
                log::warn!(key_id = key_id; "the record of an API key cannot be read; the key is refused");
                None
            }),
        };
        let mut state = self.lock();
        let known = state.records.get(key_id).cloned();
        if known.as_ref().is_some_and(|known| known.revision >= revision) {
            return;
        }
        let Some(record) = record else {
            state.records.remove(key_id);
            drop(state);
            return self.hub.close_streams_of(key_id);
        };
        // Whatever the record says: the key is what was asked for.
        let record = Arc::new(KeyRecord { key_id: key_id.to_owned(), ..record });
        let same = known.as_ref().filter(|known| known.record.is_same_credential(&record));
        let same = same.map(|known| known.version);
        let has_changed = known.is_some() && same.is_none();
        let version = same.unwrap_or_else(|| {
            state.versions += 1;
            state.versions
        });
        state.records.insert(key_id.to_owned(), Known { record, version, revision });
        drop(state);
        if has_changed {
            self.hub.close_streams_of(key_id);
        }
    }

    /// Ends the streams of keys that have expired since then.
    pub fn end_expired(&self, since: f64, now: f64) {
        let has_ended =
            |known: &&Known| known.record.expires_at.is_some_and(|end| since <= end && end < now);
        let ended: Vec<String> = {
            let state = self.lock();
            state.records.values().filter(has_ended).map(|k| k.record.key_id.clone()).collect()
        };
        ended.iter().for_each(|key_id| self.hub.close_streams_of(key_id));
    }

    /// The bucket is another one: nothing that was known holds.
    fn clear(&self) {
        let gone: Vec<String> = {
            let mut state = self.lock();
            state.contact = Contact::Never;
            state.records.drain().map(|(key_id, _)| key_id).collect()
        };
        gone.iter().for_each(|key_id| self.hub.close_streams_of(key_id));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn lose(&mut self, now: Instant) {
        // Each try to come back that fails says so again; the first one counts.
        if self.contact == Contact::Live {
            self.contact = Contact::Lost(now);
        }
    }
}

impl Contact {
    fn is_trusted(self, now: Instant) -> bool {
        match self {
            Contact::Never => false,
            Contact::Live => true,
            Contact::Lost(since) => now.saturating_duration_since(since) < trusted_for(),
        }
    }
}

/// [`KEYS_TRUSTED_FOR`] counts from the last word of NATS, and silence is noticed later than that.
fn trusted_for() -> Duration {
    KEYS_TRUSTED_FOR.saturating_sub(bus::WATCH_SILENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(mirror: &KeyMirror, revision: u64, more: &str) {
        let text = format!(r#"{{"key_id":"0123456789","tenant_id":"t","kdf":"argon2id"{more}}}"#);
        mirror.wrote("api_keys.0123456789".into(), text.into_bytes(), revision);
    }

    fn live() -> KeyMirror {
        let mirror = KeyMirror::new(Hub::default());
        mirror.lock().contact = Contact::Live;
        mirror
    }

    #[test]
    fn without_contact_for_a_minute_nothing_is_believed() {
        let now = Instant::now();
        assert!(!Contact::Never.is_trusted(now));
        assert!(Contact::Live.is_trusted(now + Duration::from_secs(9_999)));
        let mut state = State { records: HashMap::new(), contact: Contact::Live, versions: 0 };
        state.lose(now);
        state.lose(now + Duration::from_secs(30));
        let until = trusted_for();
        assert!(state.contact.is_trusted(now + until - Duration::from_millis(1)));
        assert!(!state.contact.is_trusted(now + until), "the first loss counts");
        assert_eq!(until + bus::WATCH_SILENCE, Duration::from_secs(60));
        let mirror = KeyMirror::new(Hub::default());
        put(&mirror, 1, "");
        assert!(mirror.get("0123456789").is_none(), "never live");
    }

    #[test]
    fn use_keeps_the_version_and_any_other_change_does_not() {
        let mirror = live();
        let seen = || mirror.get("0123456789").unwrap().map(|k| (k.version, k.revision));
        assert_eq!(seen(), None);
        put(&mirror, 3, "");
        put(&mirror, 4, r#","last_used_at":5.0"#);
        assert_eq!(seen(), Some((1, 4)));
        put(&mirror, 3, r#","role":"admin""#);
        assert_eq!(seen(), Some((1, 4)), "an older one");
        put(&mirror, 5, r#","role":"viewer","last_used_at":5.0"#);
        assert_eq!(seen(), Some((2, 5)));
        put(&mirror, 6, r#","revoked_at":1.0"#);
        assert_eq!(seen(), Some((3, 6)));
        mirror.wrote("api_keys.0123456789".into(), b"{".to_vec(), 7);
        assert_eq!(seen(), None, "what cannot be read opens nothing");
        mirror.clear();
        mirror.lock().contact = Contact::Live;
        put(&mirror, 3, "");
        assert_eq!(seen(), Some((4, 3)), "never the version of another bucket");
    }
}
