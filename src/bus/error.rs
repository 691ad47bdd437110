//! What can go wrong between us and NATS.

use std::time::Duration;

/// JetStream's `err_code`s that we act on; the numbers are the server's.
mod code {
    /// `wrong last sequence: n`.
    pub const WRONG_LAST_SEQUENCE: u64 = 10071;
    /// `wrong last sequence` without the number, from clustered streams.
    pub const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
    pub const STREAM_NOT_FOUND: u64 = 10059;
    pub const CONSUMER_NOT_FOUND: u64 = 10014;
    pub const STREAM_EXISTS_WITH_OTHER_CONFIG: u64 = 10058;
    pub const CONSUMER_EXISTS: u64 = 10148;
    /// Another stream has the subjects.
    pub const SUBJECTS_OVERLAP: u64 = 10065;
    pub const NO_MESSAGE_FOUND: u64 = 10037;
    /// A delete of what is not there: `no message found` and `sequence not found`.
    pub const DELETE_FAILED: u64 = 10057;
    pub const SEQUENCE_NOT_FOUND: u64 = 10043;
    /// A stream that takes no more; somebody has to make room first.
    pub const FULL: [u64; 2] = [10077, 10109];
    /// No room: the stream's own bound, the account's, the server's.
    pub const NO_ROOM: [u64; 5] = [10077, 10109, 10002, 10028, 10047];
    /// No leader, overload and the like: the same request may succeed in a moment.
    pub const TRANSIENT: [u64; 7] = [10158, 10163, 10167, 10118, 10194, 10008, 10023];
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No answer came in time. The request may or may not have been carried out.
    #[error("no answer from NATS to `{subject}` within {after:?}")]
    Timeout { subject: String, after: Duration },
    #[error("not connected to NATS")]
    Disconnected,
    /// Nobody serves the subject: no such stream, or JetStream is off.
    #[error("no responders for `{0}`; is JetStream on?")]
    NoResponders(String),
    #[error("JetStream refused: {description} (code {code}, err_code {err_code})")]
    Api { code: u64, err_code: u64, description: String },
    #[error("somebody else has changed `{0}`")]
    Conflict(String),
    #[error("message of {size} bytes is larger than the server's max_payload of {limit}")]
    TooLarge { size: usize, limit: usize },
    /// A key, subject or header value that must not reach the wire.
    #[error("`{0}` cannot be part of a NATS subject or header")]
    BadName(String),
    #[error("unreadable answer from JetStream: {0}")]
    BadAnswer(String),
    #[error("cannot write as JSON: {0}")]
    Encode(String),
    /// The bytes of an object are not those that its meta describes.
    #[error("object `{object}` cannot be read as it was stored: {problem}")]
    Damaged { object: String, problem: String },
    #[error("cannot pass on the bytes of object `{object}`: {problem}")]
    Sink { object: String, problem: String },
    #[error("stopped reading object `{0}`")]
    Stopped(String),
    /// An upload has paused for so long that its bytes may be taken for what a crash has left.
    #[error("the upload of `{0}` was at rest for too long")]
    Stalled(String),
    #[error("nats-server {found} is too old for this; install version {needed} or a later one")]
    OldServer { found: String, needed: String },
    /// A stream or consumer has a name of ours and is not ours: whoever used it would take the jobs of
    /// others.
    #[error(
        "{0}: it belongs to another installation, or was made by hand; set PYOCO_NAMESPACE to give this \
         installation names of its own, or make its settings those of the other one"
    )]
    Foreign(String),
    #[error("consumer `{consumer}` refuses every pull: {reason}; delete it, and it is made anew")]
    NotPullable { consumer: String, reason: String },
    /// The settings cannot be used, or the process is out of threads.
    #[error("cannot set up the connection to NATS: {0}")]
    Setup(String),
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Encode(error.to_string())
    }
}

impl Error {
    /// Whether a write that ended so may have been carried out.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::Timeout { .. } | Error::Disconnected | Error::BadAnswer(_))
    }

    /// Whether the same request may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Timeout { .. } | Error::Disconnected | Error::NoResponders(_) => true,
            Error::Api { code, err_code, .. } => {
                code::TRANSIENT.contains(err_code) || (*code == 503 && !code::FULL.contains(err_code))
            }
            _ => false,
        }
    }

    /// Whether it is worth repeating what can be repeated: it may pass, or may have been carried out.
    pub fn may_pass(&self) -> bool {
        self.is_transient() || self.is_outcome_unknown()
    }

    /// Whether no repeat helps whoever pulls before an operator has changed something.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Foreign(_) | Error::NotPullable { .. })
    }

    pub fn is_store_full(&self) -> bool {
        matches!(self, Error::Api { err_code, .. } if code::NO_ROOM.contains(err_code))
    }

    pub(crate) fn is_missing_stream(&self) -> bool {
        match self {
            Error::NoResponders(_) => true,
            Error::Api { err_code, .. } => *err_code == code::STREAM_NOT_FOUND,
            _ => false,
        }
    }

    pub(crate) fn is_missing_consumer(&self) -> bool {
        self.has_code(code::CONSUMER_NOT_FOUND)
    }

    pub(crate) fn is_existing(&self) -> bool {
        self.has_code(code::STREAM_EXISTS_WITH_OTHER_CONFIG) || self.has_code(code::CONSUMER_EXISTS)
    }

    pub(crate) fn is_overlap(&self) -> bool {
        self.has_code(code::SUBJECTS_OVERLAP)
    }

    pub(crate) fn is_no_message(&self) -> bool {
        matches!(self, Error::Api { code: 404, err_code: 0, .. })
            || [code::NO_MESSAGE_FOUND, code::DELETE_FAILED, code::SEQUENCE_NOT_FOUND]
                .iter()
                .any(|code| self.has_code(*code))
    }

    pub(crate) fn is_wrong_sequence(&self) -> bool {
        self.has_code(code::WRONG_LAST_SEQUENCE) || self.has_code(code::WRONG_LAST_SEQUENCE_CONSTANT)
    }

    fn has_code(&self, wanted: u64) -> bool {
        matches!(self, Error::Api { err_code, .. } if *err_code == wanted)
    }
}
