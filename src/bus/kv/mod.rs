//! A key-value bucket: get, put, compare-and-set, delete, watch.

mod edit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

pub use edit::{Edit, Edited};
use serde_json::json;

use crate::bus::connection::link::Link;
use crate::bus::jetstream::resources::Bucket;
use crate::bus::left;
use crate::bus::watch::{Followed, Told, Watch, WatchEvent};
use crate::bus::{Error, Result, jetstream};
use crate::model::name;

pub(crate) const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const OPERATION: &str = "KV-Operation";
/// No reader shows it: its only message is a tombstone.
const WRITE_TEST_KEY: &str = "pyoco_write_test";
/// Between two tries of a write whose outcome is unknown or that was refused for the moment.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Put,
    /// It was deleted, purged or has expired.
    Delete,
}

impl Operation {
    /// What a message's headers say; an expiry marker of the server is a delete too.
    pub(crate) fn of<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Operation {
        let deleted =
            header("KV-Operation").is_some_and(|op| op != "PUT") || header("Nats-Marker-Reason").is_some();
        if deleted { Operation::Delete } else { Operation::Put }
    }
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    /// Empty after a delete.
    pub value: Vec<u8>,
    /// Its sequence in the bucket's stream: the base of a compare-and-set.
    pub revision: u64,
    pub operation: Operation,
    /// When it was stored, by this process's clock; the clock of who wrote it plays no part. Of what was not
    /// told by a watch: when it was written or read here.
    pub stored: Instant,
}

impl Entry {
    /// What a write that was stored at `revision` has left under `key`.
    pub fn put(key: &str, value: Vec<u8>, revision: u64) -> Entry {
        let (key, stored) = (key.to_owned(), Instant::now());
        Entry { key, value, revision, operation: Operation::Put, stored }
    }

    /// What a delete that was stored at `revision` has left under `key`.
    pub fn tombstone(key: &str, revision: u64) -> Entry {
        Entry { operation: Operation::Delete, ..Entry::put(key, Vec::new(), revision) }
    }

    pub fn live_value(&self) -> Option<&[u8]> {
        (self.operation == Operation::Put).then_some(&*self.value)
    }
}

/// A bucket. Clones share the connection. A missing bucket is created when it is first needed.
#[derive(Clone)]
pub struct Kv {
    link: Link,
    watch_link: Link,
    bucket: Arc<Bucket>,
    timeout: Duration,
    /// Whether the stream answers direct gets: 0 unknown, 1 no, 2 yes.
    direct: Arc<AtomicU8>,
}

