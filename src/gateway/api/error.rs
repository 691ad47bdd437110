//! What goes wrong in a handler, and the one place that turns it into an answer.

use serde_json::Value;

use super::schema::{self, Problem, counted};
use crate::bus;
use crate::gateway::auth::AuthRefusal;
use crate::gateway::view::hub;
use crate::http::Reply;
use crate::http::error::{BODY_TOO_LARGE, Condition, ErrorReply};
use crate::http::form::FormError;
use crate::model::error::Code;
use crate::model::key::{Permission, Role};

/// 413: a `flow.yaml` of more than `PYOCO_WORKFLOW_YAML_MAX_BYTES`.
pub const WORKFLOW_TOO_LARGE: Condition = Condition {
    status: 413,
    detail: "workflow too large",
    code: Some(Code::WorkflowTooLarge),
    hint: None,
    retry_after: None,
};
/// 413: a wheel of more than `PYOCO_WHEEL_MAX_BYTES`.
pub const WHEEL_TOO_LARGE: Condition = Condition::bad_input(
    413,
    "wheel too large",
    "leave out what workers do not need, or raise PYOCO_WHEEL_MAX_BYTES",
);
/// 503: as many streams of events are open as may be; their places are held for a minute or so.
pub const TOO_MANY_WATCHERS: Condition = Condition::busy("too many watchers", 5)
    .hint("repeat the request after the seconds in Retry-After, or raise PYOCO_HTTP_MAX_WATCHERS");
/// 503: too many keys are being checked that were not seen before.
pub const TOO_MANY_KEYS: Condition = Condition::busy("too many api keys at once", 1);

const STORE_HINT: &str = "delete wheels that nobody needs with `pyoco-client wheel-delete`; the store's size is set when it is made (PYOCO_WHEEL_MAX_BYTES)";
const PAGE_HINT: &str =
    "send it from a program, or from the gateway's own page; a proxy in front must pass `Host` on";
