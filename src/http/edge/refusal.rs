//! What the edge answers by itself: the replies to requests that never reach a handler.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::status::{date, reason};
use crate::model::error::Code;

/// Seconds in the `Retry-After` of our own 503 answers: long enough to thin out a crowd, short
/// enough that a lone client hardly notices.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A request that is answered by the edge itself. The connection closes afterwards, because what
/// follows on it may not be the start of a request.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    /// `detail` of the JSON answer.
    pub detail: Cow<'static, str>,
    /// `hint` of the JSON answer: the way out.
    hint: &'static str,
    /// The number in the catalogue, where there is one.
    code: Option<Code>,
}

impl Refusal {
    /// 400: the request is not HTTP as it must be.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::bad_input(400, detail, "send a well-formed HTTP/1.1 request")
    }

    /// 408: the head or the body did not arrive in time.
    pub fn too_slow(what: &'static str) -> Refusal {
        let detail = format!("request {what} took too long to arrive");
        Refusal::bad_input(408, detail, "send the whole request without pauses")
    }

    /// 413: decided from the head alone, before the body is read.
    pub fn body_too_large(detail: &'static str) -> Refusal {
        Refusal::bad_input(413, detail, "send less in one request")
    }

    /// 417: an `Expect` other than `100-continue`.
    pub fn expectation() -> Refusal {
        Refusal::bad_input(417, "expectation not supported", "send no Expect header")
    }

    /// 431: too many bytes or too many headers.
    pub fn head_too_large() -> Refusal {
        let detail = "request head too large";
        Refusal::bad_input(431, detail, "send fewer or shorter headers, or a shorter query")
    }

    /// 501: any transfer coding, and CONNECT.
    pub fn not_implemented(detail: &'static str) -> Refusal {
        Refusal::bad_input(501, detail, "send the body with a Content-Length")
    }

    /// 505: anything but HTTP/1.0 and HTTP/1.1.
    pub fn version() -> Refusal {
        Refusal::bad_input(505, "HTTP version not supported", "use HTTP/1.1")
    }

    /// 503: a bound is reached; the request was not given to a handler and may be repeated.
    pub fn busy(detail: &'static str) -> Refusal {
        let hint = "repeat the request after the seconds in Retry-After";
        Refusal { status: 503, detail: detail.into(), hint, code: None }
    }

    /// 503: a handler had the request, and its answer was lost.
    pub fn lost() -> Refusal {
        let detail = "the answer to this request was lost".into();
        let hint = "look whether it took effect before you repeat it";
        Refusal { status: 503, detail, hint, code: None }
    }

    /// 504: a handler has the request and does not answer.
    pub fn unanswered() -> Refusal {
        let detail = "the request was not answered in time".into();
        let hint = "look whether it took effect before you repeat it";
        Refusal { status: 504, detail, hint, code: None }
    }

    /// The whole reply; `head_only` leaves the body out, as a HEAD request wants it.
    pub fn reply(&self, request_id: &str, head_only: bool) -> Vec<u8> {
        let mut body = json!({ "detail": self.detail });
        if let (Some(code), Value::Object(fields)) = (self.code, &mut body) {
            fields.insert("err_id".into(), code.err_id().into());
            fields.insert("msg_id".into(), code.msg_id().into());
        }
        body["hint"] = self.hint.into();
        let body = body.to_string();
        let mut reply = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             X-Request-ID: {request_id}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
            self.status,
            reason(self.status),
            date(),
            body.len(),
        );
        if self.status == 503 {
            reply.push_str(&format!("Retry-After: {RETRY_AFTER_SECONDS}\r\n"));
        }
        reply.push_str("\r\n");
        if !head_only {
            reply.push_str(&body);
        }
        reply.into_bytes()
    }

    fn bad_input(status: u16, detail: impl Into<Cow<'static, str>>, hint: &'static str) -> Refusal {
        Refusal { status, detail: detail.into(), hint, code: Some(Code::BadInput) }
    }
}