impl Kv {
    pub(crate) fn new(link: Link, watch_link: Link, bucket: Bucket, timeout: Duration) -> Self {
        let (bucket, direct) = (Arc::new(bucket), Arc::new(AtomicU8::new(0)));
        Kv { link, watch_link, bucket, timeout, direct }
    }

    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Kv { timeout, ..self.clone() }
    }

    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub fn name(&self) -> &str {
        &self.bucket.name
    }

    pub fn ensure(&self) -> Result<()> {
        jetstream::ensure_stream(&self.link, &self.bucket.stream, self.deadline())
    }

    /// The key's value as the stream's leader has it; the base for compare-and-set.
    pub fn get(&self, key: &str) -> Result<Option<Entry>> {
        Ok(self.newest(key)?.filter(|entry| entry.operation == Operation::Put))
    }

    /// The key's value for showing: any replica may answer, so it may lag behind [`Kv::get`].
    pub fn get_for_show(&self, key: &str) -> Result<Option<Entry>> {
        let deadline = self.deadline();
        let get = || self.with_timeout(left(deadline)).get(key);
        if !self.is_direct(deadline)? {
            return get();
        }
        let subject = self.link.api(&format!("DIRECT.GET.{}.{}", self.stream(), self.subject(key)?));
        let message = match self.link.request(&subject, &[], b"", left(deadline)) {
            Ok(message) => message,
            Err(e) if e.is_missing_stream() => return get(),
            Err(e) => return Err(e),
        };
        if message.status().is_some() {
            // A replica that lags behind does not know the key yet; the leader decides.
            return get();
        }
        let operation = Operation::of(|name| message.header(name));
        let revision = message.header("Nats-Sequence").and_then(|seq| seq.parse().ok());
        match revision {
            _ if operation == Operation::Delete => Ok(None),
            Some(revision) => Ok(Some(Entry { operation, ..Entry::put(key, message.data, revision) })),
            None => Err(Error::BadAnswer("direct get without a sequence".into())),
        }
    }

    /// Stores a value whatever was there. After [`Error::is_outcome_unknown`] it may have been stored.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<u64> {
        let subject = self.subject(key)?;
        let deadline = Instant::now() + self.timeout;
        self.creating(deadline, || self.publish(&subject, &[], value, deadline))
    }

    /// Stores a value under a key that has none; returns its revision.
    pub fn create(&self, key: &str, value: &[u8]) -> Result<u64> {
        let deadline = Instant::now() + self.timeout;
        match self.update(key, value, 0) {
            // A deleted key still has a newest message, and that is what has to be expected.
            Err(Error::Conflict(_)) => match self.with_timeout(left(deadline)).newest(key)? {
                Some(entry) if entry.operation == Operation::Delete => {
                    self.with_timeout(left(deadline)).update(key, value, entry.revision)
                }
                _ => Err(Error::Conflict(key.to_owned())),
            },
            other => other,
        }
    }

    /// Stores a value if the key's newest message is `revision`; returns the new revision. When the outcome
    /// is unknown, the write is repeated until the deadline, and read back when the repeat is refused, so
    /// that only a dead server leaves it unknown to the caller.
    pub fn update(&self, key: &str, value: &[u8], revision: u64) -> Result<u64> {
        self.compare_and_set(key, value, revision, None)
    }

    /// Deletes the key if its newest message is `revision`; returns the tombstone's revision.
    pub fn delete(&self, key: &str, revision: u64) -> Result<u64> {
        self.compare_and_set(key, b"", revision, Some("DEL"))
    }

    /// Finds out whether the bucket takes writes, by storing a tombstone under a key of its own. The bucket
    /// never holds more than one of them.
    pub fn test_write(&self) -> Result<()> {
        let subject = self.subject(WRITE_TEST_KEY)?;
        let deadline = self.deadline();
        self.creating(deadline, || self.publish(&subject, &[(OPERATION, "DEL")], b"", deadline)).map(drop)
    }

    /// Follows every key: `on_event` is called on the watch's own thread, first with the present
    /// value of each key, then [`WatchEvent::Live`], then with each change.
    pub fn watch(&self, mut on_event: impl FnMut(WatchEvent<Entry>) + Send + 'static) -> Result<Watch> {
        let kv = self.clone();
        let followed = Followed {
            name: self.name().to_owned(),
            link: self.watch_link.clone(),
            control: self.link.clone(),
            stream: self.bucket.stream.clone(),
            subjects: format!("$KV.{}.>", self.name()),
            is_whole_stream: true,
        };
        let entry = move |Told { seq, message, stored }: Told| {
            let key = kv.key_of(&message.subject)?.to_owned();
            let operation = Operation::of(|name| message.header(name));
            Some(Entry { key, value: message.data, revision: seq, operation, stored })
        };
        let on_told = move |told: WatchEvent<_>| {
            told.read(&entry).into_iter().for_each(&mut on_event);
        };
        Watch::start(followed, self.timeout, Box::new(on_told))
    }

    fn stream(&self) -> String {
        format!("KV_{}", self.bucket.name)
    }

    fn key_of<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix("$KV.")?.strip_prefix(&*self.bucket.name)?.strip_prefix('.')
    }

    fn subject(&self, key: &str) -> Result<String> {
        if !name::is_key(key) {
            return Err(Error::BadName(key.to_owned()));
        }
        Ok(format!("$KV.{}.{key}", self.bucket.name))
    }

    /// The key's newest message from the leader; a tombstone tells a deleted key from one that never was.
    pub fn newest(&self, key: &str) -> Result<Option<Entry>> {
        let which = json!({"last_by_subj": self.subject(key)?});
        let deadline = self.deadline();
        let found = jetstream::get_message(&self.link, &self.stream(), &which, self.timeout);
        let stored = match found {
            Err(Error::Api { code: 404, .. }) => {
                // The bucket is missing: then so is the key.
                self.with_timeout(left(deadline)).ensure()?;
                None
            }
            other => other?,
        };
        Ok(stored.map(|stored| {
            let lines = || stored.headers.lines().filter_map(|line| line.split_once(':'));
            let header = |name: &str| lines().find(|(n, _)| *n == name).map(|(_, v)| v.trim());
            let operation = Operation::of(header);
            Entry { operation, ..Entry::put(key, stored.data, stored.seq) }
        }))
    }

    fn compare_and_set(
        &self,
        key: &str,
        value: &[u8],
        revision: u64,
        operation: Option<&str>,
    ) -> Result<u64> {
        let subject = self.subject(key)?;
        let expected = revision.to_string();
        let mut headers = vec![(EXPECTED_SEQUENCE, expected.as_str())];
        headers.extend(operation.map(|op| (OPERATION, op)));
        let deadline = Instant::now() + self.timeout;
        let mut in_doubt = false;
        loop {
            let publish = || {
                let patience = Instant::now() + jetstream::try_timeout(value.len());
                self.publish(&subject, &headers, value, deadline.min(patience))
            };
            let error = match self.creating(deadline, publish) {
                Ok(revision) => return Ok(revision),
                // A try whose outcome is not known may be what the sequence is wrong by.
                Err(e) if e.is_wrong_sequence() && in_doubt => {
                    let newest = self.with_timeout(left(deadline)).newest(key)?;
                    match newest {
                        Some(entry) if is_ours(&entry, value, operation) => return Ok(entry.revision),
                        Some(entry) if entry.revision != revision => {
                            return Err(Error::Conflict(key.to_owned()));
                        }
                        // The leader has that try in hand, and does not get it stored.
                        _ => Error::Timeout { subject: subject.clone(), after: self.timeout },
                    }
                }
                Err(e) if e.is_wrong_sequence() => return Err(Error::Conflict(key.to_owned())),
                Err(e) => e,
            };
            in_doubt |= error.is_outcome_unknown();
            if !error.may_pass() || left(deadline) <= RETRY_PAUSE {
                return Err(error);
            }
            // Wakes early when the connection is back; there is nothing to lose by trying.
            if !self.link.wait_up(left(deadline)) {
                return Err(error);
            }
            std::thread::sleep(RETRY_PAUSE);
            // A try that is repeated has the same condition; if this one was stored, that one is refused.
        }
    }

    fn publish(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        value: &[u8],
        deadline: Instant,
    ) -> Result<u64> {
        Ok(jetstream::publish(&self.link, &self.link.kv_write(subject), headers, value, left(deadline))?.seq)
    }

    fn creating<T>(&self, deadline: Instant, request: impl Fn() -> Result<T>) -> Result<T> {
        jetstream::creating(&self.link, &self.bucket.stream, deadline, request)
    }

    fn is_direct(&self, deadline: Instant) -> Result<bool> {
        match self.direct.load(Ordering::Relaxed) {
            0 => {
                let look = || jetstream::stream_info(&self.link, &self.stream(), left(deadline));
                let info = self.creating(deadline, look)?;
                self.direct.store(1 + u8::from(info.allow_direct), Ordering::Relaxed);
                Ok(info.allow_direct)
            }
            known => Ok(known == 2),
        }
    }
}

fn is_ours(entry: &Entry, value: &[u8], operation: Option<&str>) -> bool {
    entry.value == value && operation.is_some() == (entry.operation == Operation::Delete)
}
