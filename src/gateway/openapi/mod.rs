//! The OpenAPI document of the gateway: one file per group of routes, put together at the start.
//!
//! Bounds come from `model::limits`, words from the enums of `model`, access from the router's table,
//! failures of any request from one list. A test holds the operations against the table. This folder knows no
//! NATS.

mod dashboard;
mod failures;
mod operation;
mod runs;
mod service;
mod shape;
mod streams;
mod wheels;
mod workers;

use serde_json::{Map, Value, json};

use super::api::route::{ROUTES, Route};
use crate::model::limits::MAX_NAME_BYTES;
use operation::Operation;

pub(super) struct Keys {
    pub header: String,
    /// Protected routes ask for one; else none is looked at.
    pub required: bool,
}

pub(super) fn document(keys: &Keys) -> Vec<u8> {
    put_together(keys).to_string().into_bytes()
}

fn operations() -> Vec<Operation> {
    [
        runs::operations(),
        streams::operations(),
        workers::operations(),
        wheels::operations(),
        service::operations(),
        dashboard::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn schemas() -> Map<String, Value> {
    let groups = [
        runs::schemas(),
        streams::schemas(),
        workers::schemas(),
        wheels::schemas(),
        service::schemas(),
        failures::schemas(),
    ];
    groups.into_iter().flatten().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn put_together(keys: &Keys) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let Some(route) = route_of(&operation) else { continue };
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method.to_ascii_lowercase()] = operation.to_json(route.access, keys.required);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pyoco-server",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Runs Pyoco workflows on many machines with nothing but NATS beside it",
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "runs", "description": "Submit, show, list and cancel runs."},
            {"name": "streams", "description": "Changes as server-sent events."},
            {"name": "workers", "description": "Who executes runs."},
            {"name": "wheels", "description": "Python code for workers."},
            {"name": "service", "description": "Probes, metrics and this document."},
            {"name": "dashboard", "description": "A page for people."},
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": keys.header,
                    "description": "Needed where the gateway runs with `PYOCO_HTTP_AUTH_MODE=api_key`.",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The same key as `Authorization: Bearer KEY`, for clients that can send no other header.",
                },
            },
            "parameters": parameters(),
            "headers": headers(),
            "responses": failures::responses(),
            "schemas": schemas(),
        },
    })
}

const ABOUT: &str = "Times are unix seconds. Readers ignore fields that they do not know; answers may \
have more than is written here. Of a repeated query parameter the last value counts, unknown ones are \
ignored. An unknown path is 404, another method 405 with `Allow`, a trailing slash 307.";

fn route_of(operation: &Operation) -> Option<&'static Route> {
    ROUTES
        .iter()
        .find(|route| route.method == operation.method && route.path == without_names(operation.path))
}

/// `/runs/{run_id}` as the router's table has it: `/runs/{}`.
fn without_names(path: &str) -> String {
    let bare = |segment: &str| if segment.starts_with('{') { "{}".into() } else { segment.to_owned() };
    path.split('/').map(bare).collect::<Vec<String>>().join("/")
}

