//! The work queue: jobs in, jobs out, the DLQ, and jobs whose deliveries are exhausted.

pub(crate) mod backlog;
pub(crate) mod pull;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bus::connection::link::Link;
use crate::bus::jetstream::resources::{self, ADVISORY_CONSUMER, ADVISORY_STREAM, WORK_STREAM};
use crate::bus::left;
use crate::bus::queue::pull::PullInbox;
use crate::bus::{Error, Result, jetstream};
use crate::config::ResourceConfig;
use crate::model::name;

const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// A try that could not wait this long for its answer would only leave the outcome in doubt.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub struct WorkQueue {
    pub(crate) control: Link,
    stream: Link,
    pub(crate) config: ResourceConfig,
    pub(crate) timeout: Duration,
}

/// The settings in force of a tag's consumer; an existing one keeps its own.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerSettings {
    pub ack_wait: Duration,
    /// How often a job is delivered at most; `None` means without end.
    pub max_deliver: Option<u64>,
}

#[derive(Debug)]
pub struct StoredJob {
    pub subject: String,
    pub payload: Vec<u8>,
}

/// What the server says of a job that it will not deliver again.
#[derive(Debug, Clone, Deserialize)]
pub struct ExhaustedJob {
    pub stream_seq: u64,
    #[serde(default)]
    pub deliveries: u64,
}

impl WorkQueue {
    pub(crate) fn new(control: Link, stream: Link, config: ResourceConfig, timeout: Duration) -> Self {
        WorkQueue { control, stream, config, timeout }
    }

    pub fn with_timeout(&self, timeout: Duration) -> Self {
        WorkQueue { timeout, ..self.clone() }
    }

    /// Creates the work stream. DLQ and advisories are created when first needed: work goes on without them.
    pub fn ensure(&self) -> Result<()> {
        self.ensure_stream(&resources::work_stream(&self.config))
    }

    pub fn ensure_all(&self) -> Result<()> {
        self.ensure()?;
        self.ensure_stream(&resources::dlq_stream(&self.config))?;
        self.ensure_stream(&resources::advisory_stream(&self.config))
    }

    pub fn ensure_consumer(&self, tag: &str) -> Result<ConsumerSettings> {
        if !name::is_tag(tag) {
            return Err(Error::BadName(tag.to_owned()));
        }
        let config = resources::tag_consumer(&self.config, tag);
        let info = self.ensure_durable(WORK_STREAM, &resources::consumer_name(tag), &config)?;
        let config = &info["config"];
        Ok(ConsumerSettings {
            ack_wait: Duration::from_nanos(config["ack_wait"].as_u64().unwrap_or(30_000_000_000)),
            max_deliver: config["max_deliver"].as_u64(),
        })
    }

    /// The consumers of `tags` must exist.
    pub fn pull_inbox(&self, tags: &[String]) -> PullInbox {
        let consumers = tags.iter().map(|tag| (WORK_STREAM.to_owned(), resources::consumer_name(tag)));
        PullInbox::open(self.stream.clone(), self.control.clone(), consumers)
    }

    /// Opens an inbox of [`ExhaustedJob`]s (as JSON), creating its consumer.
    pub fn exhausted_inbox(&self) -> Result<PullInbox> {
        self.ensure_stream(&resources::advisory_stream(&self.config))?;
        let config = resources::advisory_consumer(&self.config);
        self.ensure_durable(ADVISORY_STREAM, ADVISORY_CONSUMER, &config)?;
        let consumer = (ADVISORY_STREAM.to_owned(), ADVISORY_CONSUMER.to_owned());
        Ok(PullInbox::open(self.stream.clone(), self.control.clone(), [consumer]))
    }

