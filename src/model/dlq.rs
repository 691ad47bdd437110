//! Entries of the dead-letter stream: diagnostics about jobs that failed.

use serde::Serialize;

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
