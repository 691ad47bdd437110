//! A request as handlers see it.

use super::body::{Body, BodyError, BodyReader, Settled};
use super::caller::Caller;
use crate::http::edge::{BodyRule, PEER_HEADER, REQUEST_ID_HEADER, new_request_id};
use crate::model::limits::MAX_REQUEST_ID_BYTES;

/// A request whose head has been read and checked. In front of a handler there is either the edge,
/// which lets only whole and bounded requests through, or a reverse proxy that does the same. Only
/// an upload is not whole yet: see [`Request::body_reader`].
pub struct Request {
    inner: tiny_http::Request,
    request_id: String,
    peer: String,
    body: Body,
    caller: Caller,
    object: Option<String>,
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
            body: Body::new(),
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

    /// The whole body; the same bytes each time. Of a body that is streamed, only a small one.
    ///
    /// # Errors
    /// See [`BodyError`]; the same each time.
    pub fn body(&mut self) -> Result<&[u8], BodyError> {
        self.body.whole(&mut self.inner)
    }

    /// The body while it arrives, for a route whose rule is [`BodyRule::Streamed`]; any other body
    /// is read from memory. See [`BodyReader`] for what its end means.
    pub fn body_reader(&mut self) -> BodyReader<'_> {
        self.body.reader(&mut self.inner)
    }

    /// Of a streamed body, the bytes that are still to come: before the first was read the whole
    /// length, as it was announced and found to be within the route's limit.
    pub fn body_left(&self) -> u64 {
        self.body.left()
    }

    pub(super) fn settle_body(&mut self, rule: BodyRule, behind_proxy: bool) -> Settled {
        self.body.settle(&mut self.inner, rule, behind_proxy)
    }

    pub(super) fn drain_body(&mut self) {
        self.body.drain(&mut self.inner);
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        *self.inner.http_version() < (1, 1)
    }

    pub(super) fn into_inner(self) -> tiny_http::Request {
        self.inner
    }
}

pub(super) fn find_header<'r>(request: &'r tiny_http::Request, name: &str) -> Option<&'r str> {
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
