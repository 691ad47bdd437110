//! A handler's answer, and how its head is written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

const SERVER: &str = "pyoco-server";
/// The header that names a request in logs and answers.
pub const REQUEST_ID_HEADER: &str = "X-Request-ID";

/// An answer. Its head gets `Server`, `Date`, `X-Request-ID`, `X-Content-Type-Options: nosniff`, and
/// what frames the body; a handler does not set those.
pub struct Reply {
    head: Response<io::Empty>,
    body: ReplyBody,
}

pub enum ReplyBody {
    Bytes(Cow<'static, [u8]>),
    Stream {
        /// How many there will be, where that is known; then exactly so many must be written.
        length: Option<u64>,
        write: WriteBody,
    },
}

/// Writes the body of a streaming answer, on the thread of its connection. What is flushed reaches the
/// client at once. An error of the writer means that the client is gone: return it. An error (or a
/// panic) breaks the answer off, which the client can tell from its end.
pub type WriteBody = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

impl Reply {
    fn new(status: u16, body: ReplyBody) -> Reply {
        Reply { head: Response::new_empty(StatusCode(status)), body }
    }

    pub fn bytes(status: u16, content_type: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Reply {
        Reply::new(status, ReplyBody::Bytes(bytes.into())).with_header("Content-Type", content_type)
    }

    /// A JSON document that has been written already.
    pub fn json(status: u16, bytes: impl Into<Cow<'static, [u8]>>) -> Reply {
        Reply::bytes(status, "application/json", bytes)
    }

    pub fn text(status: u16, text: impl Into<String>) -> Reply {
        Reply::bytes(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    pub fn empty(status: u16) -> Reply {
        Reply::new(status, ReplyBody::Bytes(Cow::Borrowed(&[])))
    }

    /// An answer whose end is not known beforehand, such as server-sent events.
    pub fn stream(
        status: u16,
        content_type: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        let body = ReplyBody::Stream { length: None, write: Box::new(write) };
        Reply::new(status, body).with_header("Content-Type", content_type)
    }

    /// A download of exactly `length` bytes.
    pub fn download(
        status: u16,
        content_type: &str,
        length: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        let body = ReplyBody::Stream { length: Some(length), write: Box::new(write) };
        Reply::new(status, body).with_header("Content-Type", content_type)
    }

    /// The same answer with one more header. One that could break the head (a line end, for
    /// instance), or that this floor sets itself, is left out and logged.
    pub fn with_header(mut self, name: &str, value: impl AsRef<str>) -> Reply {
        let value = value.as_ref();
        let header = Header::from_bytes(name.as_bytes(), value.as_bytes());
        match header {
            Ok(header) if !is_ours(name) && is_token(name) && is_value(value) => {
                self.head.add_header(header);
            }
            _ => log::error!("left out a header that cannot be sent: {name:?}"),
        }
        self
    }

    pub fn status(&self) -> StatusCode {
        self.head.status_code()
    }

    pub fn body(&self) -> &ReplyBody {
        &self.body
    }

    pub(super) fn into_parts(self) -> (Response<io::Empty>, ReplyBody) {
        (self.head, self.body)
    }
}

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// By the end of the connection: a client of HTTP/1.0, and a length that is not known.
    Close,
}

/// What an answer says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionWord {
    /// It goes on, as HTTP/1.1 does without a word.
    Unsaid,
    /// It goes on, which HTTP/1.0 has to be told.
    KeepAlive,
    Close,
}

/// Writes the head of an answer, its empty line included. `raw_print` writes that of an ordinary
/// answer; 204, 304 and streams have a framing that it does not know.
pub(super) fn write_head(
    mut head: Response<io::Empty>,
    framing: Framing,
    connection: ConnectionWord,
    request_id: &str,
    out: &mut Vec<u8>,
) {
    let status = head.status_code();
    let bodiless = matches!(status.0, 100..=199 | 204 | 304);
    let length = match framing {
        Framing::Length(length) if !bodiless => usize::try_from(length).ok(),
        _ => None,
    };
    out.clear();
    if let Some(length) = length {
        for (name, value) in ours(request_id) {
            // ASCII, both of them: a request id is a token.
            if let Ok(header) = Header::from_bytes(name, value.as_bytes()) {
                head.add_header(header);
            }
        }
        let head = head.with_data(io::empty(), Some(length)).with_chunked_threshold(usize::MAX);
        // Neither a request header nor the body has a part in it; a Vec takes every write.
        let _ = head.raw_print(&mut *out, HTTPVersion(1, 1), &[], true, None);
        // The empty line comes after the words about the connection.
        out.truncate(out.len() - 2);
    } else {
        let line = format!("HTTP/1.1 {} {}\r\n", status.0, reason(status.0));
        out.extend_from_slice(line.as_bytes());
        let mut put = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        ours(request_id).into_iter().for_each(|(name, value)| put(name, &value));
        for header in head.headers() {
            put(header.field.as_str().as_str(), header.value.as_str());
        }
        match framing {
            Framing::Chunked if !bodiless => put("Transfer-Encoding", "chunked"),
            _ => {}
        }
    }
    match connection {
        ConnectionWord::Unsaid => {}
        ConnectionWord::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        ConnectionWord::Close => out.extend_from_slice(b"Connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn ours(request_id: &str) -> [(&'static str, Cow<'_, str>); 4] {
    [
        ("Server", SERVER.into()),
        ("Date", date().into()),
        (REQUEST_ID_HEADER, request_id.into()),
        ("X-Content-Type-Options", "nosniff".into()),
    ]
}

thread_local! {
    /// The `Date` of the second that a thread has last answered in.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// The value of a `Date` header for now.
fn date() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now {
            // Fails only for years that do not have four digits.
            let printed = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
            (*second, *text) = (now, printed.unwrap_or_default());
        }
        text.clone()
    })
}

/// The reason phrase of a status (RFC 9110); clients ignore it, people read it.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        // RFC 9110 has renamed these two.
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        other => StatusCode(other).default_reason_phrase(),
    }
}

