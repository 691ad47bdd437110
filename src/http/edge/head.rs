//! Decides whether a request head may pass, and writes the head that is passed on in its place.
//!
//! Pure: bytes in, verdict out. A head is never forwarded as it came; the one written here has one
//! way to be read, so no two readers can disagree about where the request ends.

use std::sync::Arc;

use super::refusal::Refusal;
use crate::model::limits::{MAX_HEADERS, MAX_REQUEST_ID_BYTES};

/// Carries the client's address to the handler. Only the edge can set it.
pub const PEER_HEADER: &str = "X-Pyoco-Peer";
/// Announces a streamed body to the handler: how many bytes will come. Only the edge can set it.
pub const BODY_HEADER: &str = "X-Pyoco-Body";
/// Names a request in logs and answers.
pub const REQUEST_ID_HEADER: &str = "X-Request-ID";

/// Most names that `Connection` may list; real clients list one to three.
const MAX_CONNECTION_NAMES: usize = 16;

/// How the body of a request to some route is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// Read as a whole, up to so many bytes, before a handler is occupied with it.
    Whole {
        /// Largest acceptable `Content-Length`; above it the answer is 413.
        limit: u64,
    },
    /// Passed on while it arrives: the handler begins before the body has ended, and learns at its
    /// end whether all of it has come.
    Streamed {
        /// Largest acceptable `Content-Length`; above it the answer is 413.
        limit: u64,
        /// What that answer says.
        too_large: &'static str,
    },
}

/// The rule for a method and a raw path (without the query).
pub type BodyRules = Arc<dyn Fn(&str, &str) -> BodyRule + Send + Sync>;

/// A request head that may pass.
#[derive(Debug)]
pub struct Admitted {
    /// The client takes another answer on this connection.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0: it knows no chunks.
    pub version_1_0: bool,
    /// Bytes of body that follow the head.
    pub body_length: u64,
    /// The body is passed on while it arrives; there is one.
    pub streamed: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// HEAD: the answer has no body, whatever its head says.
    pub head_only: bool,
    /// GET or HEAD: asking twice does no harm.
    pub repeatable: bool,
    /// Taken over from the client, or made.
    pub request_id: String,
}

/// A head that may not pass.
#[derive(Debug)]
pub struct Rejected {
    pub refusal: Refusal,
    /// The client's own id, where it could be read.
    pub request_id: Option<String>,
    /// The client sent HEAD.
    pub head_only: bool,
}

/// What the headers say about the message itself.
#[derive(Default)]
struct Framing<'a> {
    content_length: Option<u64>,
    hosts: usize,
    expects_continue: bool,
    connection: Vec<&'a str>,
    request_ids: Vec<&'a str>,
}

/// Reads `head` (up to and with its empty line) and writes the head to pass on into `forward`.
///
/// # Errors
/// The refusal to answer with, when the head may not pass.
pub fn admit(
    head: &[u8],
    peer: &str,
    rules: &BodyRules,
    forward: &mut Vec<u8>,
) -> Result<Admitted, Box<Rejected>> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut storage);
    match parse(&mut request, head) {
        Ok(()) => {}
        Err(refusal) => return Err(rejected(refusal, None, false)),
    }
    let method = request.method.unwrap_or_default();
    let head_only = method == "HEAD";
    let mut framing = Framing::default();
    let verdict =
        read_headers(request.headers, &mut framing).and_then(|()| judge(&request, &framing, rules));
    // An HTTP/1.0 client cannot read an interim answer.
    framing.expects_continue &= request.version != Some(0) && framing.content_length > Some(0);
    let request_id = match framing.request_ids[..] {
        [id] if is_request_id(id) => Some(id.to_owned()),
        _ => None,
    };
    let streamed = match verdict {
        Ok(streamed) => streamed,
        Err(refusal) => return Err(rejected(refusal, request_id, head_only)),
    };
    let request_id = request_id.unwrap_or_else(new_request_id);
    let version_1_0 = request.version == Some(0);
    let named = |name: &str| framing.connection.iter().any(|n| n.eq_ignore_ascii_case(name));
    let body_length = framing.content_length.unwrap_or(0);
    write_forward(&request, &framing, peer, &request_id, streamed, forward);
    Ok(Admitted {
        keep_alive: !named("close") && (!version_1_0 || named("keep-alive")),
        version_1_0,
        body_length,
        streamed,
        expects_continue: framing.expects_continue,
        head_only,
        repeatable: head_only || method == "GET",
        request_id,
    })
}

