//! One call: sent, redirected, read within its time and bound, and judged by its status.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::config::Config;
use ureq::http::request::Builder;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use ureq::{Agent, Body, Timeout};

use super::address::Address;
use super::{Client, Error};
use crate::model::json;
use crate::model::limits::MAX_ERROR_BYTES;
use crate::model::run::truncated;

/// The part of it in which a connection must be there; beyond it the gateway counts as unreachable.
const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects that the client follows; a gateway answers with one at most.
const CLIENT_MAX_REDIRECTS: usize = 3;
/// Largest answer that the client reads: 200 full snapshots of 256 KiB, and some air.
const CLIENT_MAX_REPLY_BYTES: u64 = 64 * 1024 * 1024;

/// A request before it is sent; the server and the API key are the client's.
pub struct Call {
    pub method: Method,
    /// From the server's base on, beginning with `/`, encoded.
    pub path: String,
    /// Names and values; encoded when it is sent.
    pub query: Vec<(&'static str, String)>,
    /// Beside the API key.
    pub headers: Vec<(&'static str, String)>,
    /// Content type and content.
    pub body: Option<(String, Vec<u8>)>,
}

impl Call {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Call { method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: None }
    }

    /// With a pair of the query, unless it is left out.
    pub fn with_query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub fn with_json(mut self, value: &Value) -> Self {
        self.body = Some(("application/json".to_owned(), value.to_string().into_bytes()));
        self
    }

    /// As messages show it; the query may hold user data and is left out.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// How all requests to that server are sent. Redirects are followed here and not by the library,
/// which would not repeat a body.
pub(super) fn config(address: &Address) -> Config {
    let proxy = if address.is_loopback { None } else { ureq::Proxy::try_from_env() };
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .user_agent(format!("pyoco-client/{}", crate::VERSION))
        .timeout_connect(Some(CLIENT_CONNECT_TIMEOUT))
        .build()
}

/// The header of the API key, marked so that no log shows its value.
pub fn api_key_header(header: &str, key: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let bad = |reason: &str| Error::BadApiKey { header: header.to_owned(), reason: reason.to_owned() };
    let name = HeaderName::from_bytes(header.as_bytes()).map_err(|_| bad("that is no name of a header"))?;
    let mut value =
        HeaderValue::from_str(key).map_err(|_| bad("the key has a character no header can hold"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl Client {
    pub(super) fn json(&self, call: &Call) -> Result<Value, Error> {
        let response = self.response(call)?;
        self.read_json(call, response)
    }

    pub(super) fn read_json(&self, call: &Call, response: Response<Body>) -> Result<Value, Error> {
        let bytes = self.read(call, response)?;
        json::from_wire(&bytes)
            .map_err(|error| Error::BadReply { request: call.name(), reason: error.to_string() })
    }

    /// Sends `call` and reads whatever a success brings.
    pub(super) fn bytes(&self, call: &Call) -> Result<Vec<u8>, Error> {
        let response = self.response(call)?;
        self.read(call, response)
    }

    /// Sends `call`, follows redirects, and gives the answer of a success, whose body is not read yet.
    pub(super) fn response(&self, call: &Call) -> Result<Response<Body>, Error> {
        let end = Instant::now() + self.timeout;
        self.followed(call, |url| self.send(call, url, end))
    }

    /// Lets `send` send `call` to its address, and again to where it is redirected; gives the answer of
    /// a success, whose body is not read yet.
    pub(super) fn followed(
        &self,
        call: &Call,
        mut send: impl FnMut(&str) -> Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, Error> {
        let mut url = self.url(call);
        for _ in 0..=CLIENT_MAX_REDIRECTS {
            let response = send(&url)?;
            let status = response.status();
            if !status.is_redirection() {
                if status.is_success() {
                    return Ok(response);
                }
                let body = self.read(call, response)?;
                return Err(refusal(call.name(), status.as_u16(), &body));
            }
            let location = response.headers().get(header::LOCATION);
            let location = location.and_then(|l| l.to_str().ok()).unwrap_or_default().to_owned();
            // 307 and 308 repeat the request as it is; the others may do so when it has no body.
            let repeats = matches!(status.as_u16(), 307 | 308) || call.method == Method::GET;
            url = match self.address.redirected(&location) {
                Some(next) if repeats => next,
                _ => return Err(Error::Redirected { request: call.name(), location }),
            };
        }
        Err(Error::Redirected { request: call.name(), location: url })
    }

    fn url(&self, call: &Call) -> String {
        let mut url = format!("{}{}", self.address.base, call.path);
        if !call.query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&call.query).finish();
            url.push('?');
            url.push_str(&query);
        }
        url
    }

    pub(super) fn head(&self, call: &Call, url: &str) -> Builder {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        if let Some((name, value)) = &self.api_key {
            request = request.header(name, value);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        request
    }

    fn send(&self, call: &Call, url: &str, end: Instant) -> Result<Response<Body>, Error> {
        let request = self.head(call, url);
        let left = end.saturating_duration_since(Instant::now());
        let sent = match &call.body {
            Some((content_type, body)) => {
                let request = request.header(header::CONTENT_TYPE, content_type);
                self.run(request.body(body.as_slice()), left)
            }
            // A POST without a body says so with a length of 0; ureq would send an empty chunked one,
            // which the gateway refuses.
            None if call.method == Method::POST => self.run(request.body([].as_slice()), left),
            None => self.run(request.body(()), left),
        };
        sent.map_err(|error| self.failure(call.name(), error))
    }

    fn run(
        &self,
        request: Result<Request<impl ureq::AsSendBody>, ureq::http::Error>,
        left: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request?).timeout_global(Some(left)).build();
        self.agent.run(request)
    }

    fn read(&self, call: &Call, response: Response<Body>) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        // Our own bound, because it counts what is left after decompression.
        let mut reader = response.into_body().into_reader().take(CLIENT_MAX_REPLY_BYTES + 1);
        reader.read_to_end(&mut body).map_err(|error| self.failure(call.name(), error.into()))?;
        if body.len() as u64 > CLIENT_MAX_REPLY_BYTES {
            return Err(Error::ReplyTooLarge { request: call.name(), limit: CLIENT_MAX_REPLY_BYTES });
        }
        Ok(body)
    }

    pub(super) fn failure(&self, request: String, error: ureq::Error) -> Error {
        let unreachable =
            |reason: String| Error::Unreachable { server: self.address.base.to_owned(), reason };
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                unreachable(format!("no connection within {CLIENT_CONNECT_TIMEOUT:?}"))
            }
            ureq::Error::Timeout(_) => Error::TimedOut { request, timeout: self.timeout },
            ureq::Error::HostNotFound => unreachable("the name of the host is unknown".to_owned()),
            ureq::Error::ConnectionFailed => unreachable("no connection".to_owned()),
            ureq::Error::Io(io) => match io.kind() {
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable => unreachable(io.to_string()),
                ErrorKind::TimedOut => Error::TimedOut { request, timeout: self.timeout },
                _ => Error::Broken { request, reason: io.to_string() },
            },
            other => Error::Broken { request, reason: other.to_string() },
        }
    }
}

/// The error that an answer with a bad status stands for.
fn refusal(request: String, status: u16, body: &[u8]) -> Error {
    let json: Value = json::from_wire(body).unwrap_or(Value::Null);
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    Error::Status {
        request,
        status,
        body: truncated(String::from_utf8_lossy(body).trim().to_owned(), MAX_ERROR_BYTES),
        detail: json.get("detail").cloned().map(Box::new),
        err_id: text("err_id"),
        hint: text("hint"),
    }
}