fn parameters() -> Value {
    let header = |name: &str, about: &str, schema: Value| json!({"name": name, "in": "header", "description": about, "schema": schema});
    let plain = || json!({"type": "string"});
    json!({
        "RequestId": header(
            "X-Request-ID",
            "Names the request in the answer and in log lines. Taken over when it has up to 128 printable ASCII characters, else made up.",
            plain(),
        ),
        "IdempotencyKey": header(
            "Idempotency-Key",
            "The same key gives the same run, however often it is sent.",
            json!({"type": "string", "maxLength": MAX_NAME_BYTES}),
        ),
        "LastEventId": header("Last-Event-ID", "The `id` of the last event seen: that version is not sent again.", plain()),
        "IfNoneMatch": header("If-None-Match", "An `ETag` that the client has.", plain()),
    })
}

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "Names the request in log lines.",
            "required": true,
            "schema": {"type": "string"},
        },
        "RetryAfter": {
            "description": "Seconds after which the request may be repeated.",
            "required": true,
            "schema": {"type": "integer", "minimum": 0},
        },
        "ETag": {"description": "Changes with what is sent.", "required": true, "schema": {"type": "string"}},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::gateway::api::error::{
        ApiError, TOO_MANY_KEYS, TOO_MANY_WATCHERS, WHEEL_TOO_LARGE, WORKFLOW_TOO_LARGE,
    };
    use crate::gateway::api::route::{Access, BodyKind};
    use crate::http::error::{BODY_TOO_LARGE, REFUSALS, TOO_MANY_UPLOADS};
    use crate::model::error::Code;
    use crate::model::key::{Permission, Role};

    fn document(required: bool) -> Value {
        put_together(&Keys { header: "X-Key".into(), required })
    }

    fn described(document: &Value) -> Vec<(&'static Route, &Value)> {
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let is_it = |route: &&Route| {
                    route.method.eq_ignore_ascii_case(method) && route.path == without_names(path)
                };
                all.push((ROUTES.iter().find(is_it).unwrap(), operation));
            }
        }
        all
    }

    #[test]
    fn each_route_has_one_operation_and_nothing_else_has() {
        let mut routes: Vec<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        let mut described_routes: Vec<String> = operations()
            .iter()
            .map(|operation| format!("{} {}", operation.method, without_names(operation.path)))
            .collect();
        routes.sort();
        described_routes.sort();
        assert_eq!(described_routes, routes, "operations of the document, lines of the table");
        assert!(operations().iter().all(|operation| route_of(operation).is_some()));
        assert_eq!(described(&document(false)).len(), ROUTES.len());
    }

    #[test]
    fn names_are_unique_and_segments_are_parameters() {
        let document = document(false);
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id), "{id} twice");
                assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
                assert!(!operation["summary"].as_str().unwrap().is_empty(), "{id}");
                let named: Vec<&str> =
                    path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
                let parameters = operation["parameters"].as_array().unwrap();
                let in_path: Vec<&str> = parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                assert_eq!(in_path, named, "{id}");
                let tag = &operation["tags"][0];
                let tags = document["tags"].as_array().unwrap();
                assert!(tags.iter().any(|known| known["name"] == *tag), "{id}: {tag}");
            }
        }
    }

    #[test]
    fn access_is_security() {
        let ways = [json!({"apiKey": []}), json!({"bearer": []})];
        for required in [false, true] {
            let document = document(required);
            assert_eq!(document["components"]["securitySchemes"]["apiKey"]["name"], "X-Key");
            for (route, operation) in described(&document) {
                let security = operation["security"].as_array().unwrap();
                let statuses = &operation["responses"];
                match route.access {
                    Access::Public => assert!(security.is_empty(), "{}", route.path),
                    Access::Protected(_) => {
                        assert!(ways.iter().all(|way| security.contains(way)), "{}", route.path);
                        // Where no keys are asked for, nothing is needed.
                        assert_eq!(!security.contains(&json!({})), required, "{}", route.path);
                    }
                }
                for status in ["401", "403", "429"] {
                    let is_protected = route.access != Access::Public;
                    assert_eq!(statuses.get(status).is_some(), is_protected, "{}", route.path);
                }
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = document(false);
        let mut used = BTreeSet::new();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                        used.insert(pointer.to_owned());
                    }
                    open.extend(fields.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        for kind in ["schemas", "responses", "parameters", "headers"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let pointer = format!("/components/{kind}/{name}");
                assert!(used.contains(&pointer), "nothing refers to {pointer}");
            }
        }
    }

    /// [`happens_at`] does not compile when a kind is missing there; add it here, too.
    fn errors() -> Vec<ApiError> {
        let code = Code::BadInput;
        let text = String::new;
        vec![
            ApiError::UnknownPath,
            ApiError::MethodNotAllowed { allow: text() },
            ApiError::TrailingSlash { location: text() },
            ApiError::Schema(Vec::new()),
            ApiError::Unacceptable { detail: "", code, reason: text() },
            ApiError::InvalidWorkflow { reason: text(), place: None },
            ApiError::BadBody(""),
            ApiError::Bound(&BODY_TOO_LARGE),
            ApiError::RunNotFound,
            ApiError::WorkerNotFound,
            ApiError::Bound(&WHEEL_TOO_LARGE),
            ApiError::Bound(&WORKFLOW_TOO_LARGE),
            ApiError::WheelNotFound,
            ApiError::WheelConflict { detail: "", reason: text() },
            ApiError::WheelStoreFull,
            ApiError::Bound(&TOO_MANY_UPLOADS),
            ApiError::Bound(&TOO_MANY_WATCHERS),
            ApiError::ApiKeyRequired,
            ApiError::InvalidApiKey,
            ApiError::ForeignPage,
            ApiError::Forbidden { role: Role::Viewer, needs: Permission::SubmitRuns },
            ApiError::ForeignPage,
            ApiError::TooManyInvalidKeys { retry_after: 1 },
            ApiError::Bound(&TOO_MANY_KEYS),
            ApiError::NatsUnavailable(text()),
            ApiError::Internal(text()),
        ]
    }

    /// Whether a request that the router has given to `route` can end with `error`.
    fn happens_at(error: &ApiError, route: &Route) -> bool {
        let has_query = matches!(route.path, "/runs" | "/runs/{}/watch" | "/workers" | "/wheels/history");
        let takes_body = !matches!(route.method, "GET" | "DELETE");
        let is_upload = route.body == BodyKind::WheelForm;
        match error {
            // A file that is not there.
            ApiError::UnknownPath => route.path == "/static/{}",
            // Found out before there is a route; `info.description` tells of them.
            ApiError::MethodNotAllowed { .. } | ApiError::TrailingSlash { .. } => false,
            ApiError::Schema(_) => has_query || takes_body,
            ApiError::Unacceptable { .. } => {
                matches!(route.path, "/runs" | "/runs/yaml" | "/workers" | "/wheels/history") || is_upload
            }
            ApiError::InvalidWorkflow { .. } => route.body == BodyKind::WorkflowForm,
            ApiError::RunNotFound => route.path.starts_with("/runs/{}"),
            ApiError::WorkerNotFound => route.path.starts_with("/workers/{}"),
            ApiError::WheelNotFound => route.path.starts_with("/wheels/{}"),
            ApiError::WheelConflict { .. } | ApiError::WheelStoreFull => is_upload,
            ApiError::ForeignPage => route.takes_form(),
            ApiError::ApiKeyRequired
            | ApiError::InvalidApiKey
            | ApiError::Forbidden { .. }
            | ApiError::TooManyInvalidKeys { .. } => route.access != Access::Public,
            ApiError::BadBody(_)
            | ApiError::Bound(_)
            | ApiError::NatsUnavailable(_)
            | ApiError::Internal(_) => true,
        }
    }

    #[test]
    fn every_error_that_a_route_can_end_with_is_documented() {
        let document = document(false);
        let described = described(&document);
        let mut wanted: Vec<BTreeSet<String>> = Vec::new();
        for (route, operation) in &described {
            let mut statuses = BTreeSet::new();
            for error in errors().iter().filter(|error| happens_at(error, route)) {
                let status = error.status().to_string();
                let has = operation["responses"].get(&status).is_some();
                assert!(has, "{} {} does not tell of {status} ({error})", route.method, route.path);
                statuses.insert(status);
            }
            wanted.push(statuses);
        }
        // The other way round: only its own route documents an error that is special to it.
        for ((route, operation), wanted) in described.iter().zip(&wanted) {
            for status in ["404", "409", "422", "507"] {
                let has = operation["responses"].get(status).is_some();
                assert_eq!(has, wanted.contains(status), "{} {} {status}", route.method, route.path);
            }
        }
    }

    #[test]
    fn every_refusal_of_the_http_floor_is_documented_everywhere() {
        let document = document(false);
        for (route, operation) in described(&document) {
            for status in REFUSALS {
                let has = operation["responses"].get(status.to_string()).is_some();
                assert!(has, "{} {} does not tell of {status}", route.method, route.path);
            }
        }
    }
}
