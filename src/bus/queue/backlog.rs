//! How much waits in the work queue, by tag.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bus::jetstream::resources::{consumer_name, tag_of};
use crate::bus::left;
use crate::bus::queue::WorkQueue;
use crate::bus::{Error, Result, jetstream};
use crate::model::name;

/// Pages of the server's list of consumers that are read, of 256 each: far more tags than are shown.
pub(crate) const MAX_PAGES: usize = 8;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct TagBacklog {
    pub tag: String,
    pub waiting: u64,
    pub in_flight: u64,
    /// When the oldest waiting job was stored, unix seconds.
    pub oldest_waiting: Option<f64>,
}

#[derive(Default)]
struct Consumer {
    pending: u64,
    in_flight: u64,
    delivered: u64,
}

impl WorkQueue {
    /// At most `limit` tags, those with most jobs first; none when the stream is missing.
    pub fn backlog(&self, limit: usize) -> Result<Vec<TagBacklog>> {
        let deadline = Instant::now() + self.timeout;
        let prefix = format!("{}.", self.config.work_subject_prefix);
        let body = json!({"subjects_filter": format!("{prefix}>")});
        let call = format!("STREAM.INFO.{}", self.work_stream());
        let info: Value = match jetstream::call(&self.control, &call, &body, self.timeout) {
            Err(e) if e.is_missing_stream() => return Ok(Vec::new()),
            other => other?,
        };
        let mut stored: BTreeMap<String, u64> = BTreeMap::new();
        for (subject, count) in info["state"]["subjects"].as_object().into_iter().flatten() {
            let tag = subject.strip_prefix(&prefix).filter(|tag| name::is_tag(tag));
            stored.extend(tag.map(|tag| (tag.to_owned(), count.as_u64().unwrap_or(0))));
        }
        let mut consumers = self.consumers(deadline)?;
        for name in consumers.keys() {
            if let Some(tag) = tag_of(&self.config, name) {
                stored.entry(tag.to_owned()).or_insert(0);
            }
        }
        let mut tags: Vec<(String, u64)> = stored.into_iter().collect();
        tags.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        tags.truncate(limit);
        tags.into_iter()
            .map(|(tag, messages)| {
                // Without a consumer nobody can have taken any.
                let consumer = consumers
                    .remove(&consumer_name(&self.config, &tag))
                    .unwrap_or(Consumer { pending: messages, ..Consumer::default() });
                let oldest_waiting = match consumer.pending {
                    0 => None,
                    _ => self.stored_at(&tag, consumer.delivered + 1, deadline)?,
                };
                let (waiting, in_flight) = (consumer.pending, consumer.in_flight);
                Ok(TagBacklog { tag, waiting, in_flight, oldest_waiting })
            })
            .collect()
    }

    fn consumers(&self, deadline: Instant) -> Result<BTreeMap<String, Consumer>> {
        let infos = jetstream::consumers(&self.control, &self.work_stream(), MAX_PAGES, deadline)?.infos;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let figures = |info: Value| {
            let consumer = Consumer {
                pending: number(&info["num_pending"]),
                in_flight: number(&info["num_ack_pending"]),
                delivered: number(&info["delivered"]["stream_seq"]),
            };
            (info["name"].as_str().unwrap_or_default().to_owned(), consumer)
        };
        Ok(infos.into_iter().map(figures).collect())
    }

    /// When the first job of a tag from `seq` on was stored.
    fn stored_at(&self, tag: &str, seq: u64, deadline: Instant) -> Result<Option<f64>> {
        let subject = self.job_subject(tag)?;
        let which = json!({"seq": seq, "next_by_subj": subject});
        match jetstream::get_message(&self.control, &self.work_stream(), &which, left(deadline)) {
            Ok(message) => Ok(message.and_then(|message| message.time)),
            // A server that cannot look for it: the age is unknown, the rest is not.
            Err(Error::Api { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
