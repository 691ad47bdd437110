//! The way of each request through the gateway: who asks, may they, the handler, the audit.

use super::audit;
use super::context::{Context, Parts};
use super::error::ApiError;
use super::route::{self, Access, Lasts, Route};
use crate::gateway::auth::origin;
use crate::http::{self, Application, Conduct, Method, Reply, Request};

pub struct Dispatcher {
    parts: Parts,
}

/// The line of the table, and the segments that stand for `{}`.
pub type Found = Result<(&'static Route, Vec<String>), ApiError>;

impl Application for Dispatcher {
    type Target = Found;

    fn find(&self, method: &Method, path: &str, query: Option<&str>) -> (Found, Conduct) {
        let found = route::find(method.as_str(), path);
        let conduct =
            route::conduct(found.as_ref().ok().map(|(route, _)| *route), query, &self.parts.settings);
        (found, conduct)
    }

    fn answer(&self, request: &mut Request, target: &Found) -> Reply {
        match target {
            Ok((route, params)) => self.run(route, request, params),
            Err(error) => refusal(request, error),
        }
    }

    fn answered(&self, access: &http::Access<'_>, target: &Found) {
        let route = target.as_ref().ok().map(|(route, _)| *route);
        // How long a client has watched says nothing about us.
        let duration = route.is_none_or(|route| route.lasts != Lasts::Watch);
        let path = route.map(|route| route.path);
        let duration = duration.then_some(access.duration);
        self.parts.metrics.requests.answered(access.method, path, access.status, duration);
    }

    fn refused(&self, status: u16) {
        self.parts.metrics.requests.refused(status);
    }
}

impl Dispatcher {
    pub fn new(parts: Parts) -> Dispatcher {
        Dispatcher { parts }
    }

    fn run(&self, route: &Route, request: &mut Request, params: &[String]) -> Reply {
        let caller = self.parts.auth.stranger();
        let mut cx = Context { request, caller, params, object: None, parts: &self.parts };
        let answered = admit(route, &mut cx).and_then(|()| (route.handler)(&mut cx));
        let reply = answered.unwrap_or_else(|error| refusal(cx.request, &error));
        self.settled(&cx, route, reply.status().0);
        reply
    }

    /// Every request to a route comes by here once, but for one whose handler has panicked.
    fn settled(&self, cx: &Context<'_>, route: &Route, status: u16) {
        audit::note(cx, route, status);
        let Some(holder) = cx.caller.holder() else { return };
        log::debug!(
            request_id = cx.request.request_id(),
            tenant_id = holder.tenant_id.as_str(),
            key_id = holder.key_id.as_str(),
            method = route.method,
            route = route.path,
            target = cx.param(),
            status = status;
            "answered the holder of an API key"
        );
    }
}

fn admit(route: &Route, cx: &mut Context<'_>) -> Result<(), ApiError> {
    let Access::Protected(needs) = route.access else { return Ok(()) };
    cx.caller = cx.parts.auth.authenticate(cx.request)?;
    match cx.caller.holder() {
        Some(holder) if !cx.caller.may(needs) => Err(ApiError::Forbidden { role: holder.role, needs }),
        // A key is more than a foreign page can have.
        None if route.takes_form() && origin::is_foreign(cx.request) => Err(ApiError::ForeignPage),
        _ => Ok(()),
    }
}

fn refusal(request: &Request, error: &ApiError) -> Reply {
    if let ApiError::TrailingSlash { location } = error {
        // Relative: what scheme and host the client used is for the client, and a proxy, to know.
        let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
        return Reply::empty(307).with_header("Location", format!("{location}{query}"));
    }
    let accept = request.header("Accept").unwrap_or_default();
    error.reply(request.request_id(), accept.contains("application/problem+json"))
}
