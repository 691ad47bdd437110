//! Which handler answers which method and path: one table, decided purely.

use std::borrow::Cow;

use super::error::ApiError;
use super::{
    cancel, events, health, list, metrics, openapi, show, submit, submit_yaml, watch, wheels,
    workers,
};
use crate::gateway::Gateway;
use crate::gateway::page as dashboard;
use crate::http::{Reply, Request};
use crate::model::key::Permission;

/// A handler. `params` are the decoded path parameters, in order.
pub type HandlerFn = fn(&Gateway, &mut Request, params: &[String]) -> Result<Reply, ApiError>;

/// Who may call a route when API keys are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: probes, what describes the routes, and the dashboard, which holds no data.
    Public,
    /// Holders of a key whose role may do this. A new route is this unless it says otherwise.
    Protected(Permission),
}

/// What a route's body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing or JSON, within `MAX_JSON_BODY_BYTES`.
    Json,
    /// A form with a workflow document.
    WorkflowForm,
    /// A form with a wheel, which may be far larger than what fits into memory: it is streamed.
    WheelForm,
}

/// How long an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// As long as the work takes.
    Briefly,
    /// As long as the client listens: a stream of events.
    Long,
}

/// One line of the table.
pub struct Route {
    pub method: &'static str,
    /// Segments; `{}` matches any one.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    pub body: BodyKind,
    /// How long its answer goes on.
    pub lasts: Lasts,
    pub handler: HandlerFn,
}

/// The table. Of two lines that match, the first one counts.
pub const ROUTES: &[Route] = &[
    get("/health", Access::Public, health::alive),
    get("/healthz", Access::Public, health::alive),
    get("/livez", Access::Public, health::alive),
    get("/readyz", Access::Public, health::ready),
    get("/runs", Access::Protected(Permission::ReadRuns), list::runs),
    post("/runs", BodyKind::Json, Permission::SubmitRuns, submit::run),
    post("/runs/yaml", BodyKind::WorkflowForm, Permission::SubmitRuns, submit_yaml::run),
    get("/runs/{}", Access::Protected(Permission::ReadRuns), show::run),
    get("/runs/{}/tasks", Access::Protected(Permission::ReadRuns), show::tasks),
    stream("/runs/{}/watch", Permission::ReadRuns, watch::run),
    post("/runs/{}/cancel", BodyKind::Json, Permission::CancelRuns, cancel::run),
    stream("/events", Permission::ReadRuns, events::all),
    get("/workers", Access::Protected(Permission::ReadWorkers), workers::list),
    patch("/workers/{}", Permission::HideWorkers, workers::patch),
    get("/wheels", Access::Protected(Permission::ReadWheels), wheels::list),
    post("/wheels", BodyKind::WheelForm, Permission::UploadWheels, wheels::upload),
    get("/wheels/history", Access::Protected(Permission::ReadWheelHistory), wheels::history),
    get("/wheels/{}", Access::Protected(Permission::ReadWheels), wheels::download),
    delete("/wheels/{}", Permission::DeleteWheels, wheels::delete),
    get("/metrics", Access::Protected(Permission::ReadMetrics), metrics::text),
    get("/openapi.json", Access::Public, openapi::document),
    get("/", Access::Public, dashboard::page),
    get("/static/{}", Access::Public, dashboard::file),
];

const fn get(path: &'static str, access: Access, handler: HandlerFn) -> Route {
    Route { method: "GET", path, access, body: BodyKind::Json, lasts: Lasts::Briefly, handler }
}

const fn stream(path: &'static str, needs: Permission, handler: HandlerFn) -> Route {
    Route { lasts: Lasts::Long, ..get(path, Access::Protected(needs), handler) }
}

const fn post(path: &'static str, body: BodyKind, needs: Permission, handler: HandlerFn) -> Route {
    Route { method: "POST", body, ..get(path, Access::Protected(needs), handler) }
}

const fn patch(path: &'static str, needs: Permission, handler: HandlerFn) -> Route {
    Route { method: "PATCH", ..get(path, Access::Protected(needs), handler) }
}

const fn delete(path: &'static str, needs: Permission, handler: HandlerFn) -> Route {
    Route { method: "DELETE", ..get(path, Access::Protected(needs), handler) }
}

