//! The catalogue of errors by number (CONTRACT §7).

/// A numbered error; `ERR-PYOCO-nnnn` names what happened, `MSG-PYOCO-nnnn` its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A client cannot reach the gateway.
    GatewayUnreachable,
    /// A request is not acceptable (422, 413).
    BadInput,
    /// NATS does not answer (503).
    NatsUnavailable,
    /// A snapshot may remain whose job was not queued.
    OrphanRun,
    /// No such run (404).
    RunNotFound,
    /// No such flow on this worker.
    FlowNotFound,
    /// The flow raised an error.
    ExecutionFailed,
    /// The terminal snapshot could not be stored; the job is given back.
    TerminalNotStored,
    /// An in-progress ACK could not be sent.
    InProgressFailed,
    /// A snapshot was too large and lost its records.
    SnapshotTooLarge,
    /// A DLQ entry could not be published.
    DlqFailed,
    /// A message that is no job.
    InvalidJob,
    LoggingFailed,
    /// API key missing (401).
    ApiKeyMissing,
    /// API key malformed, unknown, wrong or revoked (403).
    ApiKeyInvalid,
    /// The uploaded workflow is too large (413).
    WorkflowTooLarge,
    /// A list query that cannot be read (422).
    BadListQuery,
    /// A command line that cannot be read.
    BadCommandLine,
    /// A workers request that cannot be read (422).
    BadWorkersRequest,
    /// No such worker (404).
    WorkerNotFound,
    /// A cancelled run did not end within its grace period.
    CancelGraceExceeded,
    /// A wheel of that version or a newer one exists (409).
    WheelConflict,
    /// No such wheel (404).
    WheelNotFound,
    /// Wheels could not be synchronised.
    WheelSyncFailed,
    /// A program that was understood could not start, or had to end.
    CannotStart,
}

impl Code {
    /// All codes, by number.
    pub const ALL: [Code; 25] = [
        Code::GatewayUnreachable,
        Code::BadInput,
        Code::NatsUnavailable,
        Code::OrphanRun,
        Code::RunNotFound,
        Code::FlowNotFound,
        Code::ExecutionFailed,
        Code::TerminalNotStored,
        Code::InProgressFailed,
        Code::SnapshotTooLarge,
        Code::DlqFailed,
        Code::InvalidJob,
        Code::LoggingFailed,
        Code::ApiKeyMissing,
        Code::ApiKeyInvalid,
        Code::WorkflowTooLarge,
        Code::BadListQuery,
        Code::BadCommandLine,
        Code::BadWorkersRequest,
        Code::WorkerNotFound,
        Code::CancelGraceExceeded,
        Code::WheelConflict,
        Code::WheelNotFound,
        Code::WheelSyncFailed,
        Code::CannotStart,
    ];

    /// Its number, from 1.
    pub fn number(self) -> usize {
        // The declaration order is the order of the numbers; a test holds `ALL` to it.
        self as usize + 1
    }

    pub fn err_id(self) -> String {
        format!("ERR-PYOCO-{:04}", self.number())
    }

    pub fn msg_id(self) -> String {
        format!("MSG-PYOCO-{:04}", self.number())
    }

    /// The way out, shown beside the error.
    pub fn hint(self) -> &'static str {
        match self {
            Code::GatewayUnreachable => {
                "start the gateway with `pyoco-server up`, or name it with --server"
            }
            Code::BadInput => "see `loc` and `msg`, and docs/spec.md for the shape of the request",
            Code::NatsUnavailable => {
                "check that NATS runs at PYOCO_NATS_URL with JetStream on; the request may be repeated"
            }
            Code::OrphanRun => "the run may stay PENDING; submit it again",
            Code::RunNotFound => "list runs with `pyoco-client list`",
            Code::FlowNotFound => "start a worker that has the flow, or submit a flow.yaml",
            Code::ExecutionFailed => "see the task's error with `pyoco-client tasks <run_id>`",
            Code::TerminalNotStored => "the job is delivered again once NATS answers",
            Code::InProgressFailed => "the job is delivered again if this goes on past ack_wait",
            Code::SnapshotTooLarge => {
                "return less from tasks, or raise PYOCO_MAX_RUN_SNAPSHOT_BYTES (and the server's max_payload)"
            }
            Code::DlqFailed => "the run's snapshot is the truth; only the diagnostics are missing",
            Code::InvalidJob => "publish jobs through the gateway; the message is in the DLQ",
            Code::LoggingFailed => "check PYOCO_LOG_LEVEL and PYOCO_LOG_FORMAT",
            Code::ApiKeyMissing => {
                "send the key in the header X-API-Key (PYOCO_HTTP_API_KEY_HEADER of the gateway may name another); pyoco-client takes it from PYOCO_API_KEY"
            }
            Code::ApiKeyInvalid => {
                "check the key; `pyoco-server-admin api-key list` shows which are revoked or have expired, `create` makes a new one"
            }
            Code::WorkflowTooLarge => {
                "shorten the workflow, or raise PYOCO_WORKFLOW_YAML_MAX_BYTES"
            }
            Code::BadListQuery => "pass `next_cursor` of the page before, unchanged",
            Code::BadCommandLine => "see --help",
            Code::BadWorkersRequest => "see docs/spec.md for the filters",
            Code::WorkerNotFound => "list workers with `pyoco-client workers --scope all`",
            Code::CancelGraceExceeded => {
                "the task ignored its cancel token; check PYOCO_CANCEL_GRACE_PERIOD_SEC"
            }
            Code::WheelConflict => "raise the wheel's version and upload it again",
            Code::WheelNotFound => "list wheels with `pyoco-client wheels`",
            Code::WheelSyncFailed => "see `wheel_sync` in the worker's record",
            Code::CannotStart => {
                "`reason` says what is in the way: a port or worker id in use is freed by the program that has it, or choose another"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_contracts() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.number(), index + 1, "{code:?}");
        }
        assert_eq!(Code::CancelGraceExceeded.err_id(), "ERR-PYOCO-0021");
        assert_eq!(Code::WheelSyncFailed.msg_id(), "MSG-PYOCO-0024");
        assert_eq!(Code::CannotStart.err_id(), "ERR-PYOCO-0025");
    }
}
