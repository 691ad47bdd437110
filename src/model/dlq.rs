//! Entries of the dead-letter stream: diagnostics about jobs that failed.

use serde::Serialize;

use super::job::Job;
use super::limits::{DLQ_PAYLOAD_BYTES, MAX_ERROR_BYTES};
use super::run::truncated;

words! {
    /// Why a job is in the DLQ (`docs/spec.md#how-a-job-ends`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub enum DlqReason {
        InvalidJob = "invalid_job",
        /// No worker that took it knows the flow.
        FlowNotFound = "flow_not_found",
        ExecutionError = "execution_error",
        /// Every delivery ended with the death of its worker.
        MaxDeliverExceeded = "max_deliver_exceeded",
    }
}

/// The payload on `pyoco.dlq.<tag>`; what is unknown is left out.
#[derive(Debug, Clone, Serialize)]
pub struct DlqEntry {
    pub timestamp: f64,
    pub reason: DlqReason,
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_delivered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its first bytes, for messages that are no job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

impl DlqEntry {
    /// An entry about something of which nothing else is known.
    pub fn new(reason: DlqReason, error: &str, now: f64) -> DlqEntry {
        DlqEntry {
            timestamp: now,
            reason,
            error: truncated(error.to_owned(), MAX_ERROR_BYTES),
            run_id: None,
            flow_name: None,
            tag: None,
            tags: None,
            tenant_id: None,
            api_key_id: None,
            worker_id: None,
            num_delivered: None,
            subject: None,
            payload: None,
        }
    }

    /// An entry about a message that is no job.
    pub fn of_no_job(payload: &[u8], error: &str, now: f64) -> DlqEntry {
        let head = &payload[..payload.len().min(DLQ_PAYLOAD_BYTES)];
        DlqEntry {
            payload: Some(String::from_utf8_lossy(head).into_owned()),
            ..DlqEntry::new(DlqReason::InvalidJob, error, now)
        }
    }

    pub fn of_job(job: &Job, reason: DlqReason, error: &str, now: f64) -> DlqEntry {
        DlqEntry {
            run_id: Some(job.run_id.clone()),
            flow_name: Some(job.flow_name.clone()),
            tag: Some(job.tag.clone()),
            tags: Some(job.tags.clone()),
            tenant_id: job.tenant_id.clone(),
            api_key_id: job.api_key_id.clone(),
            ..DlqEntry::new(reason, error, now)
        }
    }
}
