//! An object store: large values in chunks, each with a small message that says what it is.
//!
//! Chunks lie under a subject that nobody knows before the meta names it, so an object is there as a whole or
//! not at all. Metas are stored by compare-and-set. [`ObjectStore::purge_orphans`] finds what a crash leaves.

mod meta;
mod orphans;
mod read;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use meta::ObjectMeta;
pub use upload::{Sealed, Upload};

use crate::bus::connection::large_payload::LargePayloadLink;
use crate::bus::connection::link::Link;
use crate::bus::jetstream::resources::{self, Bucket};
use crate::bus::left;
use crate::bus::watch::{Followed, Told, Watch, WatchEvent};
use crate::bus::{Error, Operation, Result, jetstream, kv};
use crate::model::name;

/// Metas of a store that are asked for at once.
const OBJECT_LIST_WINDOW: usize = 64;
/// Longest name of an object; in base64 it is part of a subject, of which the server takes 4096 bytes.
const MAX_OBJECT_NAME_BYTES: usize = 1024;

/// The meta of an object whose message is gone.
const PURGED: &[u8] = br#"{"deleted":true}"#;

const ROLLUP: (&str, &str) = ("Nats-Rollup", "sub");

/// Clones share the connections. A missing store is created by a write or a watch; to read it is empty.
#[derive(Clone)]
pub struct ObjectStore {
    control: Link,
    watch_link: Link,
    large_payloads: Arc<LargePayloadLink>,
    bucket: Arc<Bucket>,
    timeout: Duration,
}

#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Those that are not deleted, by name.
    pub objects: Vec<ObjectMeta>,
    /// Sequence of the newest meta of all when the look began, 0 when there was none: a
    /// [`Sealed::publish`] that expects it succeeds only if nothing has changed since.
    pub revision: u64,
}

impl ObjectStore {
    pub(crate) fn new(
        control: Link,
        watch_link: Link,
        large_payloads: Arc<LargePayloadLink>,
        bucket: Bucket,
        timeout: Duration,
    ) -> Self {
        ObjectStore { control, watch_link, large_payloads, bucket: Arc::new(bucket), timeout }
    }

    pub fn with_timeout(&self, timeout: Duration) -> Self {
        ObjectStore { timeout, ..self.clone() }
    }

    pub fn name(&self) -> &str {
        &self.bucket.name
    }

    pub fn ensure(&self) -> Result<()> {
        jetstream::ensure_stream(&self.control, &self.bucket.stream, Instant::now() + self.timeout)
    }

    /// The object's meta as the stream's leader has it; `None` when it is missing or deleted.
    pub fn find(&self, name: &str) -> Result<Option<ObjectMeta>> {
        Ok(self.newest(name)?.filter(|meta| !meta.deleted))
    }

    /// From the stream's leader, within the store's deadline. A meta that cannot be read is only logged.
    pub fn list(&self) -> Result<Listing> {
        let (metas, revision) = self.metas()?;
        let mut objects: Vec<ObjectMeta> = Vec::new();
        for meta in metas {
            match meta {
                Ok(meta) if meta.deleted => {}
                Ok(meta) => objects.push(meta),
                Err(e) => self.complain(&e),
            }
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { objects, revision })
    }

    /// Deletes an object if its newest meta is still `meta`, then its bytes. Returns the new meta; `None`
    /// when it is deleted already. [`ObjectStore::purge_orphans`] finds bytes that cannot be removed now.
    /// After [`Error::is_outcome_unknown`] it may have been deleted.
    pub fn delete(&self, meta: &ObjectMeta) -> Result<Option<ObjectMeta>> {
        if meta.deleted {
            return Ok(None);
        }
        let expected = meta.revision.to_string();
        let headers = [ROLLUP, (kv::EXPECTED_SEQUENCE, expected.as_str())];
        let deleted = meta.clone().into_deleted();
        let revision = match self.commit(&deleted, &headers) {
            // The mark needs room, too, and the bytes are all there is to give.
            Err(e) if e.is_store_full() => {
                self.purge(&meta.nuid)?;
                self.commit(&deleted, &headers)?
            }
            other => {
                let revision = other?;
                self.purge_replaced(meta);
                revision
            }
        };
        Ok(Some(ObjectMeta { revision, ..deleted }))
    }

    /// Follows all metas: `on_event` is called on the watch's own thread, first with the present
    /// meta of each object, deleted ones too, then [`WatchEvent::Live`], then with each change.
    pub fn watch(&self, mut on_event: impl FnMut(WatchEvent<ObjectMeta>) + Send + 'static) -> Result<Watch> {
        let store = self.clone();
        let followed = Followed {
            name: self.name().to_owned(),
            link: self.watch_link.clone(),
            control: self.control.clone(),
            stream: self.bucket.stream.clone(),
            subjects: self.metas_subject(),
            // Chunks count too there.
            is_whole_stream: false,
        };
        let meta = move |Told { seq, message, .. }: Told| {
            let is_purged = Operation::of(|name| message.header(name)) == Operation::Delete;
            let data = if is_purged { PURGED } else { &*message.data };
            let read = store.read_meta(&message.subject, seq, data);
            read.inspect_err(|e| store.complain(e)).ok()
        };
        let on_told = move |told: WatchEvent<_>| {
            told.read(&meta).into_iter().for_each(&mut on_event);
        };
        Watch::start(followed, self.timeout, Box::new(on_told))
    }

    fn newest(&self, name: &str) -> Result<Option<ObjectMeta>> {
        let which = json!({"last_by_subj": self.meta_subject(name)?});
        let found = jetstream::get_message(&self.control, &self.stream(), &which, self.timeout);
        let stored = unless_missing(found)?.flatten();
        stored.map(|stored| ObjectMeta::read(name, stored.seq, &stored.data)).transpose()
    }

