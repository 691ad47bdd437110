//! What goes wrong in a request, and how it looks on the wire: one enum, one place that maps it.

use serde_json::{Map, Value, json};

use super::schema::Problem;
use crate::bus;
use crate::gateway::auth::Refusal;
use crate::gateway::view::hub;
use crate::http::form::FormError;
use crate::http::{BodyError, Reply};
use crate::model::error::Code;
use crate::model::key::{Permission, Role};

/// Seconds after which a client should try again when NATS does not answer.
const RETRY_AFTER_SEC: &str = "1";
/// The same when all places for watchers are taken, which are held for a minute or so.
const WATCHERS_RETRY_AFTER_SEC: &str = "5";
const WATCHERS_HINT: &str =
    "repeat the request after the seconds in Retry-After, or raise PYOCO_HTTP_MAX_WATCHERS";

const WHEEL_HINT: &str = "leave out what workers do not need, or raise PYOCO_WHEEL_MAX_BYTES";
const STORE_HINT: &str = "delete wheels that nobody needs with `pyoco-client wheel-delete`; the store's size is set when it is made (PYOCO_WHEEL_MAX_BYTES)";
const PAGE_HINT: &str =
    "send it from a program, or from the gateway's own page; a proxy in front must pass `Host` on";
const LATER_HINT: &str = "repeat the request after the seconds in Retry-After";

/// An error of a handler. Expected errors carry their catalogue code.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No route has this path (404).
    #[error("Not Found")]
    UnknownPath,
    /// The path exists with other methods (405).
    #[error("Method Not Allowed")]
    MethodNotAllowed {
        /// For the `Allow` header.
        allow: String,
    },
    /// The path has a trailing slash and exists without it (307).
    #[error("the path has a trailing slash")]
    TrailingSlash { location: String },
    /// Body or query do not have the shape that the route wants (422, one entry per problem).
    #[error("{}", counted(.0.len()))]
    Schema(Vec<Problem>),
    /// A request that is well-formed and still not acceptable (422).
    #[error("{detail}")]
    Unacceptable {
        detail: &'static str,
        code: Code,
        /// What exactly is wrong.
        reason: String,
    },
    /// A `flow.yaml` that is refused (422).
    #[error("invalid workflow yaml")]
    InvalidWorkflow {
        /// One of the reasons in `docs/flow.md#flowyaml`.
        reason: String,
        /// Where in the document, when that is known.
        place: Option<String>,
    },
    /// A body that cannot be taken apart at all (400).
    #[error("{0}")]
    BadBody(&'static str),
    /// The body is larger than the route takes (413).
    #[error("{detail}")]
    TooLarge { detail: &'static str, code: Code },
    /// A wheel of more than `PYOCO_WHEEL_MAX_BYTES` (413).
    #[error("wheel too large")]
    WheelTooLarge,
    /// No such run, or not yours (404).
    #[error("run not found")]
    RunNotFound,
    /// No such worker (404).
    #[error("worker not found")]
    WorkerNotFound,
    /// No such wheel (404).
    #[error("wheel not found")]
    WheelNotFound,
    /// The registry has that wheel, that version or a newer one (409).
    #[error("{detail}")]
    WheelConflict { detail: &'static str, reason: String },
    /// The store of wheels takes no more (507).
    #[error("wheel store is full")]
    WheelStoreFull,
    /// As many uploads are under way as may be (503).
    #[error("too many uploads at once")]
    TooManyUploads,
    /// There is no API key in the request (401).
    #[error("api key required")]
    ApiKeyRequired,
    /// The API key is malformed, unknown, wrong, revoked or expired (403).
    #[error("invalid api key")]
    InvalidApiKey,
    /// The key's role may not do this (403).
    #[error("role {} may not {}", .role.as_str(), .needs.deed())]
    Forbidden {
        /// What the key is.
        role: Role,
        /// What the route needs.
        needs: Permission,
    },
    /// A browser has sent a form on behalf of a page that is not the gateway's (403).
    #[error("forms of other pages are not taken")]
    ForeignPage,
    /// Too many wrong keys came from there, or for that key (429).
    #[error("too many invalid api keys")]
    TooManyInvalidKeys { retry_after: u64 },
    /// Too many keys are being checked that were not seen before (503).
    #[error("too many api keys at once")]
    TooManyKeys,
    /// As many streams are open as may be (503).
    #[error("too many watchers")]
    TooManyWatchers,
    /// NATS does not answer, or refuses for the moment (503).
    #[error("nats unavailable: {0}")]
    NatsUnavailable(String),
    /// Our own fault (500); the text goes to the log only.
    #[error("{0}")]
    Internal(String),
}

/// Which roles may do it.
fn roles_hint(needs: Permission) -> String {
    let roles = Role::ALL.into_iter().filter(|role| role.may(needs)).map(Role::as_str);
    format!("use a key with one of the roles {}", roles.collect::<Vec<_>>().join(", "))
}

fn counted(problems: usize) -> String {
    match problems {
        1 => "one problem in the request".to_owned(),
        more => format!("{more} problems in the request"),
    }
}

impl From<bus::Error> for ApiError {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::TooLarge { .. } => {
                ApiError::TooLarge { detail: "request body too large", code: Code::BadInput }
            }
            other => ApiError::NatsUnavailable(other.to_string()),
        }
    }
}

