//! Takes an object's bytes into the store, and names them when all are there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::meta::{self, ObjectMeta};
use super::{ObjectStore, ROLLUP};
use crate::bus::connection::inbox::Pending;
use crate::bus::connection::link::Link;
use crate::bus::{Error, Result, jetstream, kv};

/// Bytes of an object in one message, as other clients of object stores cut them.
const OBJECT_CHUNK_BYTES: usize = 128 * 1024;
/// Chunks of one upload on their way at once: they hide the time of an answer, and bound what an upload
/// holds to half a MiB.
const OBJECT_UPLOAD_WINDOW: usize = 4;
/// After which an upload sends what it has, a whole chunk or not.
const OBJECT_CHUNK_PATIENCE: Duration = Duration::from_secs(10);
/// Between two chunks of an upload: [`OBJECT_CHUNK_PATIENCE`], the deadline of a silent client, and a rest.
/// An upload that crawls on for longer without content for the next one is given up.
const OBJECT_CHUNK_DEADLINE: Duration = Duration::from_secs(45);
/// For each request of an upload, however patient the process is otherwise.
const OBJECT_STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// From an upload's last chunk to its name.
const OBJECT_NAMING_DEADLINE: Duration = Duration::from_secs(30);
/// For removing the bytes of an upload that was given up, and for what of it is still on its way.
const OBJECT_PURGE_TIMEOUT: Duration = Duration::from_secs(2);

const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// The first nats-server that looks at this header.
const NEEDED_SERVER: (u64, u64) = (2, 11);
/// What a chunk may lack to the largest message of the server.
const MESSAGE_OVERHEAD_BYTES: usize = 2 * 1024;

impl ObjectStore {
    pub fn upload(&self) -> Result<Upload> {
        check_version(&self.control.server_version())?;
        self.ensure()?;
        let link = self.large_payloads.link(self.timeout)?;
        let nuid = uuid::Uuid::new_v4().simple().to_string();
        let store = self.with_timeout(self.timeout.min(OBJECT_STEP_TIMEOUT));
        let limit = link.max_payload(OBJECT_CHUNK_BYTES).unwrap_or(usize::MAX);
        let chunk_bytes = limit.saturating_sub(MESSAGE_OVERHEAD_BYTES).clamp(1, OBJECT_CHUNK_BYTES);
        Ok(Upload {
            subject: self.chunk_subject(&nuid)?,
            link,
            chunk: Vec::with_capacity(chunk_bytes),
            chunk_bytes,
            under_way: VecDeque::with_capacity(OBJECT_UPLOAD_WINDOW),
            last_seq: 0,
            sha256: Sha256::new(),
            size: 0,
            count: 0,
            sent: Instant::now(),
            failed: None,
            chunks: Arc::new(Chunks { store, nuid, is_kept: AtomicBool::new(false) }),
        })
    }
}

/// An object's bytes on their way. Dropping it removes what was stored of them.
pub struct Upload {
    link: Link,
    subject: String,
    chunk: Vec<u8>,
    chunk_bytes: usize,
    /// Chunks whose acknowledgement has not been read, in order.
    under_way: VecDeque<Pending>,
    /// Of the last chunk that was acknowledged.
    last_seq: u64,
    sha256: Sha256,
    size: u64,
    count: u64,
    sent: Instant,
    /// What ended the upload: a chunk is missing, so nothing can follow it.
    failed: Option<Error>,
    chunks: Arc<Chunks>,
}

impl Upload {
    /// Waits while too many chunks are under way. [`Error::Stalled`]: the chunk before is so old that it may
    /// have been removed. After an error every further call ends the same way.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.chunk_bytes - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            rest = later;
            // A short chunk now and then tells the care for orphans that a slow upload is alive.
            let is_due = self.sent.elapsed() > OBJECT_CHUNK_PATIENCE;
            if self.chunk.len() == self.chunk_bytes || is_due {
                self.or_fail(Self::send)?;
            }
        }
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn seal(mut self) -> Result<Sealed> {
        self.or_fail(|upload| {
            if !upload.chunk.is_empty() {
                upload.send()?;
            }
            upload.settle(0)
        })?;
        let hash = std::mem::take(&mut self.sha256).finalize();
        Ok(Sealed {
            size: self.size,
            sha256_hex: meta::hex(&hash),
            digest: meta::digest(&hash),
            count: self.count,
            chunk_bytes: self.chunk_bytes,
            sent: self.sent,
            chunks: self.chunks.clone(),
        })
    }

    fn or_fail(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let done = step(self);
        self.failed = done.as_ref().err().cloned();
        done
    }

    /// Sends the chunk when there is room among those under way.
    fn send(&mut self) -> Result<()> {
        // What came before may have been taken for an orphan meanwhile; nothing can follow it then.
        if self.count > 0 && self.sent.elapsed() > OBJECT_CHUNK_DEADLINE {
            return Err(Error::Stalled(self.chunks.nuid.clone()));
        }
        self.settle(OBJECT_UPLOAD_WINDOW - 1)?;
        let timeout = self.chunks.store.timeout;
        self.under_way.push_back(self.link.begin(&self.subject, &[], &self.chunk, timeout)?);
        self.count += 1;
        self.sent = Instant::now();
        self.chunk.clear();
        Ok(())
    }

    /// Reads acknowledgements until only so many are missing.
    fn settle(&mut self, remaining: usize) -> Result<()> {
        while self.under_way.len() > remaining {
            let Some(pending) = self.under_way.pop_front() else { break };
            let seq = jetstream::acked(&pending.wait()?)?.seq;
            if seq <= self.last_seq {
                return Err(Error::BadAnswer("chunks were stored out of order".into()));
            }
            self.last_seq = seq;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What is still under way must not be stored after the purge. Its answers share one time.
        let deadline = Instant::now() + OBJECT_PURGE_TIMEOUT;
        for pending in self.under_way.drain(..) {
            if pending.wait_until(deadline).is_err() {
                break;
            }
        }
    }
}

