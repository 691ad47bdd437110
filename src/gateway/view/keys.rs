//! All key records in memory: what is not in here opens nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bus::{self, Contact, Entry, Kv, Mirror, View, Watch};
use crate::gateway::view::hub::Hub;
use crate::model::key::{self, KeyRecord};
use crate::model::{clock, json};

/// How long the records of keys are believed after the last word of NATS.
const KEYS_TRUSTED_FOR: Duration = Duration::from_secs(60);
/// How coarse the last use of a key is: one write per key and step.
const LAST_USED_STEP: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub struct KeyMirror {
    mirror: Mirror<KeyView>,
    /// Keys whose use is to be noted; written by handlers, read by a chore.
    used: Arc<Mutex<BTreeSet<String>>>,
}

struct KeyView {
    records: HashMap<String, KnownKey>,
    /// Versions that were given out; none is given out twice, whatever bucket it is for.
    versions: u64,
    /// Streams of keys that open nothing any more are ended there.
    hub: Hub,
}

#[derive(Clone)]
pub struct KnownKey {
    pub record: Arc<KeyRecord>,
    /// Changes with the record, but not with the note of its use: a verdict holds for this version alone.
    pub version: u64,
}

impl KeyMirror {
    pub fn new(hub: Hub) -> KeyMirror {
        let view = KeyView { records: HashMap::new(), versions: 0, hub };
        KeyMirror { mirror: Mirror::new(view), used: Arc::default() }
    }

    pub fn follow(&self, keys: &Kv) -> bus::Result<Watch> {
        keys.watch(self.mirror.observer())
    }

    /// The record of a key; the outer `None` when the mirror is too old to be believed.
    pub fn get(&self, key_id: &str) -> Option<Option<KnownKey>> {
        self.mirror.look(|view, contact| {
            is_trusted(contact, Instant::now()).then(|| view.records.get(key_id).cloned())
        })
    }

    pub fn is_live(&self) -> bool {
        self.mirror.is_live()
    }

    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.mirror.wait_live(timeout)
    }

    pub fn wrote(&self, entry: Entry) {
        self.mirror.wrote(entry);
    }

    pub fn used(&self, record: &KeyRecord) {
        if is_use_stale(record, clock::now()) {
            self.used.lock().insert(record.key_id.clone());
        }
    }

    pub fn next_used(&self) -> Option<String> {
        self.used.lock().pop_first()
    }

    /// Ends the streams of keys that have expired since then.
    pub fn end_expired(&self, since: f64, now: f64) {
        let has_ended =
            |known: &&KnownKey| known.record.expires_at.is_some_and(|end| since <= end && end < now);
        self.mirror.look(|view, _| {
            let ended = view.records.values().filter(has_ended);
            ended.for_each(|known| view.hub.close_streams_of(&known.record.key_id));
        });
    }
}

impl View for KeyView {
    type Change = Entry;

    fn take(&mut self, entry: Entry, _: bool) {
        let Some(key_id) = key::key_id_of(&entry.key) else { return };
        let read = entry.live_value().map(json::from_wire::<KeyRecord>).transpose();
        let record = read.unwrap_or_else(|_| {
            log::warn!(key_id = key_id;
                "the record of an API key cannot be read; the key is refused");
            None
        });
        let known = self.records.remove(key_id);
        let Some(record) = record else { return self.hub.close_streams_of(key_id) };
        // Whatever the record says: the key is what was asked for.
        let record = Arc::new(KeyRecord { key_id: key_id.to_owned(), ..record });
        let same = known.as_ref().filter(|known| known.record.is_same_credential(&record));
        let version = same.map_or(self.versions + 1, |known| known.version);
        self.versions = self.versions.max(version);
        if known.is_some_and(|known| known.version != version) {
            self.hub.close_streams_of(key_id);
        }
        self.records.insert(key_id.to_owned(), KnownKey { record, version });
    }

    fn clear(&mut self) {
        for (key_id, _) in self.records.drain() {
            self.hub.close_streams_of(&key_id);
        }
    }
}

/// One note per step is enough over all gateways: each sees those of the others.
pub fn is_use_stale(record: &KeyRecord, now: f64) -> bool {
    record.last_used_at.is_none_or(|at| now - at >= LAST_USED_STEP.as_secs_f64())
}

fn is_trusted(contact: Contact, now: Instant) -> bool {
    match contact {
        Contact::Never => false,
        Contact::Live(_) => true,
        Contact::Lost(since) => now.saturating_duration_since(since) < trusted_for(),
    }
}

/// [`KEYS_TRUSTED_FOR`] counts from the last word of NATS, and silence is noticed later than that.
fn trusted_for() -> Duration {
    KEYS_TRUSTED_FOR.saturating_sub(bus::WATCH_SILENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::WatchEvent;

    fn document(more: &str) -> Vec<u8> {
        format!(r#"{{"key_id":"0123456789","tenant_id":"t","kdf":"argon2id"{more}}}"#).into_bytes()
    }

    fn put(mirror: &KeyMirror, revision: u64, more: &str) {
        mirror.wrote(Entry::put("api_keys.0123456789", document(more), revision));
    }

    fn live() -> KeyMirror {
        let mirror = KeyMirror::new(Hub::default());
        mirror.mirror.observe::<Entry>(WatchEvent::Live);
        mirror
    }

    #[test]
    fn without_contact_for_a_minute_nothing_is_believed() {
        let now = Instant::now();
        assert!(!is_trusted(Contact::Never, now));
        assert!(is_trusted(Contact::Live(now), now + Duration::from_secs(9_999)));
        let until = trusted_for();
        let lost = Contact::Lost(now);
        assert!(is_trusted(lost, now + until - Duration::from_millis(1)));
        assert!(!is_trusted(lost, now + until));
        assert_eq!(until + bus::WATCH_SILENCE, Duration::from_secs(60));
        let mirror = KeyMirror::new(Hub::default());
        put(&mirror, 1, "");
        assert!(mirror.get("0123456789").is_none(), "never live");
    }

    #[test]
    fn use_keeps_the_version_and_any_other_change_does_not() {
        let mirror = live();
        let seen = || {
            let known = mirror.get("0123456789").unwrap();
            known.map(|known| (known.version, known.record.last_used_at))
        };
        assert_eq!(seen(), None);
        put(&mirror, 3, "");
        put(&mirror, 4, r#","last_used_at":5.0"#);
        assert_eq!(seen(), Some((1, Some(5.0))));
        put(&mirror, 3, r#","role":"admin""#);
        assert_eq!(seen(), Some((1, Some(5.0))), "an older one");
        put(&mirror, 5, r#","role":"viewer","last_used_at":5.0"#);
        assert_eq!(seen(), Some((2, Some(5.0))));
        put(&mirror, 6, r#","revoked_at":1.0"#);
        assert_eq!(seen(), Some((3, None)));
        mirror.wrote(Entry::put("api_keys.0123456789", b"{".to_vec(), 7));
        assert_eq!(seen(), None, "what cannot be read opens nothing");
        mirror.mirror.observe::<Entry>(WatchEvent::Reset);
        mirror.mirror.observe::<Entry>(WatchEvent::Live);
        put(&mirror, 3, "");
        assert_eq!(seen(), Some((4, None)), "never the version of another bucket");
    }
}
