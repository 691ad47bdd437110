//! Brings an object's bytes out of the store, and holds them to its digest.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ObjectMeta, ObjectStore};
use crate::bus::connection::inbox::Pending;
use crate::bus::connection::link::Link;
use crate::bus::left;
use crate::bus::{Error, Result, jetstream, kv};

/// Chunks of one object that are asked for at once, for the same reasons.
const OBJECT_READ_WINDOW: usize = 4;

impl ObjectStore {
    /// Hands the bytes of the object on piece by piece. Only `Ok` says that they were the right ones, so a
    /// sink must be able to take them back. `stop` is asked before each piece; the store's deadline is for
    /// each piece. [`Error::Damaged`] may mean that the object was replaced or deleted meanwhile.
    pub fn read(
        &self,
        meta: &ObjectMeta,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let damaged =
            |problem: &str| Error::Damaged { object: meta.name.clone(), problem: problem.to_owned() };
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
                link: self.large_payloads.link(self.timeout)?,
                subject: self.chunk_subject(&meta.nuid)?,
                left: meta.chunks,
                next_seq: 1,
                next_ask: 1,
                asked: VecDeque::with_capacity(OBJECT_READ_WINDOW),
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
                sink(&chunk)
                    .map_err(|e| Error::Sink { object: meta.name.clone(), problem: e.to_string() })?;
            }
        }
        if sha256.finalize()[..] == expected { Ok(()) } else { Err(damaged("its digest is wrong")) }
    }
}

/// The chunks of an upload, in order.
///
/// Their places in the stream are not known, so each request asks for the first chunk at a place or behind
/// it. Most lie side by side: then several requests under way bring one each. Where something lies between,
/// several bring the same chunk, of which the first counts; none is passed over.
struct Chunks<'a> {
    store: &'a ObjectStore,
    link: Link,
    subject: String,
    /// How many are still to come, as far as the meta knows.
    left: u64,
    /// Before this place nothing is to be had any more.
    next_seq: u64,
    next_ask: u64,
    /// Requests under way and the places they ask for, in order.
    asked: VecDeque<(u64, Pending)>,
    /// Whether the stream answers direct gets, as far as known.
    is_direct: bool,
}

impl Chunks<'_> {
    /// `None` when there is no more. A read changes nothing, so a lost connection repeats it.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + self.store.timeout;
        loop {
            let found = self.get_direct().and_then(|found| match found {
                Some(found) => Ok(Some(found)),
                // A replica that lags behind does not know the chunk yet; the leader decides.
                None => self.get_from_leader(deadline),
            });
            let error = match found {
                Ok(None) => return Ok(None),
                Ok(Some((seq, data))) => {
                    self.left = self.left.saturating_sub(1);
                    self.next_seq = seq + 1;
                    self.next_ask = self.next_ask.max(self.next_seq);
                    return Ok(Some(data));
                }
                Err(e) => e,
            };
            self.forget_asked();
            if !error.is_transient()
                || left(deadline) <= kv::RETRY_PAUSE
                || !self.link.wait_up(left(deadline))
            {
                return Err(error);
            }
            std::thread::sleep(kv::RETRY_PAUSE);
        }
    }

    /// From any replica: the bytes as they are, not as text in JSON.
    fn get_direct(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        if !self.is_direct {
            return Ok(None);
        }
        self.ask()?;
        let Some((_, pending)) = self.asked.pop_front() else { return Ok(None) };
        let message = match pending.wait() {
            Err(Error::NoResponders(_)) => {
                self.is_direct = false;
                self.forget_asked();
                return Ok(None);
            }
            other => other?,
        };
        if message.status().is_some() {
            self.forget_asked();
            return Ok(None);
        }
        match message.header("Nats-Sequence").and_then(|seq| seq.parse().ok()) {
            Some(seq) if seq >= self.next_seq => Ok(Some((seq, message.data))),
            _ => Err(Error::BadAnswer("direct get without a sequence".into())),
        }
    }

    fn get_from_leader(&mut self, deadline: Instant) -> Result<Option<(u64, Vec<u8>)>> {
        let (stream, which) = (self.store.stream(), self.which(self.next_seq));
        let stored = jetstream::get_message(&self.link, &stream, &which, left(deadline))?;
        Ok(stored.map(|stored| (stored.seq, stored.data)))
    }

    /// Keeps as many requests under way as there are chunks to come, up to a bound.
    fn ask(&mut self) -> Result<()> {
        while self.asked.front().is_some_and(|(place, _)| *place < self.next_seq) {
            self.asked.pop_front();
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).clamp(1, OBJECT_READ_WINDOW);
        let subject = self.link.api(&format!("DIRECT.GET.{}", self.store.stream()));
        while self.asked.len() < wanted {
            let which = self.which(self.next_ask).to_string();
            let asked = self.link.begin(&subject, &[], which.as_bytes(), self.store.timeout)?;
            self.asked.push_back((self.next_ask, asked));
            self.next_ask += 1;
        }
        Ok(())
    }

    fn forget_asked(&mut self) {
        self.asked.clear();
        self.next_ask = self.next_seq;
    }

    fn which(&self, seq: u64) -> Value {
        json!({"seq": seq, "next_by_subj": self.subject})
    }
}