fn is_ours(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "server",
        "transfer-encoding",
        "x-content-type-options",
        "x-request-id",
    ];
    NAMES.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Whether a text is a token (RFC 9110, 5.6.2), as the name of a header is.
pub(super) fn is_token(text: &str) -> bool {
    let of_a_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(of_a_token)
}

fn is_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b' '..0x7f).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: Reply, framing: Framing, connection: ConnectionWord) -> String {
        let mut out = vec![b'x'];
        write_head(reply.into_parts().0, framing, connection, "id", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_header_cannot_break_the_head() {
        let reply = || {
            Reply::json(200, &b"{}"[..])
                .with_header("X-A", "1\r\nX-Evil: 1")
                .with_header("X B", "1")
                .with_header("X-C", "\u{e9}")
                .with_header("Content-Length", "9")
                .with_header("Server", "another")
                .with_header("Retry-After", "1")
        };
        for (framing, last) in [
            (Framing::Length(2), "Content-Length: 2\r\n"),
            (Framing::Chunked, "Transfer-Encoding: chunked\r\n"),
            (Framing::Close, ""),
        ] {
            let head = written(reply(), framing, ConnectionWord::Close);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.ends_with(&format!("{last}Connection: close\r\n\r\n")), "{head}");
            let mut lines: Vec<&str> = head.trim_end().lines().skip(1).collect();
            lines.retain(|line| !line.starts_with("Date: ") && !last.starts_with(line));
            lines.sort_unstable();
            assert_eq!(
                lines,
                [
                    "Connection: close",
                    "Content-Type: application/json",
                    "Retry-After: 1",
                    "Server: pyoco-server",
                    "X-Content-Type-Options: nosniff",
                    "X-Request-ID: id",
                ]
            );
        }
    }

    #[test]
    fn an_answer_without_a_body_announces_none() {
        for status in [204, 304] {
            let head = written(Reply::empty(status), Framing::Length(0), ConnectionWord::Unsaid);
            assert!(!head.contains("Content-Length") && head.ends_with("\r\n\r\n"), "{head}");
        }
        let head = written(Reply::empty(307), Framing::Length(0), ConnectionWord::KeepAlive);
        assert!(head.ends_with("Content-Length: 0\r\nConnection: keep-alive\r\n\r\n"), "{head}");
    }
}