/// An object's bytes, all stored and not yet named. Dropping it before that removes them.
pub struct Sealed {
    pub size: u64,
    pub sha256_hex: String,
    pub digest: String,
    count: u64,
    chunk_bytes: usize,
    sent: Instant,
    chunks: Arc<Chunks>,
}

impl Sealed {
    /// The later [`ObjectMeta::nuid`]: it tells whether a commit in doubt was carried out.
    pub fn nuid(&self) -> &str {
        &self.chunks.nuid
    }

    /// Names the bytes if the newest meta of the whole store is `expected` (a
    /// [`Listing::revision`](super::Listing::revision), 0 when there is none), and removes what the name
    /// stood for. After [`Error::Conflict`] the caller may look again and repeat it. After
    /// [`Error::is_outcome_unknown`] the bytes stay until [`ObjectStore::purge_orphans`] finds them unnamed.
    pub fn publish(&self, name: &str, headers: Map<String, Value>, expected: u64) -> Result<ObjectMeta> {
        // Whoever looks for orphans may be about to take its bytes for one.
        if self.sent.elapsed() > OBJECT_NAMING_DEADLINE {
            return Err(Error::Stalled(name.to_owned()));
        }
        let store = &self.chunks.store;
        check_version(&store.control.server_version())?;
        let old = match store.newest(name) {
            // What cannot be read is replaced; its bytes are found by the care for orphans.
            Err(Error::BadAnswer(_)) => None,
            other => other?,
        };
        let mut meta = ObjectMeta {
            name: name.to_owned(),
            bucket: store.name().to_owned(),
            nuid: self.chunks.nuid.clone(),
            size: self.size,
            chunks: self.count,
            mtime: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string(),
            digest: self.digest.clone(),
            deleted: false,
            headers,
            options: json!({"max_chunk_size": self.chunk_bytes}),
            revision: 0,
            extra: Map::new(),
        };
        let (expected, metas) = (expected.to_string(), store.metas_subject());
        let conditions =
            [ROLLUP, (kv::EXPECTED_SEQUENCE, expected.as_str()), (EXPECTED_SUBJECT, metas.as_str())];
        let stored = store.commit(&meta, &conditions);
        if stored.as_ref().map_or_else(Error::is_outcome_unknown, |_| true) {
            self.chunks.keep();
        }
        meta.revision = stored?;
        // Had it changed since we looked, so would have the store.
        if let Some(old) = old.filter(|old| old.nuid != meta.nuid) {
            store.purge_replaced(&old);
        }
        Ok(meta)
    }
}

/// The chunks of an upload, which go unless somebody keeps them.
struct Chunks {
    store: ObjectStore,
    nuid: String,
    is_kept: AtomicBool,
}

impl Chunks {
    fn keep(&self) {
        self.is_kept.store(true, Ordering::SeqCst);
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if self.is_kept.load(Ordering::SeqCst) {
            return;
        }
        if let Err(e) = self.store.with_timeout(OBJECT_PURGE_TIMEOUT).purge(&self.nuid) {
            log::warn!(bucket = self.store.name(), nuid = self.nuid.as_str(), error = e.to_string();
                "the bytes of an upload that was given up remain for now");
        }
    }
}

/// An older server would compare with another sequence, and refuse for ever.
fn check_version(found: &str) -> Result<()> {
    let mut numbers = found.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < NEEDED_SERVER => {
            let (major, minor) = NEEDED_SERVER;
            let needed = format!("{major}.{minor}");
            Err(Error::OldServer { found: found.to_owned(), needed })
        }
        // What has no number we know nothing of.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_named() {
        for good in ["2.11.0", "2.15.1", "2.11.0-RC.1", "3.0", "", "dev"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for old in ["2.10.29", "2.9.0", "1.4.1", "2.10.0-beta"] {
            let error = check_version(old).unwrap_err().to_string();
            assert!(error.contains(old) && error.contains("2.11"), "{error}");
        }
    }
}
