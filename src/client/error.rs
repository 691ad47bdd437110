//! Why a call did not give an answer.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// A call that failed. Texts name the request, never the API key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's address cannot be used.
    #[error("cannot use the server {server:?}: {reason}")]
    BadServer {
        /// As it was given.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API key or the name of its header cannot be sent.
    #[error("cannot send the API key in the header {header:?}: {reason}")]
    BadApiKey {
        /// The header.
        header: String,
        /// What is wrong, without the key.
        reason: String,
    },
    /// No connection: no program listens, the name is unknown, or the network is down. The server
    /// has done nothing.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// The server.
        server: String,
        /// What the system says.
        reason: String,
    },
    /// No whole answer within the time of a call. The server may have done what was asked.
    #[error("{request}: no whole answer within {timeout:?}")]
    TimedOut {
        /// Method and path.
        request: String,
        /// The time of a call.
        timeout: Duration,
    },
    /// The connection broke, or what came is not HTTP. The server may have done what was asked.
    #[error("{request}: {reason}")]
    Broken {
        /// Method and path.
        request: String,
        /// What went wrong.
        reason: String,
    },
    /// The server answered with an error.
    #[error("HTTP {status} {request}: {body}")]
    Status {
        /// Method and path.
        request: String,
        /// 4xx or 5xx.
        status: u16,
        /// The body as text, cut to a readable length.
        body: String,
        /// `detail` of a JSON body: a text, or a list of problems.
        detail: Option<Box<Value>>,
        /// `err_id` of a JSON body (`docs/errors.md#by-number`); the Python gateway sends none.
        err_id: Option<String>,
        /// `hint` of a JSON body.
        hint: Option<String>,
    },
    /// A success whose body is not what the request asks for.
    #[error("{request}: cannot read the answer: {reason}")]
    BadReply {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is larger than the client reads.
    #[error("{request}: the answer is larger than {limit} bytes; ask for less with a filter")]
    ReplyTooLarge {
        /// Method and path.
        request: String,
        /// The bound.
        limit: u64,
    },
    /// A redirect to another server, or too many of them; not followed.
    #[error(
        "{request}: redirected to {location:?}, which is not followed; is that the server's address?"
    )]
    Redirected {
        /// Method and path.
        request: String,
        /// Where to.
        location: String,
    },
    /// A file that was to be sent cannot be read, or has changed while it was sent. The server has
    /// taken nothing of it.
    #[error("cannot send the file {}: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server says that it has stored other bytes than were sent.
    #[error("{request}: {name} was sent with the SHA-256 {sent} and stored with {stored}")]
    OtherHash {
        /// Method and path.
        request: String,
        /// The wheel.
        name: String,
        /// In hex.
        sent: String,
        /// In hex.
        stored: String,
    },
}
