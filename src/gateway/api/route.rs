//! Which handler answers which method and path: one table, decided purely.

use std::borrow::Cow;

use super::context::Context;
use super::error::{ApiError, WHEEL_TOO_LARGE, WORKFLOW_TOO_LARGE};
use super::runs::{cancel, list, show, submit, submit_yaml, watch};
use super::schema::Query;
use super::{events, health, metrics, openapi, page, wheels, workers};
use crate::gateway::settings::GatewaySettings;
use crate::http::error::BODY_TOO_LARGE;
use crate::http::{Conduct, Reply, Transfer};
use crate::model::key::Permission;
use crate::model::limits::{MAX_JSON_BODY_BYTES, MULTIPART_OVERHEAD_BYTES};

pub type HandlerFn = fn(&mut Context<'_>) -> Result<Reply, ApiError>;

/// Who may call a route when API keys are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: probes, what describes the routes, and the dashboard, which holds no data.
    Public,
    /// Holders of a key whose role may do this. A new route is this unless it says otherwise.
    Protected(Permission),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing or JSON, within `MAX_JSON_BODY_BYTES`.
    Json,
    WorkflowForm,
    /// A form with a wheel, which may be larger than memory: its handler reads it while it arrives.
    WheelForm,
}

/// How long a request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// No time: it looks at memory alone and never waits. For probes.
    Moment,
    Briefly,
    /// The same, but with `include=full` as long as up to 200 snapshots take to be read and sent.
    List,
    /// As long as the client takes to read an object.
    Download,
    /// As long as the client listens: a stream of events.
    Watch,
}

pub struct Route {
    pub method: &'static str,
    /// Segments; `{}` matches any one.
    pub path: &'static str,
    pub access: Access,
    pub body: BodyKind,
    pub lasts: Lasts,
    /// HEAD is answered as well, without the body.
    pub has_head: bool,
    pub handler: HandlerFn,
}

/// The table. Of two lines that match, the first one counts.
pub const ROUTES: &[Route] = &[
    get("/health", Access::Public, health::alive).lasts(Lasts::Moment),
    get("/healthz", Access::Public, health::alive).lasts(Lasts::Moment),
    get("/livez", Access::Public, health::alive).lasts(Lasts::Moment),
    get("/readyz", Access::Public, health::ready),
    read("/runs", Permission::ReadRuns, list::runs).lasts(Lasts::List),
    post("/runs", BodyKind::Json, Permission::SubmitRuns, submit::run),
    post("/runs/yaml", BodyKind::WorkflowForm, Permission::SubmitRuns, submit_yaml::run),
    read("/runs/{}", Permission::ReadRuns, show::run),
    read("/runs/{}/tasks", Permission::ReadRuns, show::tasks),
    read("/runs/{}/watch", Permission::ReadRuns, watch::run).lasts(Lasts::Watch),
    post("/runs/{}/cancel", BodyKind::Json, Permission::CancelRuns, cancel::run),
    read("/events", Permission::ReadRuns, events::all).lasts(Lasts::Watch),
    read("/workers", Permission::ReadWorkers, workers::list),
    patch("/workers/{}", Permission::HideWorkers, workers::patch),
    read("/wheels", Permission::ReadWheels, wheels::list),
    post("/wheels", BodyKind::WheelForm, Permission::UploadWheels, wheels::upload),
    read("/wheels/history", Permission::ReadWheelHistory, wheels::history),
    read("/wheels/{}", Permission::ReadWheels, wheels::download).lasts(Lasts::Download).with_head(),
    delete("/wheels/{}", Permission::DeleteWheels, wheels::delete),
    read("/metrics", Permission::ReadMetrics, metrics::text),
    get("/openapi.json", Access::Public, openapi::document),
    get("/", Access::Public, page::index).with_head(),
    get("/static/{}", Access::Public, page::file).with_head(),
];

impl Route {
    /// Whether its body is a form, which a browser sends for any page without asking first.
    pub fn takes_form(&self) -> bool {
        self.body != BodyKind::Json
    }

    const fn lasts(self, lasts: Lasts) -> Route {
        Route { lasts, ..self }
    }

    const fn with_head(self) -> Route {
        Route { has_head: true, ..self }
    }

