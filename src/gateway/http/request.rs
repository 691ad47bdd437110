//! A request as handlers see it.

use std::io::{ErrorKind, Read};

use crate::gateway::auth::Caller;
use crate::gateway::edge::{PEER_HEADER, REQUEST_ID_HEADER, new_request_id};
use crate::model::limits::{MAX_BUFFERED_BYTES, MAX_REQUEST_ID_BYTES};

/// What is read and thrown away of a body that a proxy should not have let through.
const MAX_DRAINED_BYTES: u64 = MAX_BUFFERED_BYTES as u64;

/// A request whose head has been read and checked. In front of a handler there is either the edge,
/// which lets only whole and bounded requests through, or a reverse proxy that does the same.
pub struct Request {
    inner: tiny_http::Request,
    request_id: String,
    peer: String,
    body_limit: u64,
    body: Body,
    caller: Caller,
    object: Option<String>,
}

/// Why a request has no body to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than its route takes (413).
    #[error("request body too large")]
    TooLarge,
    /// It ended before its announced length, or could not be read (400); never act on it.
    #[error("request body ended early")]
    Incomplete,
}

enum Body {
    Unread,
    Read(Vec<u8>),
    Failed(BodyError),
}

impl Request {
    /// `behind_proxy`: the nearest address in `X-Forwarded-For` is the peer, and its sender the
    /// proxy; else the edge has set a header that no client can set.
    pub(super) fn new(inner: tiny_http::Request, behind_proxy: bool) -> Request {
        let find = |name: &str| find_header(&inner, name);
        let peer =
            if behind_proxy { forwarded_for(&inner) } else { find(PEER_HEADER).map(str::to_owned) };
        // The edge has judged the id; a proxy passes on what clients send.
        let request_id = find(REQUEST_ID_HEADER)
            .filter(|id| id.len() <= MAX_REQUEST_ID_BYTES && !id.is_empty())
            .filter(|id| id.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'))
            .map_or_else(new_request_id, str::to_owned);
        Request {
            request_id,
            peer: peer.unwrap_or_default(),
            body_limit: u64::MAX,
            body: Body::Unread,
            caller: Caller::Nobody,
            object: None,
            inner,
        }
    }

    /// `GET`, `POST` and so on, in capitals; whatever the client made up otherwise.
    pub fn method(&self) -> &str {
        self.inner.method().as_str()
    }

    /// The path as it was sent: percent-encoded, and without the query.
    pub fn path(&self) -> &str {
        self.inner.url().split('?').next().unwrap_or_default()
    }

    /// What follows the first `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.inner.url().split_once('?').map(|(_, query)| query)
    }

    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.inner, name)
    }

    /// All headers, in order, names as they were sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.inner.headers().iter();
        headers.map(|header| (header.field.as_str().as_str(), header.value.as_str()))
    }

    /// The client's address without its port; empty when nobody knows it.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Who has sent it; nobody until that was found out.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Says who has sent it.
    pub fn set_caller(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// What it was about, if that is not in its path.
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// Says what it is about: the run that it has submitted.
    pub fn set_object(&mut self, object: &str) {
        self.object = Some(object.to_owned());
    }

    /// Names this request in log lines and in its answer.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The whole body; the same bytes each time.
    ///
    /// # Errors
    /// See [`BodyError`]; the same each time.
    // A route that streams its upload will get `body_reader(&mut self) -> impl Read` beside this,
    // and its own `BodyRule` at the edge.
    pub fn body(&mut self) -> Result<&[u8], BodyError> {
        if matches!(self.body, Body::Unread) {
            self.body = self.read_body();
        }
        match &self.body {
            Body::Read(bytes) => Ok(bytes),
            Body::Failed(error) => Err(*error),
            Body::Unread => Err(BodyError::Incomplete),
        }
    }

    pub(super) fn limit_body(&mut self, limit: u64) {
        self.body_limit = limit;
    }

    /// Without an edge in front: makes sure that nothing of the body is left on the connection when
    /// tiny_http looks there for the next request. `false` when that cannot be had; then the
    /// connection must not be used again, nor the request be dropped.
    pub(super) fn settle_body(&mut self) -> bool {
        let header = |name: &str| find_header(&self.inner, name);
        if header("Connection").is_some_and(|v| v.to_ascii_lowercase().contains("upgrade")) {
            // tiny_http takes the rest of the connection for the body, and no further request.
            self.body = Body::Read(Vec::new());
            return true;
        }
        let in_chunks = header("Transfer-Encoding").is_some();
        let announced = self.inner.body_length().map(|length| length as u64);
        if !in_chunks && announced.is_none_or(|length| length <= self.body_limit) {
            // tiny_http itself skips what a handler leaves unread of this.
            return true;
        }
        if announced.is_some_and(|length| length > MAX_DRAINED_BYTES) {
            return false;
        }
        let mut bytes = Vec::new();
        let mut piece = [0; 8 * 1024];
        let mut total = 0;
        while total <= MAX_DRAINED_BYTES {
            match self.inner.as_reader().read(&mut piece) {
                Ok(0) if announced.is_none_or(|length| length == total) => {
                    self.body = if total > self.body_limit {
                        Body::Failed(BodyError::TooLarge)
                    } else {
                        Body::Read(bytes)
                    };
                    return true;
                }
                Ok(0) => return false,
                Ok(count) => {
                    total += count as u64;
                    if total <= self.body_limit {
                        bytes.extend_from_slice(&piece[..count]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Whether the body is known to be longer than its route takes.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.body, Body::Failed(BodyError::TooLarge))
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        *self.inner.http_version() < (1, 1)
    }

    pub(super) fn into_inner(self) -> tiny_http::Request {
        self.inner
    }

    fn read_body(&mut self) -> Body {
        let announced = self.inner.body_length();
        let mut bytes = Vec::new();
        // One byte more than is taken tells a body in chunks that is too long from one that fits.
        let limit = self.body_limit.saturating_add(1);
        match self.inner.as_reader().take(limit).read_to_end(&mut bytes) {
            Err(_) => Body::Failed(BodyError::Incomplete),
            Ok(_) if bytes.len() as u64 > self.body_limit => Body::Failed(BodyError::TooLarge),
            // tiny_http takes the end of a connection for the end of a body.
            Ok(_) if announced.is_some_and(|length| length != bytes.len()) => {
                Body::Failed(BodyError::Incomplete)
            }
            Ok(_) => Body::Read(bytes),
        }
    }
}

fn find_header<'r>(request: &'r tiny_http::Request, name: &str) -> Option<&'r str> {
    let mut headers = request.headers().iter();
    headers
        .find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name))
        .map(|header| header.value.as_str())
}

/// The last entry of `X-Forwarded-For`: the one that the proxy itself has added. Entries before it
/// are what the client claims. Without the header, the proxy's own address.
fn forwarded_for(request: &tiny_http::Request) -> Option<String> {
    let mut headers = request.headers().iter().rev();
    headers
        .find(|header| header.field.equiv("X-Forwarded-For"))
        .and_then(|header| header.value.as_str().rsplit(',').next())
        .map(|last| last.trim().to_owned())
        .filter(|last| !last.is_empty())
        .or_else(|| request.remote_addr().map(|address| address.ip().to_canonical().to_string()))
}