    /// The run id is the message id: within the stream's duplicate window a repeat is harmless.
    /// Repeats by itself until `deadline`; after [`Error::is_outcome_unknown`] the job may be in the queue.
    pub fn submit(&self, tag: &str, run_id: &str, payload: &[u8], deadline: Instant) -> Result<()> {
        let subject = self.job_subject(tag)?;
        let mut id = run_id.to_owned();
        let mut pause = RETRY_MIN;
        let mut in_doubt: Option<Error> = None;
        loop {
            let headers = [("Nats-Msg-Id", id.as_str()), ("Nats-Expected-Stream", WORK_STREAM)];
            let patience = left(deadline).min(jetstream::try_timeout(payload.len()));
            let error = match jetstream::publish(&self.control, &subject, &headers, payload, patience) {
                // The server still knows the id, but the job may have been taken out: by a worker
                // that found its run withdrawn. Where it is asked for again, it is wanted again; a
                // run that has ended meanwhile is not executed for it.
                Ok(ack) if ack.duplicate => match self.stored_job(ack.seq) {
                    Ok(Some(_)) => return Ok(()),
                    // The same for all who find this job gone, so that only one of them counts.
                    Ok(None) => {
                        id = format!("{run_id}-{}", ack.seq);
                        continue;
                    }
                    Err(e) => e,
                },
                Ok(_) => return Ok(()),
                Err(e) if e.is_missing_stream() => {
                    let stream = resources::work_stream(&self.config);
                    jetstream::ensure_soon(&self.control, &stream, left(deadline)).map_or_else(|e| e, |_| e)
                }
                Err(e) => e,
            };
            // Once a try may have been stored, a later refusal does not take that back.
            if error.is_outcome_unknown() && !matches!(error, Error::Disconnected) {
                in_doubt = Some(error.clone());
            }
            if !error.is_transient() && !error.is_outcome_unknown()
                || left(deadline) <= pause + LEAST_PATIENCE
                || !self.control.wait_up(left(deadline))
            {
                return Err(in_doubt.unwrap_or(error));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Publishes an entry of the DLQ; one try, since it is diagnostics.
    pub fn publish_dlq(&self, tag: &str, payload: &[u8]) -> Result<()> {
        let tag = if name::is_tag(tag) { tag } else { crate::model::job::DEFAULT_TAG };
        let subject = format!("{}.{tag}", self.config.dlq_subject_prefix);
        let stream = resources::dlq_stream(&self.config);
        let publish = || jetstream::publish(&self.control, &subject, &[], payload, self.timeout);
        jetstream::creating(&self.control, &stream, self.timeout, publish).map(drop)
    }

    pub fn stored_job(&self, stream_seq: u64) -> Result<Option<StoredJob>> {
        let which = json!({"seq": stream_seq});
        let stored = jetstream::get_message(&self.control, WORK_STREAM, &which, self.timeout)?;
        Ok(stored.map(|m| StoredJob { subject: m.subject, payload: m.data }))
    }

    pub fn remove_job(&self, stream_seq: u64) -> Result<()> {
        jetstream::delete_message(&self.control, WORK_STREAM, stream_seq, self.timeout)
    }

    /// Gives a job back in the place of a worker that is gone, by the ACK subject of its delivery.
    pub fn give_back(&self, ack_subject: &str) -> Result<()> {
        if super::Meta::parse(ack_subject).is_none() {
            return Err(Error::BadName(ack_subject.to_owned()));
        }
        self.control.publish(ack_subject, None, b"-NAK")
    }

    /// How many messages the DLQ holds; none when it was never needed.
    pub fn dlq_messages(&self) -> Result<u64> {
        let call = format!("STREAM.INFO.{}", self.config.dlq_stream);
        let info: Value = match jetstream::call(&self.control, &call, &Value::Null, self.timeout) {
            Err(e) if e.is_missing_stream() => return Ok(0),
            other => other?,
        };
        Ok(info["state"]["messages"].as_u64().unwrap_or(0))
    }

    /// How many jobs of a tag lie in the stream, delivered or not.
    pub fn jobs_of_tag(&self, tag: &str) -> Result<u64> {
        let subject = self.job_subject(tag)?;
        let body = json!({"subjects_filter": subject});
        let info: Value =
            jetstream::call(&self.control, &format!("STREAM.INFO.{WORK_STREAM}"), &body, self.timeout)?;
        Ok(info["state"]["subjects"][&subject].as_u64().unwrap_or(0))
    }

    fn ensure_stream(&self, config: &Value) -> Result<()> {
        jetstream::ensure_stream(&self.control, config, self.timeout)
    }

    pub(crate) fn job_subject(&self, tag: &str) -> Result<String> {
        if !name::is_tag(tag) {
            return Err(Error::BadName(tag.to_owned()));
        }
        Ok(format!("{}.{tag}", self.config.work_subject_prefix))
    }

    fn ensure_durable(&self, stream: &str, name: &str, config: &Value) -> Result<Value> {
        let info = || {
            let call = format!("CONSUMER.INFO.{stream}.{name}");
            jetstream::call::<Value>(&self.control, &call, &Value::Null, self.timeout)
        };
        match info() {
            Err(e) if e.is_missing_consumer() => {}
            Err(e) if e.is_missing_stream() => self.ensure()?,
            other => return other,
        }
        let call = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let body = json!({"stream_name": stream, "config": config});
        match jetstream::call::<Value>(&self.control, &call, &body, self.timeout) {
            Ok(created) => Ok(created),
            // Somebody else was quicker.
            Err(e) if e.is_existing() => info(),
            Err(e) => Err(e),
        }
    }
}
