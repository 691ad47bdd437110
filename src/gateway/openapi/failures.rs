//! How errors look, by status. Each status is described once; operations refer to it.

use serde_json::{Map, Value, json};

use super::shape::{anything, count, list_of, object, reference, text};

/// What any request may meet, whatever its route: refusals of the HTTP floor, our own faults, NATS.
pub(super) const EVERYWHERE: &[u16] = &[400, 408, 413, 417, 431, 500, 501, 503, 504, 505];
/// What a request to a protected route may meet when keys are asked for.
pub(super) const OF_KEYS: &[u16] = &[401, 403, 429];

const ALL: &[(u16, &str, &str)] = &[
    (
        400,
        "BadRequest",
        "Not HTTP, not UTF-8, a form that cannot be taken apart, or a body that ended early.",
    ),
    (401, "ApiKeyRequired", "Keys are asked for, and there is none."),
    (
        403,
        "Forbidden",
        "The key is malformed, unknown, wrong, revoked or expired; or its role may not do this. Or the form is that of another web page.",
    ),
    (404, "NotFound", "There is none of that id, or it belongs to another tenant."),
    (408, "TooSlow", "Head or body did not arrive in time."),
    (409, "Conflict", "The registry has that wheel, that version of its package, or a newer one."),
    (413, "TooLarge", "The body, or what is made of it, is too large."),
    (417, "ExpectationFailed", "`Expect` is not `100-continue`."),
    (
        422,
        "Unprocessable",
        "The request has another shape (`detail` is a list), or is not acceptable (`reason` says why).",
    ),
    (429, "TooManyInvalidKeys", "Too many wrong keys came from this address, or for this key."),
    (431, "HeadTooLarge", "The head is too large, or has too many headers."),
    (500, "InternalError", "A fault of the gateway; its log line has the same request id."),
    (501, "NotImplemented", "A transfer coding other than a lone `chunked`, or CONNECT."),
    (503, "Unavailable", "NATS is not there, or a bound is reached. May be repeated after `Retry-After`."),
    (504, "Unanswered", "No answer in time. Look whether the request took effect before it is repeated."),
    (505, "HttpVersion", "Neither HTTP/1.1 nor HTTP/1.0."),
    (507, "StoreFull", "The store of wheels takes no more until some are deleted."),
];

pub(super) fn name(status: u16) -> &'static str {
    ALL.iter().find(|(known, ..)| *known == status).map_or("InternalError", |(_, name, _)| name)
}

pub(super) fn headers_of(status: u16) -> Value {
    let mut headers = Map::new();
    headers.insert("X-Request-ID".into(), json!({"$ref": "#/components/headers/RequestId"}));
    if matches!(status, 429 | 503) {
        headers.insert("Retry-After".into(), json!({"$ref": "#/components/headers/RetryAfter"}));
    }
    headers.into()
}

pub(super) fn responses() -> Map<String, Value> {
    let mut responses = Map::new();
    for (status, name, about) in ALL {
        let plain = match status {
            422 => json!({"oneOf": [reference("ValidationErrors"), reference("Error")]}),
            _ => reference("Error"),
        };
        let answer = json!({
            "description": about,
            "headers": headers_of(*status),
            "content": {
                "application/json": {"schema": plain},
                "application/problem+json": {"schema": reference("Problem")},
            },
        });
        responses.insert((*name).to_owned(), answer);
    }
    responses
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("Error", error()),
        ("ValidationErrors", validation_errors()),
        ("ValidationError", validation_error()),
        ("Problem", problem()),
    ]
}

fn numbers() -> Map<String, Value> {
    let Value::Object(fields) = json!({
        "err_id": {"type": "string", "pattern": "^ERR-PYOCO-[0-9]{4}$",
            "description": "Number of the error; docs/errors.md lists them"},
        "msg_id": {"type": "string", "pattern": "^MSG-PYOCO-[0-9]{4}$",
            "description": "Number of its text"},
        "hint": text("The way out"),
        "role": text("Of a 403: the role of the key, which is good for other things"),
        "reason": text("What exactly is wrong, where `detail` alone does not say it"),
        "reason_detail": text("Where in the document"),
    }) else {
        return Map::new();
    };
    fields
}

fn with_numbers(about: &str, required: &[&str], own: Value) -> Value {
    let mut schema = object(about, required, own);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.extend(numbers());
    }
    schema
}

fn error() -> Value {
    let about = "What went wrong. `err_id`, `msg_id` and `hint` are there when the error has a number.";
    let mut schema = with_numbers(about, &["detail"], json!({"detail": text("In words")}));
    schema["examples"] = json!([{
        "detail": "run not found",
        "err_id": "ERR-PYOCO-0005",
        "msg_id": "MSG-PYOCO-0005",
        "hint": "list runs with `pyoco-client list`",
    }]);
    schema
}

fn validation_errors() -> Value {
    let detail = list_of("One entry per problem", reference("ValidationError"));
    with_numbers("A request of another shape.", &["detail"], json!({"detail": detail}))
}

fn validation_error() -> Value {
    let step = json!({"type": ["string", "integer"]});
    let mut schema = object(
        "One problem, in the words of FastAPI.",
        &["type", "loc", "msg", "input"],
        json!({
            "type": text("Its kind"),
            "loc": list_of("Where it is", step),
            "msg": text("In words"),
            "input": anything("What was there"),
            "ctx": {"type": "object", "description": "The bound that was broken"},
        }),
    );
    schema["examples"] = json!([{
        "type": "less_than_equal",
        "loc": ["query", "limit"],
        "msg": "Input should be less than or equal to 200",
        "input": "201",
        "ctx": {"le": 200},
    }]);
    schema
}

fn problem() -> Value {
    with_numbers(
        "RFC 9457, when `Accept` names `application/problem+json`.",
        &["type", "title", "status", "detail"],
        json!({
            "type": text("Always `about:blank`"),
            "title": text("The status in words"),
            "status": count("The status"),
            "detail": text("In words"),
            "errors": list_of("One entry per problem of the shape", reference("ValidationError")),
        }),
    )
}