/// Whether `bytes`, the beginning of a head, can still become a request; so that garbage is
/// answered at once and not when its deadline has passed.
pub fn check_beginning(bytes: &[u8]) -> Result<(), Refusal> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::Request::new(&mut storage).parse(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal_of(error)),
    }
}

/// An id for a request whose client gave none.
pub fn new_request_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn rejected(refusal: Refusal, request_id: Option<String>, head_only: bool) -> Box<Rejected> {
    Box::new(Rejected { refusal, request_id, head_only })
}

fn parse<'h, 'b>(request: &mut httparse::Request<'h, 'b>, head: &'b [u8]) -> Result<(), Refusal> {
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => Ok(()),
        Ok(_) => Err(Refusal::malformed("malformed request: empty line inside the head")),
        Err(error) => Err(refusal_of(error)),
    }
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::head_too_large(),
        httparse::Error::Version => Refusal::version(),
        other => Refusal::malformed(format!("malformed request: {other}")),
    }
}

fn read_headers<'b>(
    headers: &[httparse::Header<'b>],
    framing: &mut Framing<'b>,
) -> Result<(), Refusal> {
    for header in headers {
        let name = header.name;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let Ok(value) = std::str::from_utf8(header.value) else {
            if may_lose_bytes(name) {
                continue;
            }
            return Err(not_ascii(name));
        };
        let value = value.trim_matches([' ', '\t']);
        if !value.is_ascii() && !may_lose_bytes(name) {
            return Err(not_ascii(name));
        }
        if is("content-length") {
            let length = content_length(value)
                .ok_or_else(|| Refusal::malformed("content-length is not a number"))?;
            if framing.content_length.replace(length).is_some() {
                return Err(Refusal::malformed("more than one content-length"));
            }
        } else if is("transfer-encoding") {
            return Err(Refusal::not_implemented("transfer-encoding is not supported"));
        } else if is("host") {
            framing.hosts += 1;
            if !is_host(value) {
                return Err(Refusal::malformed("host is not a host name"));
            }
        } else if is("expect") {
            if !value.eq_ignore_ascii_case("100-continue") {
                return Err(Refusal::expectation());
            }
            framing.expects_continue = true;
        } else if is("connection") {
            let names = value.split(',').map(|n| n.trim_matches([' ', '\t']));
            framing.connection.extend(names.take(MAX_CONNECTION_NAMES + 1));
            if framing.connection.len() > MAX_CONNECTION_NAMES {
                return Err(Refusal::malformed("connection names too many headers"));
            }
        } else if is(REQUEST_ID_HEADER) {
            framing.request_ids.push(value);
        }
    }
    Ok(())
}

/// Whether the request may pass, and then whether its body is streamed.
fn judge(
    request: &httparse::Request<'_, '_>,
    framing: &Framing<'_>,
    rules: &BodyRules,
) -> Result<bool, Refusal> {
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if method == "CONNECT" {
        return Err(Refusal::not_implemented("CONNECT is not supported"));
    }
    if !target.starts_with('/') {
        return Err(Refusal::malformed("the request target must start with a slash"));
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(Refusal::malformed("the request target must be percent-encoded"));
    }
    let host_missing = framing.hosts == 0 && request.version != Some(0);
    if host_missing || framing.hosts > 1 {
        return Err(Refusal::malformed("exactly one host header is needed"));
    }
    let path = target.split('?').next().unwrap_or_default();
    let length = framing.content_length.unwrap_or(0);
    match rules(method, path) {
        BodyRule::Whole { limit } if length > limit => {
            Err(Refusal::body_too_large("request body too large"))
        }
        BodyRule::Streamed { limit, too_large } if length > limit => {
            Err(Refusal::body_too_large(too_large))
        }
        BodyRule::Whole { .. } => Ok(false),
        BodyRule::Streamed { .. } => Ok(length > 0),
    }
}

