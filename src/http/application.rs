//! What this floor asks of whoever answers requests, and what it tells of each answer.

use std::time::Duration;

use tiny_http::Method;

use super::error::Condition;
use super::reply::Reply;
use super::request::Request;

/// Answers requests. One value serves all connections at once.
pub trait Application: Send + Sync + 'static {
    /// What was found out of a request from its method and path, once, and is carried along with it.
    type Target: Send;

    /// Looks up who answers. `path` and `query` are as they were sent, percent-encoded.
    fn find(&self, method: &Method, path: &str, query: Option<&str>) -> (Self::Target, Conduct);

    /// Answers one request; a panic becomes a 500.
    fn answer(&self, request: &mut Request, target: &Self::Target) -> Reply;

    /// Hears of each answer after it was written, on the thread that wrote it.
    fn answered(&self, access: &Access<'_>, target: &Self::Target) {
        let _ = (access, target);
    }

    /// Hears the status of each refusal that this floor gave by itself.
    fn refused(&self, status: u16) {
        let _ = status;
    }
}

/// How a request is treated before and while it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Conduct {
    /// What it holds while it is answered.
    pub transfer: Transfer,
    pub max_body: u64,
    pub too_large: &'static Condition,
}

/// What a request holds while it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Nothing: the handler looks at memory alone. For probes, which must not wait.
    Immediate,
    /// A permit, once its body is there and until its answer is made.
    Whole,
    /// A place for uploads: the handler reads the body while it arrives.
    Upload,
    /// A place for streams: the handler or its answer takes as long as the client or NATS does.
    Stream,
}

/// A request that has been answered, for logs and metrics.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    pub request_id: &'a str,
    /// In capitals; whatever the client made up otherwise.
    pub method: &'a str,
    pub path: &'a str,
    pub peer: &'a str,
    pub status: u16,
    /// From the call of the handler to the end of the answer.
    pub duration: Duration,
    pub bytes: u64,
    /// The whole answer was handed to the system; else the client was gone or the handler failed midway.
    pub complete: bool,
}