const LATER_HINT: &str = "repeat the request after the seconds in Retry-After";
/// Seconds after which a client should try again when NATS does not answer.
const NATS_RETRY_AFTER: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("Not Found")]
    UnknownPath,
    #[error("Method Not Allowed")]
    MethodNotAllowed { allow: String },
    /// The path has a trailing slash and exists without it (307).
    #[error("the path has a trailing slash")]
    TrailingSlash { location: String },
    /// Body or query do not have the shape that the route wants (422, one entry per problem).
    #[error("{}", counted(.0.len()))]
    Schema(Vec<Problem>),
    #[error("{detail}")]
    Unacceptable { detail: &'static str, code: Code, reason: String },
    /// `reason` is one of those in `docs/flow.md#flowyaml`.
    #[error("invalid workflow yaml")]
    InvalidWorkflow { reason: String, place: Option<String> },
    /// A body that cannot be taken apart at all (400).
    #[error("{0}")]
    BadBody(&'static str),
    /// A bound is broken or reached, which has one answer wherever it is noticed (413, 503).
    #[error("{}", .0.detail)]
    Bound(&'static Condition),
    /// No such run, or not yours (404).
    #[error("run not found")]
    RunNotFound,
    #[error("worker not found")]
    WorkerNotFound,
    #[error("wheel not found")]
    WheelNotFound,
    /// The registry has that wheel, that version or a newer one (409).
    #[error("{detail}")]
    WheelConflict { detail: &'static str, reason: String },
    #[error("wheel store is full")]
    WheelStoreFull,
    #[error("api key required")]
    ApiKeyRequired,
    #[error("invalid api key")]
    InvalidApiKey,
    #[error("role {} may not {}", .role.as_str(), .needs.deed())]
    Forbidden { role: Role, needs: Permission },
    /// A browser has sent a form on behalf of a page that is not the gateway's (403).
    #[error("forms of other pages are not taken")]
    ForeignPage,
    /// Too many wrong keys came from there, or for that key (429).
    #[error("too many invalid api keys")]
    TooManyInvalidKeys { retry_after: u64 },
    /// NATS does not answer, or refuses for the moment (503).
    #[error("nats unavailable: {0}")]
    NatsUnavailable(String),
    /// Our own fault (500); the text goes to the log only.
    #[error("{0}")]
    Internal(String),
}

fn roles_hint(needs: Permission) -> String {
    let roles = Role::ALL.into_iter().filter(|role| role.may(needs)).map(Role::as_str);
    format!("use a key with one of the roles {}", roles.collect::<Vec<_>>().join(", "))
}

impl From<bus::Error> for ApiError {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::TooLarge { .. } => ApiError::Bound(&BODY_TOO_LARGE),
            other => ApiError::NatsUnavailable(other.to_string()),
        }
    }
}

impl From<hub::Full> for ApiError {
    fn from(_: hub::Full) -> Self {
        ApiError::Bound(&TOO_MANY_WATCHERS)
    }
}

impl From<AuthRefusal> for ApiError {
    fn from(refusal: AuthRefusal) -> Self {
        match refusal {
            AuthRefusal::Missing => ApiError::ApiKeyRequired,
            AuthRefusal::Invalid => ApiError::InvalidApiKey,
            AuthRefusal::TooManyTries { retry_after } => {
                // Rounded up, so that the next try is not too early.
                ApiError::TooManyInvalidKeys { retry_after: retry_after.as_secs() + 1 }
            }
            AuthRefusal::Busy => ApiError::Bound(&TOO_MANY_KEYS),
            AuthRefusal::Unknown => ApiError::NatsUnavailable("the list of API keys is not current".into()),
        }
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        ApiError::Schema(vec![problem])
    }
}

impl From<schema::BodyFault> for ApiError {
    fn from(fault: schema::BodyFault) -> Self {
        match fault {
            schema::BodyFault::NotText => ApiError::BadBody("There was an error parsing the body"),
            schema::BodyFault::Problem(problem) => (*problem).into(),
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
            ApiError::Bound(condition) => condition.status,
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
            ApiError::Schema(_) | ApiError::Unacceptable { .. } | ApiError::InvalidWorkflow { .. } => 422,
            ApiError::TooManyInvalidKeys { .. } => 429,
            ApiError::Internal(_) => 500,
            ApiError::NatsUnavailable(_) => 503,
            ApiError::WheelStoreFull => 507,
        }
    }

    pub fn code(&self) -> Option<Code> {
        Some(match self {
            ApiError::Bound(condition) => return condition.code,
            ApiError::Schema(_) | ApiError::BadBody(_) | ApiError::InvalidWorkflow { .. } => Code::BadInput,
            ApiError::Unacceptable { code, .. } => *code,
            ApiError::RunNotFound => Code::RunNotFound,
            ApiError::WorkerNotFound => Code::WorkerNotFound,
            ApiError::WheelNotFound => Code::WheelNotFound,
            ApiError::WheelConflict { .. } => Code::WheelConflict,
            ApiError::NatsUnavailable(_) => Code::NatsUnavailable,
            ApiError::ApiKeyRequired => Code::ApiKeyMissing,
            ApiError::InvalidApiKey | ApiError::TooManyInvalidKeys { .. } => Code::ApiKeyInvalid,
            ApiError::UnknownPath
            | ApiError::MethodNotAllowed { .. }
            | ApiError::TrailingSlash { .. }
            | ApiError::Forbidden { .. }
            | ApiError::ForeignPage
            | ApiError::WheelStoreFull
            | ApiError::Internal(_) => return None,
        })
    }

    /// The answer, and its log line. `as_problem` asks for RFC 9457 instead of FastAPI's shape.
    pub fn reply(&self, request_id: &str, as_problem: bool) -> Reply {
        self.log(request_id);
        let reply = self.written().into_reply(as_problem);
        match self {
            ApiError::MethodNotAllowed { allow } => reply.with_header("Allow", allow),
            // HTTP wants the scheme named, and browsers know none of this name, so they ask nobody.
            ApiError::ApiKeyRequired => reply.with_header("WWW-Authenticate", "ApiKey"),
            _ => reply,
        }
    }

    fn written(&self) -> ErrorReply {
        let detail = match self {
            ApiError::Bound(condition) => return ErrorReply::from(*condition),
            ApiError::Schema(problems) => problems.iter().map(Problem::to_json).collect(),
            ApiError::Internal(_) => "Internal Server Error".into(),
            other => Value::from(other.to_string()),
        };
        let mut reply = ErrorReply {
            status: self.status(),
            detail,
            code: self.code(),
            hint: None,
            fields: Vec::new(),
            retry_after: None,
        };
        match self {
            ApiError::Unacceptable { reason, .. } | ApiError::WheelConflict { reason, .. } => {
                reply.fields.push(("reason", reason.as_str().into()));
            }
            ApiError::InvalidWorkflow { reason, place } => {
                reply.fields.push(("reason", reason.as_str().into()));
                let place = place.as_deref().map(|place| ("reason_detail", place.into()));
                reply.fields.extend(place);
            }
            ApiError::Forbidden { role, needs } => {
                // Tells programs that the key itself is good.
                reply.fields.push(("role", role.as_str().into()));
                reply.hint = Some(roles_hint(*needs).into());
            }
            ApiError::ForeignPage => reply.hint = Some(PAGE_HINT.into()),
            ApiError::WheelStoreFull => reply.hint = Some(STORE_HINT.into()),
            ApiError::TooManyInvalidKeys { retry_after } => {
                reply.hint = Some(LATER_HINT.into());
                reply.retry_after = Some(*retry_after);
            }
            ApiError::NatsUnavailable(_) => reply.retry_after = Some(NATS_RETRY_AFTER),
            _ => {}
        }
        reply
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