fn write_forward(
    request: &httparse::Request<'_, '_>,
    framing: &Framing<'_>,
    peer: &str,
    request_id: &str,
    streamed: bool,
    forward: &mut Vec<u8>,
) {
    forward.clear();
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| forward.extend_from_slice(part));
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    put(&[method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    put(&[PEER_HEADER.as_bytes(), b": ", peer.as_bytes(), b"\r\n"]);
    put(&[REQUEST_ID_HEADER.as_bytes(), b": ", request_id.as_bytes(), b"\r\n"]);
    for header in request.headers.iter() {
        if stays_here(header.name)
            || framing.connection.iter().any(|name| name.eq_ignore_ascii_case(header.name))
        {
            continue;
        }
        put(&[header.name.as_bytes(), b": "]);
        if header.value.is_ascii() {
            put(&[header.value]);
        } else {
            header.value.iter().for_each(|&b| put(&[&[if b.is_ascii() { b } else { b'?' }]]));
        }
        put(&[b"\r\n"]);
    }
    let length = framing.content_length.map(|length| length.to_string());
    match &length {
        // In chunks, because the server behind allocates and reads what is left of an announced
        // length; and for once, because what is left of chunks would be taken for a request.
        Some(length) if streamed => {
            put(&[BODY_HEADER.as_bytes(), b": ", length.as_bytes(), b"\r\n"]);
            put(&[b"Transfer-Encoding: chunked\r\nConnection: close\r\n"]);
            if framing.expects_continue {
                // Answered by the server when a handler begins to read.
                put(&[b"Expect: 100-continue\r\n"]);
            }
        }
        Some(length) => put(&[b"Content-Length: ", length.as_bytes(), b"\r\n"]),
        None => {}
    }
    put(&[b"\r\n"]);
}

/// Headers that speak about this connection, that are written anew, or that are ours alone.
fn stays_here(name: &str) -> bool {
    const NAMES: [&str; 12] = [
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
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
        || name.eq_ignore_ascii_case(REQUEST_ID_HEADER)
        // No header of a client may look like one of those the edge itself sets.
        || name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("x-pyoco-"))
}

/// Headers whose meaning does not hang on a byte that is not ASCII. A browser sends the cookies of
/// every other site on `localhost` too, and must not be refused for what those contain.
fn may_lose_bytes(name: &str) -> bool {
    ["cookie", "referer", "user-agent"].iter().any(|n| n.eq_ignore_ascii_case(name))
}

fn not_ascii(name: &str) -> Refusal {
    Refusal::malformed(format!("header {} is not ASCII", name.to_ascii_lowercase()))
}

/// Digits and nothing else: no sign, no space, no list.
fn content_length(value: &str) -> Option<u64> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

fn is_host(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&b))
}