/// Finds the route of a request; the path is percent-encoded, as it came.
///
/// # Errors
/// [`ApiError::UnknownPath`], [`ApiError::MethodNotAllowed`], [`ApiError::TrailingSlash`] (its
/// location is the path alone).
pub fn find(method: &str, raw_path: &str) -> Result<(&'static Route, Vec<String>), ApiError> {
    let path = decoded(raw_path);
    let mut allowed = Vec::new();
    for route in ROUTES {
        if let Some(params) = matched(route.path, &path) {
            if route.method == method {
                return Ok((route, params));
            }
            // Several lines may match one path.
            if !allowed.contains(&route.method) {
                allowed.push(route.method);
            }
        }
    }
    if !allowed.is_empty() {
        return Err(ApiError::MethodNotAllowed { allow: allowed.join(", ") });
    }
    let bare = path.trim_end_matches('/');
    if bare.len() < path.len() && ROUTES.iter().any(|r| matched(r.path, bare).is_some()) {
        let location = raw_path.trim_end_matches('/').to_owned();
        return Err(ApiError::TrailingSlash { location });
    }
    Err(ApiError::UnknownPath)
}

/// What a request's body may be, before its route is looked at in full.
pub fn body_kind(method: &str, raw_path: &str) -> BodyKind {
    find(method, raw_path).map_or(BodyKind::Json, |(route, _)| route.body)
}

fn decoded(raw_path: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(raw_path).decode_utf8_lossy()
}

fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut params = Vec::new();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        match wanted {
            "{}" if !segment.is_empty() => params.push(segment.to_owned()),
            _ if wanted == segment => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(method: &str, path: &str) -> String {
        match find(method, path) {
            Ok((route, params)) => format!("{} {params:?}", route.path),
            Err(ApiError::MethodNotAllowed { allow }) => format!("allow {allow}"),
            Err(ApiError::TrailingSlash { location }) => format!("to {location}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn paths_and_methods_are_told_apart() {
        for (method, path, expected) in [
            ("GET", "/runs", "/runs []"),
            ("POST", "/runs/yaml", "/runs/yaml []"),
            ("GET", "/runs/yaml", "/runs/{} [\"yaml\"]"),
            ("GET", "/runs/a%20b", "/runs/{} [\"a b\"]"),
            ("GET", "/runs/a%2Fb", "Not Found"),
            ("GET", "/runs/a/tasks", "/runs/{}/tasks [\"a\"]"),
            ("GET", "/runs/a/watch", "/runs/{}/watch [\"a\"]"),
            ("PATCH", "/workers/host.example-1", "/workers/{} [\"host.example-1\"]"),
            ("GET", "/workers/w", "allow PATCH"),
            ("GET", "/wheels/history", "/wheels/history []"),
            ("DELETE", "/wheels/history", "/wheels/{} [\"history\"]"),
            ("POST", "/wheels/history", "allow GET, DELETE"),
            (
                "GET",
                "/wheels/a-1.0%2Bx-py3-none-any.whl",
                "/wheels/{} [\"a-1.0+x-py3-none-any.whl\"]",
            ),
            ("DELETE", "/runs", "allow GET, POST"),
            ("POST", "/health", "allow GET"),
            ("GET", "/runs/", "to /runs"),
            ("GET", "/runs/a/", "to /runs/a"),
            ("GET", "/nope/", "Not Found"),
            ("GET", "/", "/ []"),
            ("POST", "/", "allow GET"),
            ("GET", "//", "Not Found"),
            ("GET", "/static/a.js", "/static/{} [\"a.js\"]"),
            ("GET", "/static/../a.js", "Not Found"),
            ("GET", "/static", "Not Found"),
            ("GET", "//runs", "Not Found"),
            ("GET", "/runs//tasks", "Not Found"),
            ("GET", "/runs/%ff", "/runs/{} [\"\u{fffd}\"]"),
        ] {
            assert_eq!(outcome(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn only_what_holds_no_data_is_public() {
        let public: Vec<_> =
            ROUTES.iter().filter(|r| r.access == Access::Public).map(|r| r.path).collect();
        let probes = ["/health", "/healthz", "/livez", "/readyz"];
        assert_eq!(public, [&probes[..], &["/openapi.json", "/", "/static/{}"]].concat());
    }
}
