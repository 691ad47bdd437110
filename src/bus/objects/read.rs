//! Brings an object's bytes out of the store, and holds them to its digest.

use std::io;
use std::time::Instant;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{ObjectMeta, ObjectStore};
use crate::bus::link::Link;
use crate::bus::routes::left;
use crate::bus::{Error, Result, api, kv};

impl ObjectStore {
    /// Reads the bytes of the object that `meta` describes and hands them on piece by piece. Only
    /// when this returns `Ok` were they the right ones, so a sink must be able to take them back.
    /// `stop` is asked before each piece; the store's deadline is for each piece.
    ///
    /// # Errors
    /// [`Error::Damaged`] when bytes are missing, too many, or have another digest (the object may
    /// just have been replaced or deleted), [`Error::Sink`], [`Error::Stopped`], and those of a
    /// request.
    pub fn read(
        &self,
        meta: &ObjectMeta,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let damaged = |problem: &str| Error::Damaged {
            object: meta.name.clone(),
            problem: problem.to_owned(),
        };
        if meta.deleted {
            return Err(damaged("it is deleted"));
        }
        if meta.is_link() {
            return Err(damaged("it is a link to another object"));
        }
        let Some(expected) = meta.sha256() else {
            return Err(damaged("it has no SHA-256 digest"));
        };
        let mut sha256 = Sha256::new();
        let mut size = 0;
        if meta.size > 0 {
            let mut chunks = Chunks {
                store: self,
                link: self.bulk.link(self.timeout)?,
                subject: self.chunk_subject(&meta.nuid)?,
                next_seq: 1,
                is_direct: true,
            };
            while size < meta.size {
                if stop() {
                    return Err(Error::Stopped(meta.name.clone()));
                }
                let Some(chunk) = chunks.next()? else { return Err(damaged("bytes are missing")) };
                size += chunk.len() as u64;
                if size > meta.size {
                    return Err(damaged("it has more bytes than it should"));
                }
                sha256.update(&chunk);
                sink(&chunk).map_err(|e| Error::Sink {
                    object: meta.name.clone(),
                    problem: e.to_string(),
                })?;
            }
        }
        if sha256.finalize()[..] == expected { Ok(()) } else { Err(damaged("its digest is wrong")) }
    }
}

/// The chunks of an upload, in order.
struct Chunks<'a> {
    store: &'a ObjectStore,
    link: Link,
    subject: String,
    /// Where to look for the next one.
    next_seq: u64,
    /// Whether the stream answers direct gets, as far as known.
    is_direct: bool,
}

impl Chunks<'_> {
    /// The next chunk; `None` when there is no more. Reading changes nothing, so it is repeated
    /// when the connection was lost.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + self.store.timeout;
        loop {
            let error = match self.get(deadline) {
                Ok(chunk) => return Ok(chunk),
                Err(e) => e,
            };
            if !error.is_transient()
                || left(deadline) <= kv::RETRY_PAUSE
                || !self.link.wait_up(left(deadline))
            {
                return Err(error);
            }
            std::thread::sleep(kv::RETRY_PAUSE);
        }
    }

    fn get(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let which = json!({"seq": self.next_seq, "next_by_subj": self.subject});
        let found = match self.is_direct {
            true => self.get_direct(&which, deadline)?,
            false => None,
        };
        // A replica that lags behind does not know the chunk yet; the leader decides.
        let found = match found {
            Some(found) => Some(found),
            None => api::get_message(&self.link, &self.store.stream(), &which, left(deadline))?
                .map(|stored| (stored.seq, stored.data)),
        };
        Ok(found.map(|(seq, data)| {
            self.next_seq = seq + 1;
            data
        }))
    }

    /// From any replica: the bytes as they are, not as text in JSON.
    fn get_direct(
        &mut self,
        which: &serde_json::Value,
        deadline: Instant,
    ) -> Result<Option<(u64, Vec<u8>)>> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.store.stream());
        let body = which.to_string();
        let message = match self.link.request(&subject, &[], body.as_bytes(), left(deadline)) {
            Err(Error::NoResponders(_)) => {
                self.is_direct = false;
                return Ok(None);
            }
            other => other?,
        };
        if message.status().is_some() {
            return Ok(None);
        }
        match message.header("Nats-Sequence").and_then(|seq| seq.parse().ok()) {
            Some(seq) if seq >= self.next_seq => Ok(Some((seq, message.data))),
            _ => Err(Error::BadAnswer("direct get without a sequence".into())),
        }
    }
}
