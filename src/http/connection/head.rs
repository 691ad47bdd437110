//! Reads a request head and decides whether it may pass.
//!
//! Pure: bytes in, verdict out. Where the body ends is said in exactly one way, or the request is refused, so
//! that no two readers can disagree about it.

use std::ops::Range;
use std::sync::Arc;

use tiny_http::Method;

use super::proxies::FORWARDING;
use crate::http::error::{self, Refusal};
use crate::http::reply::{REQUEST_ID_HEADER, is_token};
use crate::model::limits::{MAX_HEADERS, MAX_REQUEST_ID_BYTES};

/// Most names that `Connection` may list; real clients list one to three.
const MAX_CONNECTION_NAMES: usize = 16;

/// Headers that speak about one connection; handlers do not see them.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Where the body of a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// After so many bytes; none is a length, too.
    Length(u64),
    Chunked,
}

/// A request head that may pass.
#[derive(Debug)]
pub struct Head {
    /// The head as it came; the rest says what stands where.
    bytes: Vec<u8>,
    method: Method,
    /// Empty for an absolute target without a path.
    path: Range<usize>,
    query: Option<Range<usize>>,
    /// The authority of an absolute target, else the value of `Host`.
    host: Option<Range<usize>>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    /// The client takes another answer on this connection.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0: it knows no chunks.
    pub is_http_1_0: bool,
    pub body: BodyEnd,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Taken over from the client, or made.
    pub request_id: Arc<str>,
}

/// A head that may not pass.
#[derive(Debug)]
pub struct Rejected {
    pub refusal: Refusal,
    /// The client's own id, where it could be read.
    pub request_id: Option<Arc<str>>,
    pub is_head: bool,
}

/// What the headers say about the message itself.
#[derive(Default)]
struct Framing<'a> {
    length: Option<u64>,
    codings: Vec<&'a [u8]>,
    hosts: Vec<&'a [u8]>,
    expects_continue: bool,
    connection: Vec<&'a [u8]>,
    request_ids: Vec<&'a [u8]>,
}

struct Target<'a> {
    path: &'a str,
    query: Option<&'a str>,
    authority: Option<&'a str>,
}

impl Head {
    /// Reads `bytes`, up to and with the empty line.
    pub fn read(bytes: &[u8]) -> Result<Head, Box<Rejected>> {
        let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut storage);
        let reject = |refusal, request_id, is_head| Rejected { refusal, request_id, is_head };
        parse(&mut request, bytes).map_err(|refusal| reject(refusal, None, false))?;
        let method = request.method.unwrap_or_default();
        let mut framing = Framing::default();
        let verdict = read_headers(request.headers, &mut framing)
            .and_then(|()| judge(&request, &framing))
            .and_then(|target| Ok((target, body_end(&request, &framing)?)));
        let request_id = match framing.request_ids[..] {
            [id] if is_request_id(id) => std::str::from_utf8(id).ok().map(Arc::from),
            _ => None,
        };
        let (target, body) = match verdict {
            Ok(verdict) => verdict,
            Err(refusal) => return Err(reject(refusal, request_id, method == "HEAD").into()),
        };
        let is_http_1_0 = request.version == Some(0);
        let named = |name: &[u8]| framing.connection.iter().any(|n| n.eq_ignore_ascii_case(name));
        let place = |part: &[u8]| {
            let start = part.as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + part.len()
        };
        let host = target.authority.map(str::as_bytes).or(framing.hosts.first().copied());
        let is_among = |names: &[&str], name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        // A client could otherwise hide what its proxy says of it: some proxies pass `Connection` on.
        let is_removed = |name: &str| named(name.as_bytes()) && !is_among(&FORWARDING, name);
        let is_for_handlers = |name: &str| !is_among(&HOP_BY_HOP, name) && !is_removed(name);
        let headers = request.headers.iter().filter(|header| is_for_handlers(header.name));
        Ok(Head {
            method: method.parse().unwrap_or(Method::Get),
            // An empty one may be our own, and stands nowhere in these bytes.
            path: if target.path.is_empty() { 0..0 } else { place(target.path.as_bytes()) },
            query: target.query.map(|query| place(query.as_bytes())),
            host: host.map(place),
            headers: headers.map(|h| (place(h.name.as_bytes()), place(trimmed(h.value)))).collect(),
            keep_alive: !named(b"close") && (!is_http_1_0 || named(b"keep-alive")),
            is_http_1_0,
            body,
            // An HTTP/1.0 client cannot read an interim answer.
            expects_continue: framing.expects_continue && !is_http_1_0 && body != BodyEnd::Length(0),
            request_id: request_id.unwrap_or_else(new_request_id),
            bytes: bytes.to_vec(),
        })
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as it was sent: percent-encoded, and without the query.
    pub fn path(&self) -> &str {
        match self.text(&self.path) {
            Some(path) if !path.is_empty() => path,
            _ => "/",
        }
    }