    fn answers(&self, method: &str) -> bool {
        self.method == method || (self.has_head && method == "HEAD")
    }

    fn methods(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.method).chain(self.has_head.then_some("HEAD"))
    }
}

const fn get(path: &'static str, access: Access, handler: HandlerFn) -> Route {
    let (method, body, lasts) = ("GET", BodyKind::Json, Lasts::Briefly);
    Route { method, path, access, body, lasts, has_head: false, handler }
}

const fn read(path: &'static str, needs: Permission, handler: HandlerFn) -> Route {
    get(path, Access::Protected(needs), handler)
}

const fn post(path: &'static str, body: BodyKind, needs: Permission, handler: HandlerFn) -> Route {
    Route { method: "POST", body, ..read(path, needs, handler) }
}

const fn patch(path: &'static str, needs: Permission, handler: HandlerFn) -> Route {
    Route { method: "PATCH", ..read(path, needs, handler) }
}

const fn delete(path: &'static str, needs: Permission, handler: HandlerFn) -> Route {
    Route { method: "DELETE", ..read(path, needs, handler) }
}

/// `raw_path` is percent-encoded; the location of [`ApiError::TrailingSlash`] is the path alone.
pub fn find(method: &str, raw_path: &str) -> Result<(&'static Route, Vec<String>), ApiError> {
    let path = decoded(raw_path);
    let mut allowed = Vec::new();
    for route in ROUTES {
        if let Some(params) = matched(route.path, &path) {
            if route.answers(method) {
                return Ok((route, params));
            }
            for method in route.methods() {
                // Several lines may match one path.
                if !allowed.contains(&method) {
                    allowed.push(method);
                }
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

/// How a request is treated; one without a route as one with a small body.
pub fn conduct(route: Option<&Route>, query: Option<&str>, settings: &GatewaySettings) -> Conduct {
    let (body, lasts) = route.map_or((BodyKind::Json, Lasts::Briefly), |r| (r.body, r.lasts));
    let (max_body, too_large) = match body {
        BodyKind::Json => (MAX_JSON_BODY_BYTES, &BODY_TOO_LARGE),
        // What the form adds to the file is no part of the limit.
        BodyKind::WorkflowForm => {
            let limit = settings.max_workflow_bytes.saturating_add(MULTIPART_OVERHEAD_BYTES);
            (limit, &WORKFLOW_TOO_LARGE)
        }
        BodyKind::WheelForm => {
            (settings.max_wheel_bytes.saturating_add(MULTIPART_OVERHEAD_BYTES), &WHEEL_TOO_LARGE)
        }
    };
    let transfer = match (body, lasts) {
        (BodyKind::WheelForm, _) => Transfer::Upload,
        (_, Lasts::Moment) => Transfer::Immediate,
        (_, Lasts::Download | Lasts::Watch) => Transfer::Stream,
        (_, Lasts::List) if Query::parse(query).is_full() => Transfer::Stream,
        (_, Lasts::List | Lasts::Briefly) => Transfer::Whole,
    };
    Conduct { transfer, max_body, too_large }
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
            ("POST", "/wheels/history", "allow GET, HEAD, DELETE"),
            ("GET", "/wheels/a-1.0%2Bx-py3-none-any.whl", "/wheels/{} [\"a-1.0+x-py3-none-any.whl\"]"),
            ("DELETE", "/runs", "allow GET, POST"),
            ("POST", "/health", "allow GET"),
            ("GET", "/runs/", "to /runs"),
            ("GET", "/runs/a/", "to /runs/a"),
            ("GET", "/nope/", "Not Found"),
            ("GET", "/", "/ []"),
            ("POST", "/", "allow GET, HEAD"),
            ("GET", "//", "Not Found"),
            ("HEAD", "/", "/ []"),
            ("HEAD", "/runs", "allow GET, POST"),
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
        let public: Vec<_> = ROUTES.iter().filter(|r| r.access == Access::Public).map(|r| r.path).collect();
        let probes = ["/health", "/healthz", "/livez", "/readyz"];
        assert_eq!(public, [&probes[..], &["/openapi.json", "/", "/static/{}"]].concat());
    }
}
