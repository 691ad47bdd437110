//! A handler's answer, and how its head is written.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::http::edge::{LENGTH_HEADER, REQUEST_ID_HEADER, date, reason};

/// An answer. Its head gets `Date`, `X-Request-ID`, `X-Content-Type-Options: nosniff` and what
/// frames the body; do not set those.
pub struct Reply {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Names and values; one that could break the head (a line end, for instance) is left out.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// What follows the head.
    pub body: ReplyBody,
}

/// The body of an answer.
pub enum ReplyBody {
    /// Bytes that are there.
    Bytes(Cow<'static, [u8]>),
    /// Bytes that come with time.
    Stream {
        /// How many there will be, where that is known; then exactly so many must be written.
        length: Option<u64>,
        write: WriteBody,
    },
}

/// Writes the body of a streaming answer, on a thread of its own. What is
/// flushed reaches the client at once. An error of the writer means that the client is gone: return
/// it. Returning an error (or a panic) breaks the answer off, which the client can tell from its end.
pub type WriteBody = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

impl Reply {
    /// An answer of bytes.
    pub fn bytes(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Reply {
        let headers = vec![("Content-Type".into(), content_type.into())];
        Reply { status, headers, body: ReplyBody::Bytes(bytes.into()) }
    }

    /// A JSON document that has been written already.
    pub fn json(status: u16, bytes: impl Into<Cow<'static, [u8]>>) -> Reply {
        Reply::bytes(status, "application/json", bytes)
    }

    pub fn text(status: u16, text: impl Into<String>) -> Reply {
        Reply::bytes(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// No body at all.
    pub fn empty(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: ReplyBody::Bytes(Cow::Borrowed(&[])) }
    }

    /// An answer without an end that is known beforehand, such as server-sent events.
    pub fn stream(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        let headers = vec![("Content-Type".into(), content_type.into())];
        Reply { status, headers, body: ReplyBody::Stream { length: None, write: Box::new(write) } }
    }

    /// A download of exactly `length` bytes.
    pub fn download(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        length: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        let mut reply = Reply::stream(status, content_type, write);
        if let ReplyBody::Stream { length: known, .. } = &mut reply.body {
            *known = Some(length);
        }
        reply
    }

    /// The same answer with one more header.
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a length in the head.
    Length(u64),
    /// By a last chunk; the edge is told the length, where it is known.
    Chunked(Option<u64>),
    /// By the end of the connection: a client of HTTP/1.0 without an edge in between.
    Close,
}

/// Writes the head of an answer, its empty line included.
pub(super) fn write_head(
    status: u16,
    headers: &[(Cow<'static, str>, Cow<'static, str>)],
    request_id: &str,
    framing: Framing,
    out: &mut Vec<u8>,
) {
    let mut put = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    put("Date", &date());
    put(REQUEST_ID_HEADER, request_id);
    put("X-Content-Type-Options", "nosniff");
    for (name, value) in headers {
        if is_ours(name) || !is_name(name) || !is_value(value) {
            log::error!(request_id; "left out a header that cannot be sent: {name:?}");
        } else {
            put(name, value);
        }
    }
    match framing {
        // 204 must not have one, 304 only that of the answer in whose place it stands (RFC 9110, 8.6).
        Framing::Length(_) if matches!(status, 204 | 304) => {}
        Framing::Length(length) => put("Content-Length", &length.to_string()),
        Framing::Chunked(length) => {
            if let Some(length) = length {
                put(LENGTH_HEADER, &length.to_string());
            }
            put("Transfer-Encoding", "chunked");
        }
        Framing::Close => put("Connection", "close"),
    }
    out.extend_from_slice(b"\r\n");
    let line = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    out.splice(0..0, line.into_bytes());
}

fn is_ours(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "transfer-encoding",
        "x-content-type-options",
        "x-request-id",
    ];
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
        || name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("x-pyoco-"))
}

fn is_name(name: &str) -> bool {
    let of_a_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(of_a_token)
}

fn is_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cannot_break_the_head() {
        let reply = Reply::json(200, &b"{}"[..])
            .with_header("X-A", "1\r\nX-Evil: 1")
            .with_header("X B", "1")
            .with_header("Content-Length", "9")
            .with_header("X-Pyoco-Length", "9")
            .with_header("Retry-After", "1");
        let mut out = Vec::new();
        write_head(reply.status, &reply.headers, "id", Framing::Length(2), &mut out);
        let head = String::from_utf8(out).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{head}");
        assert!(head.ends_with(
            " GMT\r\nX-Request-ID: id\r\nX-Content-Type-Options: nosniff\r\nContent-Type: application/json\r\n\
             Retry-After: 1\r\nContent-Length: 2\r\n\r\n"
        ), "{head}");
    }
}
