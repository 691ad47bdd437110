//! What lies in the work queue, message by message: for finding those that have lost their run.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bus::jetstream::resources;
use crate::bus::queue::{StoredJob, WorkQueue};
use crate::bus::{Error, Result, jetstream, left};
use crate::model::name;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueContents {
    /// When the stream was created, as the server writes it; empty when the stream is missing.
    pub created: String,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Messages of each tag that has any.
    pub by_tag: BTreeMap<String, u64>,
}

/// Figures of a tag's consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliveries {
    /// Messages that were never delivered.
    pub pending: u64,
    /// Messages that were delivered, and are neither settled nor given up.
    pub ack_pending: u64,
    /// Sequence up to which every message was delivered at least once.
    pub delivered_to: u64,
    /// Deliveries of all messages since the consumer was created.
    pub deliveries: u64,
}

impl WorkQueue {
    /// The messages of all tags, counted; empty when the stream is missing.
    pub fn contents(&self) -> Result<QueueContents> {
        let deadline = Instant::now() + self.timeout;
        let prefix = format!("{}.", self.config.work_subject_prefix);
        let mut contents = QueueContents::default();
        let mut subjects = 0;
        loop {
            // The server tells them in pages.
            let body = json!({"subjects_filter": format!("{prefix}>"), "offset": subjects});
            let call = format!("STREAM.INFO.{}", self.work_stream());
            let info: Value = match jetstream::call(&self.control, &call, &body, left(deadline)) {
                Err(e) if e.is_missing_stream() => return Ok(contents),
                other => other?,
            };
            contents.created = info["created"].as_str().unwrap_or_default().to_owned();
            contents.first_seq = info["state"]["first_seq"].as_u64().unwrap_or(0);
            contents.last_seq = info["state"]["last_seq"].as_u64().unwrap_or(0);
            let page = info["state"]["subjects"].as_object();
            let told = page.map_or(0, serde_json::Map::len);
            for (subject, count) in page.into_iter().flatten() {
                let tag = subject.strip_prefix(&prefix).filter(|tag| name::is_tag(tag));
                contents.by_tag.extend(tag.map(|tag| (tag.to_owned(), count.as_u64().unwrap_or(0))));
            }
            subjects += told;
            if told == 0 || info["total"].as_u64().unwrap_or(0) <= subjects as u64 {
                return Ok(contents);
            }
        }
    }

    /// `None` when the tag has no consumer.
    pub fn deliveries(&self, tag: &str) -> Result<Option<Deliveries>> {
        let call = {
            let consumer = resources::consumer_name(&self.config, tag);
            format!("CONSUMER.INFO.{}.{consumer}", self.work_stream())
        };
        let info: Value = match jetstream::call(&self.control, &call, &Value::Null, self.timeout) {
            Err(e) if e.is_missing_consumer() || e.is_missing_stream() => return Ok(None),
            other => other?,
        };
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        Ok(Some(Deliveries {
            pending: number(&info["num_pending"]),
            ack_pending: number(&info["num_ack_pending"]),
            delivered_to: number(&info["delivered"]["stream_seq"]),
            deliveries: number(&info["delivered"]["consumer_seq"]),
        }))
    }

    /// How many messages a tag has.
    pub fn count(&self, tag: &str) -> Result<u64> {
        let subject = self.job_subject(tag)?;
        let call = format!("STREAM.INFO.{}", self.work_stream());
        let body = json!({"subjects_filter": subject});
        let info: Value = match jetstream::call(&self.control, &call, &body, self.timeout) {
            Err(e) if e.is_missing_stream() => return Ok(0),
            other => other?,
        };
        Ok(info["state"]["subjects"][&subject].as_u64().unwrap_or(0))
    }

    /// The first message of a tag from a sequence on, with its sequence.
    pub fn next_job(&self, tag: &str, seq: u64) -> Result<Option<(u64, StoredJob)>> {
        let which = json!({"seq": seq.max(1), "next_by_subj": self.job_subject(tag)?});
        match jetstream::get_message(&self.control, &self.work_stream(), &which, self.timeout) {
            Err(Error::Api { code: 404, .. }) => Ok(None),
            found => Ok(found?.map(|m| (m.seq, StoredJob { subject: m.subject, payload: m.data }))),
        }
    }
}
