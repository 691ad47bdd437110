//! The work queue: jobs in, jobs out, the DLQ, and jobs whose deliveries are exhausted.

pub(crate) mod backlog;
pub(crate) mod contents;
pub(crate) mod delivered;
mod open_pulls;
pub(crate) mod pull;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bus::connection::link::Link;
use crate::bus::jetstream::{ownership, resources};
use crate::bus::left;
use crate::bus::queue::pull::PullInbox;
use crate::bus::{Error, PubAck, Result, jetstream};
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

/// As the server counts durations.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl WorkQueue {
    pub(crate) fn new(control: Link, stream: Link, config: ResourceConfig, timeout: Duration) -> Self {
        WorkQueue { control, stream, config, timeout }
    }

    pub fn with_timeout(&self, timeout: Duration) -> Self {
        WorkQueue { timeout, ..self.clone() }
    }

    /// How often a job may be delivered, as configured; not positive for any number.
    pub fn max_deliver(&self) -> i64 {
        self.config.max_deliver
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

    /// # Errors
    /// [`Error::Foreign`] and [`Error::NotPullable`] when the one that is there must not or cannot be used.
    pub fn ensure_consumer(&self, tag: &str) -> Result<ConsumerSettings> {
        if !name::is_tag(tag) {
            return Err(Error::BadName(tag.to_owned()));
        }
        let config = resources::tag_consumer(&self.config, tag);
        let info = self.ensure_durable(&self.work_stream(), &config)?;
        let config = &info["config"];
        Ok(ConsumerSettings {
            ack_wait: Duration::from_nanos(config["ack_wait"].as_u64().unwrap_or(30_000_000_000)),
            max_deliver: config["max_deliver"].as_u64(),
        })
    }

    /// The consumers of `tags` must exist.
    pub fn pull_inbox(&self, tags: &[String]) -> PullInbox {
        let consumers =
            tags.iter().map(|tag| (self.work_stream(), resources::consumer_name(&self.config, tag)));
        PullInbox::open(self.stream.clone(), self.control.clone(), consumers)
    }

    /// Opens an inbox of [`ExhaustedJob`]s (as JSON), creating its consumer.
    pub fn exhausted_inbox(&self) -> Result<PullInbox> {
        self.ensure_stream(&resources::advisory_stream(&self.config))?;
        let config = resources::advisory_consumer(&self.config);
        let stream = resources::advisory_stream_name(&self.config);
        self.ensure_durable(&stream, &config)?;
        let consumer = (stream, resources::advisory_consumer_name(&self.config));
        Ok(PullInbox::open(self.stream.clone(), self.control.clone(), [consumer]))
    }

    /// The run id is the message id: within the stream's duplicate window a repeat is harmless. The
    /// sequence of the message. Repeats by itself until `deadline`; after [`Error::is_outcome_unknown`] the
    /// job may be in the queue.
    pub fn submit(&self, tag: &str, run_id: &str, payload: &[u8], deadline: Instant) -> Result<u64> {
        let mut id = run_id.to_owned();
        loop {
            let ack = self.publish(tag, &id, payload, deadline)?;
            // The server still knows the id, but the job may have been taken out: by a worker that found its
            // run withdrawn. Where it is asked for again, it is wanted again; a run that has ended meanwhile
            // is not executed for it.
            if !ack.duplicate {
                return Ok(ack.seq);
            }
            match self.with_timeout(left(deadline).min(self.timeout)).stored_job(ack.seq) {
                Ok(Some(_)) => return Ok(ack.seq),
                // The same for all who find this job gone, so that only one of them counts.
                Ok(None) => id = format!("{run_id}-{}", ack.seq),
                Err(e) if e.is_transient() && left(deadline) > LEAST_PATIENCE => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Publishes a job under a message id, and repeats that until `deadline`. After
    /// [`Error::is_outcome_unknown`] it may be in the queue.
    pub fn publish(&self, tag: &str, id: &str, payload: &[u8], deadline: Instant) -> Result<PubAck> {
        let subject = self.job_subject(tag)?;
        let stream = self.work_stream();
        let headers = [("Nats-Msg-Id", id), ("Nats-Expected-Stream", stream.as_str())];
        let mut pause = RETRY_MIN;
        let mut in_doubt: Option<Error> = None;
        loop {
            let patience = left(deadline).min(jetstream::try_timeout(payload.len()));
            let error = match jetstream::publish(&self.control, &subject, &headers, payload, patience) {
                Ok(ack) => return Ok(ack),
                Err(e) if e.is_missing_stream() => {
                    let stream = resources::work_stream(&self.config);
                    jetstream::ensure_soon(&self.control, &stream, deadline).map_or_else(|e| e, |_| e)
                }
                Err(e) => e,
            };
            // Once a try may have been stored, a later refusal does not take that back.
            if error.is_outcome_unknown() && !matches!(error, Error::Disconnected) {
                in_doubt = Some(error.clone());
            }
            if !error.may_pass()
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
        let deadline = self.deadline();
        let tag = if name::is_tag(tag) { tag } else { crate::model::job::DEFAULT_TAG };
        let subject = format!("{}.{tag}", self.config.dlq_subject_prefix);
        let stream = resources::dlq_stream(&self.config);
        let publish = || jetstream::publish(&self.control, &subject, &[], payload, left(deadline));
        jetstream::creating(&self.control, &stream, deadline, publish).map(drop)
    }

    pub fn stored_job(&self, stream_seq: u64) -> Result<Option<StoredJob>> {
        let which = json!({"seq": stream_seq});
        let stored = jetstream::get_message(&self.control, &self.work_stream(), &which, self.timeout)?;
        Ok(stored.map(|m| StoredJob { subject: m.subject, payload: m.data }))
    }

    pub fn remove_job(&self, stream_seq: u64) -> Result<()> {
        jetstream::delete_message(&self.control, &self.work_stream(), stream_seq, self.timeout)
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

    pub(crate) fn work_stream(&self) -> String {
        resources::work_stream_name(&self.config)
    }

    fn ensure_stream(&self, config: &Value) -> Result<()> {
        jetstream::ensure_stream(&self.control, config, self.deadline())
    }

    /// Whether the bucket of the runs, where there is one, has those of these jobs.
    ///
    /// # Errors
    /// [`Error::Foreign`] when it has others.
    pub fn check_runs(&self) -> Result<()> {
        let expected = resources::runs_bucket(&self.config).stream;
        let name = expected["name"].as_str().unwrap_or_default();
        match jetstream::info_of(jetstream::begin_info(&self.control, name, self.timeout))? {
            Some(info) => ownership::check_stream(&expected, &info["config"]),
            None => Ok(()),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(crate) fn job_subject(&self, tag: &str) -> Result<String> {
        if !name::is_tag(tag) {
            return Err(Error::BadName(tag.to_owned()));
        }
        Ok(format!("{}.{tag}", self.config.work_subject_prefix))
    }

    fn ensure_durable(&self, stream: &str, config: &Value) -> Result<Value> {
        let deadline = self.deadline();
        let name = config["durable_name"].as_str().unwrap_or_default();
        let info = || -> Result<Value> {
            let call = format!("CONSUMER.INFO.{stream}.{name}");
            let info: Value = jetstream::call(&self.control, &call, &Value::Null, left(deadline))?;
            ownership::check_consumer(config, &info["config"])?;
            Ok(info)
        };
        match info() {
            Err(e) if e.is_missing_consumer() => {}
            Err(e) if e.is_missing_stream() => {
                let stream = resources::work_stream(&self.config);
                jetstream::ensure_stream(&self.control, &stream, deadline)?;
            }
            other => return other,
        }
        let call = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        // Without the action, which servers before 2.10 do not know, it would change one that somebody else
        // has just made.
        let body = json!({"stream_name": stream, "config": config, "action": "create"});
        match jetstream::call::<Value>(&self.control, &call, &body, left(deadline)) {
            Ok(created) => Ok(created),
            // Somebody else was quicker.
            Err(e) if e.is_existing() => info(),
            Err(e) => Err(e),
        }
    }
}
