//! The audit: a stream to which entries are appended and from which nobody takes any.

use std::time::Duration;

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
        jetstream::ensure_stream(&self.control, &resources::audit_stream(&self.config), self.timeout)
    }

    /// Appends an entry about `action`, a word or words with dots.
    pub fn append(&self, action: &str, entry: &[u8]) -> Result<()> {
        if !action.split('.').all(name::is_tag) {
            return Err(Error::BadName(action.to_owned()));
        }
        let subject = format!("{}.{action}", resources::audit_subject(&self.config));
        let stream = resources::audit_stream(&self.config);
        let publish = || jetstream::publish(&self.control, &subject, &[], entry, self.timeout);
        jetstream::creating(&self.control, &stream, self.timeout, publish).map(drop)
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
