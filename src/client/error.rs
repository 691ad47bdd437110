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
        /// The header's name as it was configured.
        header: String,
        /// What is wrong, without the key.
        reason: String,
    },
    /// No connection: no program listens, the name is unknown, or the network is down. The server
    /// has done nothing.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// The server's address as it was given, without its trailing slash.
        server: String,
        /// What the system says.
        reason: String,
    },
    /// No whole answer within the time of a call. The server may have done what was asked.
    #[error("{request}: no whole answer within {timeout:?}")]
    TimedOut {
        /// The request: its method and its path without the query.
        request: String,
        /// The time of a call.
        timeout: Duration,
    },
    /// The connection broke, or what came is not HTTP. The server may have done what was asked.
    #[error("{request}: {reason}")]
    Broken {
        /// The request: its method and its path without the query.
        request: String,
        /// What the connection, or the reader of its bytes, has said.
        reason: String,
    },
    /// The server answered with an error.
    #[error("HTTP {status} {request}: {body}")]
    Status {
        /// The request: its method and its path without the query.
        request: String,
        /// The HTTP status, from 400 on.
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
        /// The request: its method and its path without the query.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is larger than the client reads.
    #[error("{request}: the answer is larger than {limit} bytes; ask for less with a filter")]
    ReplyTooLarge {
        /// The request: its method and its path without the query.
        request: String,
        /// What the client reads of an answer, in bytes.
        limit: u64,
    },
    /// A redirect to another server, or too many of them; not followed.
    #[error("{request}: redirected to {location:?}, which is not followed; is that the server's address?")]
    Redirected {
        /// The request: its method and its path without the query.
        request: String,
        /// The address that the server named.
        location: String,
    },
    /// A file that was to be sent cannot be read, or has changed while it was sent. The server has
    /// taken nothing of it.
    #[error("cannot send the file {}: {reason}", path.display())]
    BadFile {
        /// The file on this machine.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server says that it has stored other bytes than were sent.
    #[error("{request}: {name} was sent with the SHA-256 {sent} and stored with {stored}")]
    OtherHash {
        /// The request: its method and its path without the query.
        request: String,
        /// Name of the wheel in the registry.
        name: String,
        /// SHA-256 of the bytes that were sent, in hex.
        sent: String,
        /// SHA-256 that the registry has for it, in hex.
        stored: String,
    },
}