/// Printable and of one piece, so that it can stand in a log line and in a header.
fn is_request_id(id: &str) -> bool {
    let of_a_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(of_a_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(head: &str) -> Result<(Admitted, String), u16> {
        let rules: BodyRules = Arc::new(|_, path| match path {
            "/stream" => BodyRule::Streamed { limit: 200, too_large: "as the test wishes" },
            _ => BodyRule::Whole { limit: 100 },
        });
        let mut forward = Vec::new();
        match admit(head.as_bytes(), "10.0.0.1", &rules, &mut forward) {
            Ok(admitted) => Ok((admitted, String::from_utf8(forward).unwrap())),
            Err(rejected) => Err(rejected.refusal.status),
        }
    }

    fn with(headers: &str) -> Result<(Admitted, String), u16> {
        admitted(&format!("POST /a?b HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }

    #[test]
    fn a_head_is_written_anew() {
        let (request, forward) = with(
            "X-A:  1 \r\nConnection: close, X-Gone\r\nX-Gone: 2\r\nUpgrade: h2c\r\nx-pyoco-peer: 6.6.6.6\r\n\
             X-Request-Id: abc-1\r\nContent-Length: 007\r\nCookie: \u{e9}\r\n",
        )
        .unwrap();
        assert_eq!(
            forward,
            "POST /a?b HTTP/1.1\r\nX-Pyoco-Peer: 10.0.0.1\r\nX-Request-ID: abc-1\r\nHost: h\r\nX-A: 1\r\n\
             Cookie: ??\r\nContent-Length: 7\r\n\r\n",
        );
        assert!(!request.keep_alive);
        assert_eq!(request.body_length, 7);
        assert_eq!(request.request_id, "abc-1");
    }

    #[test]
    fn only_one_plain_content_length_passes() {
        for value in ["+5", "-5", "5, 5", "5 5", "0x5", "", "five", "5.0", "99999999999999999999"] {
            assert_eq!(with(&format!("Content-Length: {value}\r\n")).unwrap_err(), 400, "{value}");
        }
        assert_eq!(with("Content-Length: 5\r\ncontent-length: 5\r\n").unwrap_err(), 400);
        assert_eq!(with("Content-Length: 101\r\n").unwrap_err(), 413);
        assert_eq!(with("Content-Length: 17592186044416\r\n").unwrap_err(), 413);
        assert_eq!(with("Content-Length: 100\r\n").unwrap().0.body_length, 100);
    }

    #[test]
    fn a_streamed_body_is_announced_and_sent_in_chunks() {
        let head = |headers: &str| {
            admitted(&format!(
                "POST /stream HTTP/1.1\r\nHost: h\r\nX-Pyoco-Body: 9\r\n{headers}\r\n"
            ))
        };
        let (request, forward) = head("Expect: 100-continue\r\nContent-Length: 200\r\n").unwrap();
        assert!(request.streamed && request.expects_continue && request.keep_alive);
        assert_eq!(
            forward.split_once("Host: h\r\n").unwrap().1,
            "X-Pyoco-Body: 200\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
             Expect: 100-continue\r\n\r\n",
        );
        assert_eq!(head("Content-Length: 201\r\n").unwrap_err(), 413);
        assert_eq!(head("Transfer-Encoding: chunked\r\n").unwrap_err(), 501);
        for empty in ["", "Content-Length: 0\r\n", "Expect: 100-continue\r\n"] {
            let (request, forward) = head(empty).unwrap();
            assert!(!request.streamed && !request.expects_continue);
            assert!(!forward.contains("X-Pyoco-Body") && !forward.contains("chunked"), "{forward}");
        }
    }

    #[test]
    fn what_frames_a_message_otherwise_is_refused() {
        assert_eq!(with("Transfer-Encoding: chunked\r\n").unwrap_err(), 501);
        assert_eq!(with("Content-Length: 5\r\ntransfer-ENCODING: x\r\n").unwrap_err(), 501);
        assert_eq!(with("Transfer-Encoding : chunked\r\n").unwrap_err(), 400);
        assert_eq!(with("X: 1\r\n folded\r\n").unwrap_err(), 400);
        assert_eq!(with("Expect: miracles\r\n").unwrap_err(), 417);
        assert_eq!(with("X-A: \u{e9}\r\n").unwrap_err(), 400);
        assert_eq!(with(&"X: 1\r\n".repeat(64)).unwrap_err(), 431);
        assert_eq!(with("Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n").unwrap_err(), 400);
    }

    #[test]
    fn request_lines_and_hosts_are_judged() {
        for (line, status) in [
            ("GET / HTTP/2.0", 505),
            ("GET / HTTP/0.9", 505),
            ("GET http://h/ HTTP/1.1", 400),
            ("OPTIONS * HTTP/1.1", 400),
            ("CONNECT h:1 HTTP/1.1", 501),
            ("GET /\u{e9} HTTP/1.1", 400),
            ("GET /#f HTTP/1.1", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /", 400),
        ] {
            let head = format!("{line}\r\nHost: h\r\n\r\n");
            assert_eq!(admitted(&head).unwrap_err(), status, "{line}");
        }
        assert_eq!(admitted("GET / HTTP/1.1\r\n\r\n").unwrap_err(), 400);
        assert_eq!(admitted("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").unwrap_err(), 400);
        assert_eq!(admitted("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n").unwrap_err(), 400);
        assert!(!admitted("GET / HTTP/1.0\r\n\r\n").unwrap().0.keep_alive);
        let kept = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        assert!(admitted(kept).unwrap().0.keep_alive);
    }

    #[test]
    fn a_request_id_that_cannot_stand_in_a_log_line_is_replaced() {
        for id in ["", "a b", "a\"b", &"x".repeat(129)] {
            let (request, forward) = with(&format!("X-Request-ID: {id}\r\n")).unwrap();
            assert_eq!(request.request_id.len(), 32, "{id}");
            assert!(forward.contains(&request.request_id));
        }
        let (request, _) = with("X-Request-ID: a\r\nX-Request-ID: b\r\n").unwrap();
        assert_eq!(request.request_id.len(), 32);
    }
}