    /// What follows the first `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.text(self.query.as_ref()?)
    }

    /// The host and port that the client asked for.
    pub fn host(&self) -> Option<&str> {
        self.text(self.host.as_ref()?)
    }

    /// All headers that are for handlers, in order, names as they were sent.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
        let text = |name: &Range<usize>| self.text(name).unwrap_or_default();
        self.headers.iter().map(move |(name, value)| (text(name), &self.bytes[value.clone()]))
    }

    /// The values of all headers of that name, in order.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.headers().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn text(&self, place: &Range<usize>) -> Option<&str> {
        std::str::from_utf8(&self.bytes[place.clone()]).ok()
    }
}

/// Whether `bytes`, the beginning of a head, can still become a request; so that garbage is
/// answered at once and not when its deadline has passed.
pub fn check_beginning(bytes: &[u8]) -> Result<(), Refusal> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    httparse::Request::new(&mut storage).parse(bytes).map(drop).map_err(refusal_of)
}

/// An id for a request whose client gave none.
pub fn new_request_id() -> Arc<str> {
    uuid::Uuid::new_v4().simple().to_string().into()
}

/// 400, in these words.
pub fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal { condition: &error::MALFORMED, detail: Some(detail.into()) }
}

fn parse<'b>(request: &mut httparse::Request<'_, 'b>, head: &'b [u8]) -> Result<(), Refusal> {
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => Ok(()),
        Ok(_) => Err(malformed("malformed request: empty line inside the head")),
        Err(error) => Err(refusal_of(error)),
    }
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => (&error::HEAD_TOO_LARGE).into(),
        httparse::Error::Version => (&error::HTTP_VERSION).into(),
        other => malformed(format!("malformed request: {other}")),
    }
}

fn read_headers<'b>(headers: &[httparse::Header<'b>], framing: &mut Framing<'b>) -> Result<(), Refusal> {
    for header in headers {
        let is = |other: &str| header.name.eq_ignore_ascii_case(other);
        let value = trimmed(header.value);
        if is("content-length") {
            let length = content_length(value);
            let length = length.ok_or_else(|| malformed("content-length is not a number"))?;
            if framing.length.replace(length).is_some() {
                return Err(malformed("more than one content-length"));
            }
        } else if is("transfer-encoding") {
            framing.codings.push(value);
        } else if is("host") {
            if !is_host(value) {
                return Err(malformed("host is not a host name"));
            }
            framing.hosts.push(value);
        } else if is("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err((&error::EXPECTATION).into());
            }
            framing.expects_continue = true;
        } else if is("connection") {
            framing.connection.extend(value.split(|b| *b == b',').map(trimmed));
            if framing.connection.len() > MAX_CONNECTION_NAMES {
                return Err(malformed("connection names too many headers"));
            }
        } else if is(REQUEST_ID_HEADER) {
            framing.request_ids.push(value);
        }
    }
    Ok(())
}

/// Whether the request may pass, and what it asks for.
fn judge<'b>(request: &httparse::Request<'_, 'b>, framing: &Framing<'_>) -> Result<Target<'b>, Refusal> {
    if request.method == Some("CONNECT") {
        return Err((&error::NO_CONNECT).into());
    }
    let target = read_target(request.path.unwrap_or_default())?;
    let host_missing = framing.hosts.is_empty() && request.version != Some(0);
    if host_missing || framing.hosts.len() > 1 {
        return Err(malformed("exactly one host header is needed"));
    }
    Ok(target)
}

/// `/path?query`, or the same behind `http://host`, as clients of a proxy send it (RFC 9112, 3.2).
fn read_target(target: &str) -> Result<Target<'_>, Refusal> {
    let scheme = target
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme)));
    let (authority, rest) = match scheme {
        Some((_, rest)) => {
            let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if host.is_empty() || !is_host(host.as_bytes()) {
                return Err(malformed("the request target names no host"));
            }
            (Some(host), rest)
        }
        None if target.starts_with('/') => (None, target),
        None => return Err(malformed("the request target must start with a slash")),
    };
    if !rest.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(malformed("the request target must be percent-encoded"));
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    Ok(Target { path, query, authority })
}

/// Where the body ends: by one length, or by a lone `chunked` of HTTP/1.1. Both together, or any
/// other coding, is how requests are smuggled.
fn body_end(request: &httparse::Request<'_, '_>, framing: &Framing<'_>) -> Result<BodyEnd, Refusal> {
    match (&framing.codings[..], framing.length) {
        ([], length) => Ok(BodyEnd::Length(length.unwrap_or(0))),
        ([coding], None) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
            Ok(BodyEnd::Chunked)
        }
        _ => Err((&error::TRANSFER_CODING).into()),
    }
}

fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !is_space(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_space(b)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// Digits and nothing else: no sign, no space, no list; at most 64 bits.
fn content_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

fn is_host(value: &[u8]) -> bool {
    value.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(b))
}

