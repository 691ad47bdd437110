//! The audit: a stream to which entries are appended and from which nobody takes any.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bus::connection::link::Link;
use crate::bus::jetstream::resources;
use crate::bus::{Error, Result, jetstream};
use crate::config::ResourceConfig;
use crate::model::name;

#[derive(Clone)]
pub struct AuditLog {
    control: Link,
    config: ResourceConfig,
    timeout: Duration,
}

/// An entry under an id of its own, by which NATS knows a repeat.
#[derive(Debug, Clone)]
pub struct Noted {
    subject: String,
    id: String,
    entry: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// Its place; the next one's is higher.
    pub seq: u64,
    pub data: Vec<u8>,
}

impl AuditLog {
    pub(crate) fn new(control: Link, config: ResourceConfig, timeout: Duration) -> Self {
        AuditLog { control, config, timeout }
    }

    pub fn with_timeout(&self, timeout: Duration) -> Self {
        AuditLog { timeout, ..self.clone() }
    }

    pub fn ensure(&self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        jetstream::ensure_stream(&self.control, &resources::audit_stream(&self.config), deadline)
    }

    /// Makes an entry about `action`, a word or words with dots.
    pub fn note(&self, action: &str, entry: Vec<u8>) -> Result<Noted> {
        if !action.split('.').all(name::is_tag) {
            return Err(Error::BadName(action.to_owned()));
        }
        let subject = format!("{}.{action}", resources::audit_subject(&self.config));
        Ok(Noted { subject, id: uuid::Uuid::new_v4().to_string(), entry })
    }

    /// Stores an entry; repeats by itself. After an error the caller may call it again, for two minutes.
    pub fn store(&self, noted: &Noted) -> Result<()> {
        let stream = resources::audit_stream(&self.config);
        let Noted { subject, id, entry } = noted;
        jetstream::publish_as(&self.control, &stream, subject, id, entry, self.timeout).map(drop)
    }

    pub fn append(&self, action: &str, entry: &[u8]) -> Result<()> {
        self.store(&self.note(action, entry.to_vec())?)
    }

    /// The first entry at `seq` or behind it; `None` at the end, and when there is no stream.
    pub fn read(&self, seq: u64) -> Result<Option<AuditRecord>> {
        let which = json!({"seq": seq.max(1), "next_by_subj": self.all_subjects()});
        match jetstream::get_message(&self.control, &self.stream(), &which, self.timeout) {
            Ok(found) => Ok(found.map(|m| AuditRecord { seq: m.seq, data: m.data })),
            Err(e) if e.is_missing_stream() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Where entries begin that were stored at `since` (unix seconds) or later, found by halving.
    pub fn since(&self, since: f64) -> Result<u64> {
        let last = match jetstream::stream_info(&self.control, &self.stream(), self.timeout) {
            Ok(info) => info.last_seq,
            Err(e) if e.is_missing_stream() => return Ok(1),
            Err(e) => return Err(e),
        };
        let (mut low, mut high) = (1, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let which = json!({"seq": middle, "next_by_subj": self.all_subjects()});
            let found = jetstream::get_message(&self.control, &self.stream(), &which, self.timeout)?;
            match found {
                Some(message) if message.time.unwrap_or(0.0) < since => low = message.seq + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    fn stream(&self) -> String {
        resources::audit_stream_name(&self.config)
    }

    fn all_subjects(&self) -> String {
        format!("{}.>", resources::audit_subject(&self.config))
    }
}