impl From<hub::Full> for ApiError {
    fn from(_: hub::Full) -> Self {
        ApiError::TooManyWatchers
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => ApiError::ApiKeyRequired,
            Refusal::Invalid => ApiError::InvalidApiKey,
            Refusal::TooManyTries { retry_after } => {
                // Rounded up, so that the next try is not too early.
                ApiError::TooManyInvalidKeys { retry_after: retry_after.as_secs() + 1 }
            }
            Refusal::Busy => ApiError::TooManyKeys,
            Refusal::Unknown => {
                ApiError::NatsUnavailable("the list of API keys is not current".into())
            }
        }
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        ApiError::Schema(vec![problem])
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => {
                ApiError::TooLarge { detail: "request body too large", code: Code::BadInput }
            }
            BodyError::Incomplete => ApiError::BadBody("request body ended early"),
        }
    }
}

impl From<FormError> for ApiError {
    fn from(error: FormError) -> Self {
        ApiError::BadBody(error.text())
    }
}

impl ApiError {
    pub fn status(&self) -> u16 {
        match self {
            ApiError::TrailingSlash { .. } => 307,
            ApiError::BadBody(_) => 400,
            ApiError::ApiKeyRequired => 401,
            ApiError::InvalidApiKey | ApiError::Forbidden { .. } | ApiError::ForeignPage => 403,
            ApiError::UnknownPath
            | ApiError::RunNotFound
            | ApiError::WorkerNotFound
            | ApiError::WheelNotFound => 404,
            ApiError::MethodNotAllowed { .. } => 405,
            ApiError::WheelConflict { .. } => 409,
            ApiError::TooLarge { .. } | ApiError::WheelTooLarge => 413,
            ApiError::Schema(_)
            | ApiError::Unacceptable { .. }
            | ApiError::InvalidWorkflow { .. } => 422,
            ApiError::TooManyInvalidKeys { .. } => 429,
            ApiError::Internal(_) => 500,
            ApiError::NatsUnavailable(_)
            | ApiError::TooManyWatchers
            | ApiError::TooManyKeys
            | ApiError::TooManyUploads => 503,
            ApiError::WheelStoreFull => 507,
        }
    }

    /// Its number in the catalogue, if it has one.
    pub fn code(&self) -> Option<Code> {
        match self {
            ApiError::Schema(_)
            | ApiError::BadBody(_)
            | ApiError::InvalidWorkflow { .. }
            | ApiError::WheelTooLarge => Some(Code::BadInput),
            ApiError::Unacceptable { code, .. } | ApiError::TooLarge { code, .. } => Some(*code),
            ApiError::RunNotFound => Some(Code::RunNotFound),
            ApiError::WorkerNotFound => Some(Code::WorkerNotFound),
            ApiError::WheelNotFound => Some(Code::WheelNotFound),
            ApiError::WheelConflict { .. } => Some(Code::WheelConflict),
            ApiError::NatsUnavailable(_) => Some(Code::NatsUnavailable),
            ApiError::ApiKeyRequired => Some(Code::ApiKeyMissing),
            ApiError::InvalidApiKey | ApiError::TooManyInvalidKeys { .. } => {
                Some(Code::ApiKeyInvalid)
            }
            ApiError::UnknownPath
            | ApiError::MethodNotAllowed { .. }
            | ApiError::TrailingSlash { .. }
            | ApiError::Forbidden { .. }
            | ApiError::ForeignPage
            | ApiError::TooManyKeys
            | ApiError::TooManyWatchers
            | ApiError::TooManyUploads
            | ApiError::WheelStoreFull
            | ApiError::Internal(_) => None,
        }
    }