/// Printable and of one piece, so that it can stand in a log line and in a header.
fn is_request_id(id: &[u8]) -> bool {
    id.len() <= MAX_REQUEST_ID_BYTES && std::str::from_utf8(id).is_ok_and(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Head, u16> {
        Head::read(head.as_bytes()).map_err(|rejected| rejected.refusal.condition.status)
    }

    fn with(headers: &str) -> Result<Head, u16> {
        read(&format!("POST /a?b HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }

    fn seen(head: &Head) -> Vec<String> {
        let show = |(name, value): (&str, &[u8])| format!("{name}={}", String::from_utf8_lossy(value));
        head.headers().map(show).collect()
    }

    #[test]
    fn handlers_see_what_is_meant_for_them() {
        let head = with(
            "X-A:  1 \r\nConnection: close, X-Gone\r\nX-Gone: 2\r\nUpgrade: h2c\r\n\
             X-Request-Id: abc-1\r\nContent-Length: 007\r\nX-Forwarded-User: \u{5c71}\u{7530}\r\n",
        )
        .unwrap();
        let headers = ["Host=h", "X-A=1", "X-Request-Id=abc-1", "X-Forwarded-User=山田"];
        assert_eq!(seen(&head), headers);
        assert_eq!((head.method().as_str(), head.path(), head.query()), ("POST", "/a", Some("b")));
        assert!(!head.keep_alive);
        assert_eq!(head.body, BodyEnd::Length(7));
        assert_eq!(&*head.request_id, "abc-1");
        assert!(with("X-Raw: \u{0}\r\n").is_err());
        let raw = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a\xff\r\n\r\n";
        assert_eq!(Head::read(raw).unwrap().values("cookie").next(), Some(&b"a\xff"[..]));
    }

    #[test]
    fn an_absolute_target_names_its_own_host() {
        for (target, expected) in [
            ("/x?a=b?c", "h /x a=b?c"),
            ("http://other:81/x", "other:81 /x -"),
            ("HTTP://other", "other / -"),
            ("https://other?q=http://z/", "other / q=http://z/"),
            ("/http://other/", "h /http://other/ -"),
        ] {
            let head = read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
            let query = head.query().unwrap_or("-");
            assert_eq!(format!("{} {} {query}", head.host().unwrap(), head.path()), expected);
        }
        for target in ["*", "x", "ftp://h/", "http:///x", "http://u@h/", "//\u{e9}", "/a#b"] {
            assert_eq!(
                read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap_err(),
                400,
                "{target}"
            );
        }
    }

    #[test]
    fn the_end_of_a_body_is_said_once() {
        assert_eq!(with("").unwrap().body, BodyEnd::Length(0));
        for chunked in ["Transfer-Encoding: chunked\r\n", "tRANSFER-eNCODING:\tChunked \r\n"] {
            assert_eq!(with(chunked).unwrap().body, BodyEnd::Chunked);
        }
        for (headers, status) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: 18446744073709551616\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 501),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: identity\r\n", 501),
            ("Transfer-Encoding:\r\n", 501),
            ("Transfer-Encoding: \u{5c71}\r\n", 501),
            ("Expect: something\r\n", 417),
            ("Host: i\r\n", 400),
            ("Host: \u{5c71}\r\n", 400),
            ("Transfer-Encoding : chunked\r\n", 400),
            ("X: 1\r\n folded\r\n", 400),
            (&"X: 1\r\n".repeat(64), 431),
        ] {
            assert_eq!(with(headers).unwrap_err(), status, "{headers}");
        }
        for (line, status) in [
            ("GET / HTTP/2.0", 505),
            ("GET / HTTP/0.9", 505),
            ("OPTIONS * HTTP/1.1", 400),
            ("GET /\u{e9} HTTP/1.1", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /", 400),
        ] {
            let head = format!("{line}\r\nHost: h\r\n\r\n");
            assert_eq!(read(&head).unwrap_err(), status, "{line}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old).unwrap_err(), 501);
    }

    #[test]
    fn versions_decide_what_is_kept_and_what_is_needed() {
        assert!(with("").unwrap().keep_alive);
        assert!(!with("Connection: Close\r\n").unwrap().keep_alive);
        assert!(!read("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(read("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n").unwrap_err(), 400);
        assert_eq!(read("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap_err(), 501);
        let waits = |head: &str| read(head).unwrap().expects_continue;
        let expect = "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n";
        assert!(waits(&format!("POST / HTTP/1.1\r\nHost: h\r\n{expect}")));
        assert!(!waits(&format!("POST / HTTP/1.0\r\nHost: h\r\n{expect}")));
        assert!(!with("Expect: 100-continue\r\n").unwrap().expects_continue);
        let many = "Connection: ".to_owned() + &"a,".repeat(MAX_CONNECTION_NAMES) + "b\r\n";
        assert_eq!(with(&many).unwrap_err(), 400);
    }

    #[test]
    fn a_request_id_that_cannot_stand_in_a_log_line_is_replaced() {
        for id in ["", "a b", "a\"b", "\u{5c71}", &"x".repeat(129)] {
            let head = with(&format!("X-Request-ID: {id}\r\n")).unwrap();
            assert_eq!(head.request_id.len(), 32, "{id}");
        }
        let head = with("X-Request-ID: a\r\nX-Request-ID: b\r\n").unwrap();
        assert_eq!(head.request_id.len(), 32);
    }
}
