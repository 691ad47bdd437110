//! Reads the head of a handler's answer, and writes the head that the client gets.
//!
//! Pure, as `head` is for the other direction.

use super::head::{Admitted, REQUEST_ID_HEADER};
use super::status::reason;
use crate::model::limits::MAX_HEADERS;

/// On an answer in chunks: how long its data is altogether, where the handler knows it. Handlers
/// send in chunks so that an answer that breaks off can be told from one that ends; the client is
/// then given a plain `Content-Length`.
pub const LENGTH_HEADER: &str = "X-Pyoco-Length";

/// How the body of an answer ends on the connection from the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; none is a length, too.
    Length(u64),
    /// With its last chunk.
    Chunked,
}

/// How the body of an answer ends on the connection to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection: an HTTP/1.0 client and a length that nobody knows.
    Close,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Answer {
    /// Bytes of the head as the handler sent it.
    pub length: usize,
    /// Where its body ends.
    pub framing: Framing,
    /// How the client is told where it ends.
    pub delivery: Delivery,
    /// The connection to the handler may be used again.
    pub reusable: bool,
    /// The connection to the client may be used again.
    pub keep_alive: bool,
}

/// The bytes are not an answer of our handlers.
#[derive(Debug)]
pub struct NotAnAnswer;

/// Bytes of the interim answer at the beginning of `bytes`: the handler wants the body that it was
/// announced. `None` when something else begins there, or not enough is there to tell.
pub fn interim(bytes: &[u8]) -> Option<usize> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut storage);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if answer.code == Some(100) => Some(length),
        _ => None,
    }
}

/// Reads an answer's head from the beginning of `bytes`; `None` when it is not all there yet. The
/// client's head is written into `out`. `closing`: the client's connection ends with this answer.
///
/// # Errors
/// [`NotAnAnswer`] when this can never become one.
pub fn read(
    bytes: &[u8],
    request: &Admitted,
    closing: bool,
    out: &mut Vec<u8>,
) -> Result<Option<Answer>, NotAnAnswer> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut storage);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NotAnAnswer),
    };
    let status = answer.code.filter(|&status| status >= 200).ok_or(NotAnAnswer)?;
    let mut declared = None;
    let mut announced = None;
    let mut chunked = false;
    let mut reusable = true;
    let mut has_id = false;
    out.clear();
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
    for header in answer.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            declared = Some(number(header.value).ok_or(NotAnAnswer)?);
        } else if is(LENGTH_HEADER) {
            announced = Some(number(header.value).ok_or(NotAnAnswer)?);
        } else if is("transfer-encoding") {
            chunked = true;
        } else if is("connection") {
            reusable &= !header.value.eq_ignore_ascii_case(b"close");
        } else if !(is("keep-alive") || is("upgrade") || is("trailer")) {
            has_id |= is(REQUEST_ID_HEADER);
            put(out, header.name, header.value);
        }
    }
    if !has_id {
        put(out, REQUEST_ID_HEADER, request.request_id.as_bytes());
    }
    let bodiless = request.head_only || status == 204 || status == 304;
    let framing = match (bodiless, chunked, declared) {
        (true, _, _) => Framing::Length(0),
        (false, true, None) => Framing::Chunked,
        (false, false, Some(length)) => Framing::Length(length),
        // Our handlers never leave the end of an answer open, nor say it twice.
        _ => return Err(NotAnAnswer),
    };
    let known = if chunked { announced } else { declared };
    let delivery = match (framing, known) {
        (Framing::Length(length), _) => Delivery::Length(length),
        (Framing::Chunked, Some(length)) => Delivery::Length(length),
        (Framing::Chunked, None) if request.version_1_0 => Delivery::Close,
        (Framing::Chunked, None) => Delivery::Chunked,
    };
    let keep_alive = request.keep_alive && !closing && delivery != Delivery::Close;
    match (known, delivery) {
        (Some(length), _) if status != 204 => {
            put(out, "Content-Length", length.to_string().as_bytes());
        }
        (None, Delivery::Chunked) => put(out, "Transfer-Encoding", b"chunked"),
        _ => {}
    }
    if !keep_alive {
        put(out, "Connection", b"close");
    } else if request.version_1_0 {
        put(out, "Connection", b"keep-alive");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Answer { length, framing, delivery, reusable, keep_alive }))
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version_1_0: bool, keep_alive: bool, head_only: bool) -> Admitted {
        Admitted {
            keep_alive,
            version_1_0,
            body_length: 0,
            streamed: false,
            expects_continue: false,
            head_only,
            repeatable: true,
            request_id: "id".into(),
        }
    }

    fn answered(text: &str, request: &Admitted) -> (Answer, String) {
        let mut out = Vec::new();
        let answer = read(text.as_bytes(), request, false, &mut out).unwrap().unwrap();
        (answer, String::from_utf8(out).unwrap())
    }

    const PLAIN: &str = "HTTP/1.1 200 OK\r\nX-Request-ID: mine\r\nContent-Length: 5\r\n\r\n";
    const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const SIZED: &str =
        "HTTP/1.1 200 OK\r\nX-Pyoco-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn a_client_is_told_where_the_answer_ends() {
        let new = request(false, true, false);
        let (answer, head) = answered(PLAIN, &new);
        assert_eq!((answer.delivery, answer.keep_alive), (Delivery::Length(5), true));
        assert_eq!(head, PLAIN);
        let (answer, head) = answered(STREAM, &new);
        assert_eq!(answer.delivery, Delivery::Chunked);
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nX-Request-ID: id\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let (answer, head) = answered(SIZED, &new);
        assert_eq!((answer.framing, answer.delivery), (Framing::Chunked, Delivery::Length(9)));
        assert_eq!(head, "HTTP/1.1 200 OK\r\nX-Request-ID: id\r\nContent-Length: 9\r\n\r\n");
    }

    #[test]
    fn an_old_client_gets_no_chunks() {
        let old = request(true, true, false);
        let (answer, head) = answered(STREAM, &old);
        assert_eq!((answer.delivery, answer.keep_alive), (Delivery::Close, false));
        assert!(head.ends_with("Connection: close\r\n\r\n") && !head.contains("chunked"));
        assert!(answered(PLAIN, &old).1.contains("Connection: keep-alive\r\n"));
    }

    #[test]
    fn a_head_request_gets_the_length_and_no_body() {
        let head = request(false, true, true);
        let (answer, text) = answered(PLAIN, &head);
        assert_eq!(answer.framing, Framing::Length(0));
        assert!(text.contains("Content-Length: 5\r\n"));
    }

    #[test]
    fn an_answer_whose_end_is_not_certain_is_none() {
        let new = request(false, true, false);
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(read(text.as_bytes(), &new, false, &mut Vec::new()).is_err(), "{text}");
        }
    }
}