    /// The answer, and its log line. `problem_json` asks for RFC 9457 instead of FastAPI's shape.
    pub fn reply(&self, request_id: &str, problem_json: bool) -> Reply {
        self.log(request_id);
        if let ApiError::TrailingSlash { location } = self {
            return Reply::empty(307).with_header("Location", location.clone());
        }
        let mut body = Map::new();
        if problem_json {
            body.insert("type".into(), "about:blank".into());
            body.insert("title".into(), self.title().into());
            body.insert("status".into(), self.status().into());
        }
        body.insert("detail".into(), self.detail(problem_json));
        if let Some(code) = self.code() {
            body.insert("err_id".into(), code.err_id().into());
            body.insert("msg_id".into(), code.msg_id().into());
            body.insert("hint".into(), code.hint().into());
        }
        match self {
            ApiError::Unacceptable { reason, .. } | ApiError::WheelConflict { reason, .. } => {
                body.insert("reason".into(), reason.clone().into());
            }
            ApiError::InvalidWorkflow { reason, place } => {
                body.insert("reason".into(), reason.clone().into());
                if let Some(place) = place {
                    body.insert("reason_detail".into(), place.clone().into());
                }
            }
            ApiError::TooManyWatchers => {
                body.insert("hint".into(), WATCHERS_HINT.into());
            }
            ApiError::Forbidden { role, needs } => {
                // Tells programs that the key itself is good.
                body.insert("role".into(), role.as_str().into());
                body.insert("hint".into(), roles_hint(*needs).into());
            }
            ApiError::WheelTooLarge => {
                body.insert("hint".into(), WHEEL_HINT.into());
            }
            ApiError::ForeignPage => {
                body.insert("hint".into(), PAGE_HINT.into());
            }
            ApiError::WheelStoreFull => {
                body.insert("hint".into(), STORE_HINT.into());
            }
            ApiError::TooManyInvalidKeys { .. }
            | ApiError::TooManyKeys
            | ApiError::TooManyUploads => {
                body.insert("hint".into(), LATER_HINT.into());
            }
            ApiError::Schema(problems) if problem_json => {
                body.insert("errors".into(), problems.iter().map(Problem::to_json).collect());
            }
            _ => {}
        }
        let bytes = Value::Object(body).to_string().into_bytes();
        let content_type =
            if problem_json { "application/problem+json" } else { "application/json" };
        let reply = Reply::bytes(self.status(), content_type, bytes);
        match self {
            ApiError::MethodNotAllowed { allow } => reply.with_header("Allow", allow.clone()),
            // HTTP wants the scheme named, and browsers know none of this name, so they ask nobody.
            ApiError::ApiKeyRequired => reply.with_header("WWW-Authenticate", "ApiKey"),
            ApiError::TooManyInvalidKeys { retry_after } => {
                reply.with_header("Retry-After", retry_after.to_string())
            }
            ApiError::NatsUnavailable(_) | ApiError::TooManyKeys => {
                reply.with_header("Retry-After", RETRY_AFTER_SEC)
            }
            ApiError::TooManyWatchers | ApiError::TooManyUploads => {
                reply.with_header("Retry-After", WATCHERS_RETRY_AFTER_SEC)
            }
            _ => reply,
        }
    }

    fn detail(&self, as_text: bool) -> Value {
        match self {
            ApiError::Schema(problems) if !as_text => {
                problems.iter().map(Problem::to_json).collect()
            }
            ApiError::Internal(_) => json!("Internal Server Error"),
            other => other.to_string().into(),
        }
    }

    fn title(&self) -> &'static str {
        match self.status() {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            413 => "Content Too Large",
            422 => "Unprocessable Content",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            507 => "Insufficient Storage",
            _ => "Internal Server Error",
        }
    }

    fn log(&self, request_id: &str) {
        let code = self.code();
        let err_id = code.map(Code::err_id).unwrap_or_default();
        let msg_id = code.map(Code::msg_id).unwrap_or_default();
        let (err_id, msg_id) = (err_id.as_str(), msg_id.as_str());
        match self {
            ApiError::Internal(problem) => {
                log::error!(request_id = request_id, error = problem.as_str(); "a request failed");
            }
            ApiError::NatsUnavailable(_) => {
                log::warn!(request_id = request_id, err_id = err_id, msg_id = msg_id; "{self}");
            }
            ApiError::Unacceptable { reason, .. }
            | ApiError::InvalidWorkflow { reason, .. }
            | ApiError::WheelConflict { reason, .. } => {
                log::info!(request_id = request_id, err_id = err_id, msg_id = msg_id,
                    reason = reason.as_str(); "refused: {self}");
            }
            _ => {
                log::debug!(request_id = request_id, err_id = err_id, msg_id = msg_id;
                    "refused: {self}");
            }
        }
    }
}
