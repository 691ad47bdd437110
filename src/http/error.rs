//! The one writer of JSON errors: what a refusal says, and its answer.
//!
//! A [`Condition`] has one text, one hint and one `Retry-After`, wherever it is noticed: by this floor
//! before a handler is called, or by a handler.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::reply::{Reply, reason};
use crate::model::error::Code;

const LATER: &str = "repeat the request after the seconds in Retry-After";
const LOOK_FIRST: &str = "look whether it took effect before you repeat it";

/// Something that can be wrong with a request, or stand in its way.
#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    pub status: u16,
    /// `detail` of the answer.
    pub detail: &'static str,
    /// Its number in the catalogue of errors.
    pub code: Option<Code>,
    /// The way out; the hint of `code` when there is none.
    pub hint: Option<&'static str>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u64>,
}

impl Condition {
    /// The request is at fault: `ERR-PYOCO-0002`.
    pub const fn bad_input(status: u16, detail: &'static str, hint: &'static str) -> Condition {
        let code = Some(Code::BadInput);
        Condition { status, detail, code, hint: Some(hint), retry_after: None }
    }

    /// A bound is reached; the request has changed nothing and may be repeated after `seconds`.
    pub const fn busy(detail: &'static str, seconds: u64) -> Condition {
        let (hint, retry_after) = (Some(LATER), Some(seconds));
        Condition { status: 503, detail, code: None, hint, retry_after }
    }

    pub const fn hint(self, hint: &'static str) -> Condition {
        Condition { hint: Some(hint), ..self }
    }
}

/// 400: the request is not HTTP as it must be.
pub const MALFORMED: Condition =
    Condition::bad_input(400, "malformed request", "send a well-formed HTTP/1.1 request");
/// 400: the client ended before its body did.
pub const BODY_ENDED_EARLY: Condition =
    Condition::bad_input(400, "request body ended early", "send the whole body that was announced");
/// 400: the body is not in the chunks that its head announced.
pub const BROKEN_CHUNKS: Condition =
    Condition::bad_input(400, "malformed chunked body", "send a well-formed HTTP/1.1 request");
pub const HEAD_TOO_SLOW: Condition = Condition::bad_input(
    408,
    "request head took too long to arrive",
    "send the whole request without pauses",
);
pub const BODY_TOO_SLOW: Condition = Condition::bad_input(
    408,
    "request body took too long to arrive",
    "send the whole request without pauses",
);
pub const BODY_TOO_LARGE: Condition =
    Condition::bad_input(413, "request body too large", "send less in one request");
pub const EXPECTATION: Condition =
    Condition::bad_input(417, "expectation not supported", "send no Expect header");
pub const HEAD_TOO_LARGE: Condition =
    Condition::bad_input(431, "request head too large", "send fewer or shorter headers, or a shorter query");
pub const PANICKED: Condition =
    Condition { status: 500, detail: "Internal Server Error", code: None, hint: None, retry_after: None };
pub const NO_CONNECT: Condition =
    Condition::bad_input(501, "CONNECT is not supported", "send the request itself");
/// 501: a transfer coding other than a lone `chunked`.
pub const TRANSFER_CODING: Condition = Condition::bad_input(
    501,
    "transfer-encoding is not supported",
    "send the body with a Content-Length, or with `Transfer-Encoding: chunked` alone",
);
pub const TOO_MANY_CONNECTIONS: Condition = Condition::busy("too many connections", 1);
pub const NO_FREE_HANDLER: Condition = Condition::busy("all handlers are busy", 1);
pub const STOPPING: Condition = Condition::busy("the gateway is stopping", 1);
pub const TOO_MANY_BODIES: Condition = Condition::busy("too many request bodies at once", 1);
pub const TOO_MANY_UPLOADS: Condition = Condition::busy("too many uploads at once", 5);
/// 503: as many streams and large answers are being written as may be.
pub const TOO_MANY_STREAMS: Condition = Condition::busy("too many streaming answers", 5);
/// 504: a handler has the request and does not answer.
pub const UNANSWERED: Condition = Condition {
    status: 504,
    detail: "the request was not answered in time",
    code: None,
    hint: Some(LOOK_FIRST),
    retry_after: None,
};
pub const HTTP_VERSION: Condition = Condition::bad_input(505, "HTTP version not supported", "use HTTP/1.1");

/// Every status with which this floor refuses a request by itself.
pub const REFUSALS: [u16; 9] = [400, 408, 413, 417, 431, 501, 503, 504, 505];

/// A condition that was met, in words of its own where these say more.
#[derive(Debug)]
pub struct Refusal {
    pub condition: &'static Condition,
    pub detail: Option<String>,
}

impl From<&'static Condition> for Refusal {
    fn from(condition: &'static Condition) -> Refusal {
        Refusal { condition, detail: None }
    }
}

impl From<Refusal> for ErrorReply {
    fn from(refusal: Refusal) -> ErrorReply {
        let reply = ErrorReply::from(refusal.condition);
        match refusal.detail {
            Some(detail) => ErrorReply { detail: detail.into(), ..reply },
            None => reply,
        }
    }
}

/// An error as it is answered: a [`Condition`] with what is special to this request.
#[derive(Debug)]
pub struct ErrorReply {
    pub status: u16,
    /// A text, or the list of a request of another shape.
    pub detail: Value,
    /// Its number in the catalogue of errors.
    pub code: Option<Code>,
    /// The way out; the hint of `code` when there is none.
    pub hint: Option<Cow<'static, str>>,
    pub fields: Vec<(&'static str, Value)>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u64>,
}

impl From<&Condition> for ErrorReply {
    fn from(condition: &Condition) -> ErrorReply {
        ErrorReply {
            status: condition.status,
            detail: condition.detail.into(),
            code: condition.code,
            hint: condition.hint.map(Cow::Borrowed),
            fields: Vec::new(),
            retry_after: condition.retry_after,
        }
    }
}

impl ErrorReply {
    /// The answer. `as_problem` asks for RFC 9457 in place of FastAPI's shape; a list of problems is
    /// `errors` then, beside a `detail` that counts them.
    pub fn into_reply(self, as_problem: bool) -> Reply {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        let mut fields = self.fields;
        let mut detail = self.detail;
        if as_problem {
            put("type", "about:blank".into());
            put("title", reason(self.status).into());
            put("status", self.status.into());
            if let Value::Array(problems) = &detail {
                let words = match problems.len() {
                    1 => "one problem in the request".to_owned(),
                    more => format!("{more} problems in the request"),
                };
                fields.push(("errors", std::mem::replace(&mut detail, words.into())));
            }
        }
        put("detail", detail);
        if let Some(code) = self.code {
            put("err_id", code.err_id().into());
            put("msg_id", code.msg_id().into());
        }
        let hint = self.hint.or_else(|| self.code.map(|code| code.hint().into()));
        if let Some(hint) = hint {
            put("hint", hint.into());
        }
        fields.into_iter().for_each(|(name, value)| put(name, value));
        let kind = if as_problem { "application/problem+json" } else { "application/json" };
        let reply = Reply::bytes(self.status, kind, Value::Object(body).to_string().into_bytes());
        match self.retry_after {
            Some(seconds) => reply.with_header("Retry-After", seconds.to_string()),
            None => reply,
        }
    }
}
