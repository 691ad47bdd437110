//! The catalogue of errors by number (`docs/errors.md#by-number`).

/// Makes the enum, the list of its variants and the hints from one table.
macro_rules! catalogue {
    ($($(#[doc = $meaning:literal])* $name:ident: $hint:literal,)*) => {
        /// A numbered error; `ERR-PYOCO-nnnn` names what happened, `MSG-PYOCO-nnnn` its message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $meaning])* $name,)*
        }

        impl Code {
            /// All codes, by number.
            pub const ALL: [Code; [$(stringify!($name)),*].len()] = [$(Code::$name),*];

            /// The way out, shown beside the error.
            pub fn hint(self) -> &'static str {
                match self {
                    $(Code::$name => $hint,)*
                }
            }
        }
    };
}

// Numbers follow the order, from 1: a new one goes to the end, and no line ever moves.
catalogue! {
    /// A client cannot reach the gateway.
    GatewayUnreachable: "start the gateway with `pyoco-server up`, or name it with --server",
    /// A request is not acceptable (422, 413).
    BadInput: "see `loc` and `msg`, and docs/spec.md for the shape of the request",
    /// NATS does not answer (503).
    NatsUnavailable: "check that NATS runs at PYOCO_NATS_URL with JetStream on; the request may be repeated",
    /// A snapshot may remain whose job was not queued.
    OrphanRun: "the run may stay PENDING; submit it again",
    /// No such run (404).
    RunNotFound: "list runs with `pyoco-client list`",
    /// No such flow on this worker.
    FlowNotFound: "start a worker that has the flow, or submit a flow.yaml",
    /// The flow raised an error.
    ExecutionFailed: "see the task's error with `pyoco-client tasks <run_id>`",
    /// The terminal snapshot could not be stored; the job is given back.
    TerminalNotStored: "the job is delivered again once NATS answers",
    /// An in-progress ACK could not be sent.
    InProgressFailed: "the job is delivered again if this goes on past ack_wait",
    /// A snapshot was too large and lost its records.
    SnapshotTooLarge:
        "return less from tasks, or raise PYOCO_MAX_RUN_SNAPSHOT_BYTES (and the server's max_payload)",
    /// A DLQ entry could not be published.
    DlqFailed: "the run's snapshot is the truth; only the diagnostics are missing",
    /// A message that is no job.
    InvalidJob: "publish jobs through the gateway; the message is in the DLQ",
    LoggingFailed: "check PYOCO_LOG_LEVEL and PYOCO_LOG_FORMAT",
    /// API key missing (401).
    ApiKeyMissing:
        "send the key in the header X-API-Key (PYOCO_HTTP_API_KEY_HEADER of the gateway may name another); \
         pyoco-client takes it from PYOCO_API_KEY",
    /// API key malformed, unknown, wrong or revoked (403).
    ApiKeyInvalid:
        "check the key; `pyoco-server-admin api-key list` shows which are revoked or have expired, \
         `create` makes a new one",
    /// The uploaded workflow is too large (413).
    WorkflowTooLarge: "shorten the workflow, or raise PYOCO_WORKFLOW_YAML_MAX_BYTES",
    /// A list query that cannot be read (422).
    BadListQuery: "pass `next_cursor` of the page before, unchanged",
    /// A command line that cannot be read.
    BadCommandLine: "see --help",
    /// A workers request that cannot be read (422).
    BadWorkersRequest: "see docs/spec.md for the filters",
    /// No such worker (404).
    WorkerNotFound: "list workers with `pyoco-client workers --scope all`",
    /// A cancelled run did not end within its grace period.
    CancelGraceExceeded: "the task ignored its cancel token; check PYOCO_CANCEL_GRACE_PERIOD_SEC",
    /// A wheel of that version or a newer one exists (409).
    WheelConflict: "raise the wheel's version and upload it again",
    /// No such wheel (404).
    WheelNotFound: "list wheels with `pyoco-client wheels`",
    /// Wheels could not be synchronised.
    WheelSyncFailed: "see `wheel_sync` in the worker's record",
    /// A program that was understood could not start, or had to end.
    CannotStart:
        "`reason` says what is in the way: a port or worker id in use is freed by \
         the program that has it, or choose another",
}

impl Code {
    pub fn number(self) -> usize {
        self as usize + 1
    }

    pub fn err_id(self) -> String {
        format!("ERR-PYOCO-{:04}", self.number())
    }

    pub fn msg_id(self) -> String {
        format!("MSG-PYOCO-{:04}", self.number())
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
