//! A request as handlers see it.

use std::io::Read;

use tiny_http::Method;

use super::connection::body::Body;
use super::connection::head::Head;
use super::connection::proxies::Origin;

/// A request whose head has been read and checked, and whose body is whole and bounded; only that of an
/// upload is read by its handler (see [`Request::body_reader`]).
pub struct Request {
    head: Head,
    origin: Origin,
    body: Body,
}

impl Request {
    pub(super) fn new(head: Head, origin: Origin, body: Body) -> Request {
        Request { head, origin, body }
    }

    pub(super) fn into_parts(self) -> (Head, Origin, Body) {
        (self.head, self.origin, self.body)
    }

    pub fn method(&self) -> &Method {
        self.head.method()
    }

    /// The path as it was sent: percent-encoded, and without the query.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// What follows the first `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.head.query()
    }

    /// The first header of that name, in any case; `None` for one that is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all headers of that name, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.head.values(name)
    }

    /// All headers that are for handlers, in order, names as they were sent; values may be any bytes.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.head.headers()
    }

    /// The client's address without its port; behind a trusted proxy the one that it names.
    pub fn peer(&self) -> &str {
        &self.origin.peer
    }

    /// `http`, or `https` where a trusted proxy says so.
    pub fn scheme(&self) -> &str {
        self.origin.scheme
    }

    /// The host and port that the client asked for; behind a trusted proxy, of the proxy.
    pub fn host(&self) -> Option<&str> {
        self.origin.host.as_deref().or(self.head.host())
    }

    /// Names this request in log lines and in its answer.
    pub fn request_id(&self) -> &str {
        &self.head.request_id
    }

    /// The whole body; empty for an upload.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Whole { bytes, .. } => bytes,
            Body::Arriving(_) => &[],
        }
    }

    /// The body while it arrives. It ends (reads zero bytes) when all of it has come, in the one way that
    /// its head announced; anything else is an error, now and each time after. Nothing that was read
    /// may be acted on until the end has been seen.
    pub fn body_reader(&mut self) -> &mut (impl Read + use<>) {
        &mut self.body
    }
}