    /// Stores a meta by compare-and-set. A try whose outcome is unknown is repeated until the deadline: only
    /// one can succeed. The meta may be stored if, and only if, the error is [`Error::is_outcome_unknown`].
    fn commit(&self, meta: &ObjectMeta, headers: &[(&str, &str)]) -> Result<u64> {
        let subject = self.meta_subject(&meta.name)?;
        let json = meta.to_json();
        let deadline = Instant::now() + self.timeout;
        let conflict = || Err(Error::Conflict(meta.name.clone()));
        let mut doubt: Option<Error> = None;
        loop {
            let stored = jetstream::publish(&self.control, &subject, headers, &json, left(deadline));
            let error = match (stored, doubt.take()) {
                (Ok(ack), _) => return Ok(ack.seq),
                (Err(e), None) if e.is_wrong_sequence() => return conflict(),
                // An earlier try may be what the sequence is wrong by.
                (Err(e), Some(unknown)) if e.is_wrong_sequence() => {
                    return match self.with_timeout(left(deadline)).newest(&meta.name) {
                        Ok(Some(newest)) if is_same(&newest, meta) => Ok(newest.revision),
                        Ok(_) => conflict(),
                        Err(_) => Err(unknown),
                    };
                }
                (Err(e), earlier) => {
                    doubt = if e.is_outcome_unknown() { Some(e.clone()) } else { earlier };
                    e
                }
            };
            let again = error.may_pass();
            let is_late = || left(deadline) <= kv::RETRY_PAUSE;
            if !again || is_late() || !self.control.wait_up(left(deadline)) {
                return Err(doubt.unwrap_or(error));
            }
            std::thread::sleep(kv::RETRY_PAUSE);
        }
    }

    fn purge_replaced(&self, old: &ObjectMeta) {
        if let Err(e) = self.purge(&old.nuid) {
            log::warn!(bucket = self.name(), object = old.name.as_str(), error = e.to_string();
                "the bytes of a deleted object remain for now");
        }
    }

    fn purge(&self, nuid: &str) -> Result<()> {
        let body = json!({"filter": self.chunk_subject(nuid)?});
        let call = format!("STREAM.PURGE.{}", self.stream());
        jetstream::call::<Value>(&self.control, &call, &body, self.timeout).map(drop)
    }

    /// The newest meta of each object, deleted ones too, and the newest sequence of all before.
    fn metas(&self) -> Result<(Vec<Result<ObjectMeta>>, u64)> {
        let deadline = Instant::now() + self.timeout;
        let all = self.metas_subject();
        // First of all: what changes from here on makes a commit on this revision fail.
        let which = json!({"last_by_subj": all});
        let newest = jetstream::get_message(&self.control, &self.stream(), &which, left(deadline));
        let Some(newest) = unless_missing(newest)?.flatten() else { return Ok((Vec::new(), 0)) };
        let subjects = jetstream::subjects(&self.control, &self.stream(), &all, deadline)?.subjects;
        let mut metas = Vec::with_capacity(subjects.len());
        for window in subjects.chunks(OBJECT_LIST_WINDOW) {
            let ask = |subject| {
                let which = json!({"last_by_subj": subject});
                jetstream::begin_get(&self.control, &self.stream(), &which, left(deadline))
            };
            let asked: Vec<_> = window.iter().map(ask).collect();
            for pending in asked {
                let stored = jetstream::stored(pending?.wait())?;
                metas.extend(stored.map(|s| self.read_meta(&s.subject, s.seq, &s.data)));
            }
        }
        Ok((metas, newest.seq))
    }

    fn read_meta(&self, subject: &str, seq: u64, data: &[u8]) -> Result<ObjectMeta> {
        let name = self.name_of(subject).ok_or_else(|| Error::BadName(subject.to_owned()))?;
        ObjectMeta::read(&name, seq, data)
    }

    fn complain(&self, error: &Error) {
        log::warn!(bucket = self.name(), error = error.to_string(); "left out an object");
    }

    fn stream(&self) -> String {
        resources::object_stream(&self.bucket.name)
    }

    fn metas_subject(&self) -> String {
        format!("$O.{}.M.>", self.bucket.name)
    }

    fn chunks_subject(&self) -> String {
        format!("$O.{}.C.>", self.bucket.name)
    }

    fn meta_subject(&self, name: &str) -> Result<String> {
        if name.is_empty() || name.len() > MAX_OBJECT_NAME_BYTES {
            return Err(Error::BadName(name.to_owned()));
        }
        Ok(format!("$O.{}.M.{}", self.bucket.name, meta::encoded(name)))
    }

    /// Checks what came from elsewhere: as a filter, a wildcard would stand for all uploads.
    fn chunk_subject(&self, nuid: &str) -> Result<String> {
        if !name::is_tag(nuid) {
            return Err(Error::BadName(nuid.to_owned()));
        }
        Ok(format!("$O.{}.C.{nuid}", self.bucket.name))
    }

    fn name_of(&self, subject: &str) -> Option<String> {
        let token = subject.strip_prefix("$O.")?.strip_prefix(&*self.bucket.name)?;
        meta::decoded(token.strip_prefix(".M.")?)
    }
}

fn is_same(newest: &ObjectMeta, meta: &ObjectMeta) -> bool {
    newest.nuid == meta.nuid && newest.deleted == meta.deleted
}

/// `None` when the store itself is missing.
fn unless_missing<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(Error::Api { code: 404, .. }) => Ok(None),
        other => other.map(Some),
    }
}
