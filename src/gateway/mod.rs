//! The HTTP gateway: from a public TCP socket to NATS, and back.
//!
//! [`edge`] owns the public port and decides what may come in at all; [`http`] hands what came in
//! to a fixed pool of handler threads. Handlers see only requests that are whole (uploads: told
//! whether they are), bounded and well-formed, and whatever they do (panic, stall, answer late) costs one answer, never a thread
//! of the pool. [`route`] is the table of handlers, [`multipart`] takes their forms apart, [`api`] the handlers, [`index`] every run in
//! memory, [`auth`] who asks, `audit` what they have changed, `wheels` which code workers get, [`hub`] tells changes to whoever watches, [`metrics`] measures, [`dashboard`] is
//! the page for people, [`openapi`] describes the routes. This floor knows nothing of workers but their
//! records, and never executes a flow.

#[doc(hidden)]
pub mod api;
#[doc(hidden)]
pub mod auth;
mod chores;
#[doc(hidden)]
pub mod metrics;
mod openapi;
mod page;
#[doc(hidden)]
pub mod view;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use api::error::ApiError;
pub use auth::AuthSettings;
pub use page::Lang;

use crate::bus::{self, Bus, Kv, Watch, WorkQueue};
use crate::http::cached::Cached;
use crate::http::edge::{self, BodyRule};
use crate::http::{Handler, HttpError, HttpServer, HttpSettings, Reply, Request};
use crate::model::limits;
use crate::thread::Service;
use api::audit::Audit;
use api::route::{self, Access, BodyKind, Lasts, Route};
use auth::{Auth, origin};
use chores::Undo;
use crossbeam_channel::bounded;
use metrics::{Metrics, RequestFigures};
use view::WheelRegistry;
use view::backlog::Backlog;
use view::hub::Hub;
use view::keys::KeyMirror;
use view::runs::RunIndex;
use view::workers::WorkerMirror;

/// What a gateway is told at its start.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Tag of a submit that names none.
    pub default_tag: String,
    /// Largest `flow.yaml`, in bytes.
    pub max_workflow_bytes: u64,
    /// Largest wheel, in bytes.
    pub max_wheel_bytes: u64,
    /// How long the history of wheels is kept.
    pub wheel_history_kept: Duration,
    /// Silence after which a worker counts as disconnected.
    pub disconnect_timeout: Duration,
    /// Between two writes of a worker's record.
    pub worker_heartbeat: Duration,
    /// Between a cancel and the use of force.
    pub cancel_grace: Duration,
    /// Handler threads.
    pub threads: usize,
    /// Silence after which a worker's record is removed.
    pub workers_retention: Duration,
    /// Streams of events open at once.
    pub max_watchers: usize,
    /// A reverse proxy stands in front and does the edge's work.
    pub behind_proxy: bool,
    /// The header that carries an API key.
    pub api_key_header: String,
    /// How API keys are checked; `None` lets everybody do everything.
    pub auth: Option<AuthSettings>,
    /// Language of the dashboard for visitors who have not chosen one.
    pub dashboard_lang: Lang,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, or may not be used.
    #[error("cannot listen on {address}: {source}; choose another port with --port")]
    Listen {
        /// What was asked for.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The HTTP layer did not start.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The operating system gives no more threads.
    #[error("cannot start a thread of the gateway: {0}")]
    Thread(#[from] std::io::Error),
    /// A watch did not start.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// API keys cannot be checked.
    #[error("cannot check API keys: {0}")]
    Auth(#[from] auth::hash::CannotMake),
}

/// What handlers work with.
pub struct Gateway {
    bus: Bus,
    runs: Kv,
    /// The bucket of worker records.
    records: Kv,
    queue: WorkQueue,
    index: RunIndex,
    workers: WorkerMirror,
    wheels: WheelRegistry,
    hub: Hub,
    auth: Auth,
    audit: Audit,
    metrics: Metrics,
    backlog: Arc<Backlog>,
    undo: Undo,
    openapi: Cached,
    settings: GatewaySettings,
}

/// A running gateway. Dropping it is a hard stop.
///
/// Field order is the shutdown order: no streams, no requests, no chores, then no watches.
pub struct RunningGateway {
    streams: OpenStreams,
    http: HttpServer,
    _chores: Service,
    _watches: Vec<Watch>,
}

/// Ends all streams of events when it is dropped; they would outlast any grace period.
struct OpenStreams(Hub);

impl Drop for OpenStreams {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl RunningGateway {
    /// Listens on `address` and serves; NATS may come later.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running then.
    pub fn start(
        address: SocketAddr,
        bus: &Bus,
        settings: GatewaySettings,
    ) -> Result<RunningGateway, Error> {
        let listener = TcpListener::bind(address)
            .map_err(|source| Error::Listen { address: address.to_string(), source })?;
        let hub = Hub::new(settings.max_watchers);
        let metrics = Metrics::default();
        let figures = metrics.runs.clone();
        let observer = move |old: Option<&_>, new: &_, live| figures.moved(old, new, live);
        let index = RunIndex::new(hub.clone(), Box::new(observer));
        let workers = WorkerMirror::new(hub.clone());
        let wheels = WheelRegistry::new(bus, settings.wheel_history_kept);
        let key_mirror = KeyMirror::new(hub.clone());
        let mut watches = vec![index.follow(&bus.runs())?, workers.follow(&bus.workers())?];
        watches.extend(wheels.follow()?);
        if settings.auth.is_some() {
            watches.push(key_mirror.follow(&bus.auth())?);
        }
        let (kick, kicked) = bounded(1);
        let backlog = Arc::new(Backlog::new(kick.clone()));
        let undo = Undo::new(bus.runs(), index.clone(), kick);
        let parts = chores::Parts {
            bus: bus.clone(),
            runs: index.clone(),
            workers: workers.clone(),
            keys: settings.auth.is_some().then(|| key_mirror.clone()),
            backlog: backlog.clone(),
            undo: undo.clone(),
            disconnect_timeout: settings.disconnect_timeout,
            worker_heartbeat: settings.worker_heartbeat,
            workers_retention: settings.workers_retention,
            cancel_grace: settings.cancel_grace,
        };
        let chores = chores::start(parts, kicked)?;
        let header = settings.api_key_header.as_str();
        let auth = Auth::new(settings.auth.clone(), header, key_mirror)?;
        let http = http_settings(&settings, &metrics.requests);
        let keys = openapi::Keys { header, required: settings.auth.is_some() };
        let gateway = Gateway {
            bus: bus.clone(),
            auth,
            audit: Audit::new(&bus.audit()),
            runs: bus.runs(),
            records: bus.workers(),
            queue: bus.queue(),
            undo,
            index,
            workers,
            wheels,
            hub: hub.clone(),
            metrics,
            backlog,
            openapi: Cached::new("application/json", openapi::document(&keys)),
            settings,
        };
        let http = HttpServer::start(listener, http, Arc::new(gateway))?;
        // Watchers hold their places for long: some are always left to other long answers.
        let long = limits::LONG_ANSWERS.min(http.max_streams() / 4);
        hub.lower_limit(http.max_streams() - long);
        log::info!(address = http.local_addr().to_string(); "gateway listens");
        Ok(RunningGateway { streams: OpenStreams(hub), http, _chores: chores, _watches: watches })
    }

    /// The public address, with the port that the system chose if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Takes no new request, lets those in flight finish within `grace`, and ends. `false` when
    /// something was cut off.
    pub fn stop(self, grace: Duration) -> bool {
        drop(self.streams);
        self.http.stop(grace)
    }
}

impl Handler for Gateway {
    fn handle(&self, request: &mut Request) -> Reply {
        request.set_caller(self.auth.stranger());
        let error = match route::find(request.method(), request.path()) {
            Ok((route, params)) => {
                let answered = self
                    .admit(route, request)
                    .and_then(|()| (route.handler)(self, request, &params));
                let reply = answered.unwrap_or_else(|error| refusal(request, &error));
                self.settled(request, route, &params, reply.status);
                return reply;
            }
            Err(ApiError::TrailingSlash { location }) => {
                ApiError::TrailingSlash { location: absolute(request, &location) }
            }
            Err(e) => e,
        };
        refusal(request, &error)
    }
}

fn refusal(request: &Request, error: &ApiError) -> Reply {
    let accept = request.header("Accept").unwrap_or_default();
    error.reply(request.request_id(), accept.contains("application/problem+json"))
}

impl Gateway {
    /// Finds out who asks, and whether they may use this route.
    fn admit(&self, route: &Route, request: &mut Request) -> Result<(), ApiError> {
        let Access::Protected(needs) = route.access else { return Ok(()) };
        request.set_caller(self.auth.authenticate(request)?);
        let caller = request.caller();
        match caller.holder() {
            Some(holder) if !caller.may(needs) => {
                Err(ApiError::Forbidden { role: holder.role, needs })
            }
            // A key is more than a foreign page can have.
            None if route.body != BodyKind::Json && origin::is_foreign(request) => {
                Err(ApiError::ForeignPage)
            }
            _ => Ok(()),
        }
    }

    /// Who has done what to what, and how it ended: every request to a route comes by here once, but
    /// for one whose handler has panicked.
    fn settled(&self, request: &Request, route: &Route, params: &[String], status: u16) {
        self.audit.note(request, route, params, status);
        let Some(holder) = request.caller().holder() else { return };
        log::debug!(
            request_id = request.request_id(),
            tenant_id = holder.tenant_id.as_str(),
            key_id = holder.key_id.as_str(),
            method = route.method,
            route = route.path,
            target = params.first().map(String::as_str).unwrap_or_default(),
            status = status;
            "answered the holder of an API key"
        );
    }
}

/// The URL of `path` on the host that the client named, with the query that it sent.
fn absolute(request: &Request, path: &str) -> String {
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    match request.header("Host") {
        Some(host) => format!("http://{host}{path}{query}"),
        None => format!("{path}{query}"),
    }
}

fn http_settings(settings: &GatewaySettings, figures: &RequestFigures) -> HttpSettings {
    // A form that is a little too large gets the words of its route.
    let form = settings.max_workflow_bytes.saturating_add(limits::MULTIPART_OVERHEAD_BYTES);
    let wheel = settings.max_wheel_bytes.saturating_add(limits::MULTIPART_OVERHEAD_BYTES);
    let edge = edge::EdgeSettings {
        body_rules: Arc::new(move |method, path| match route::body_kind(method, path) {
            BodyKind::Json => BodyRule::Whole { limit: limits::MAX_JSON_BODY_BYTES },
            BodyKind::WorkflowForm => BodyRule::Whole { limit: form },
            BodyKind::WheelForm => {
                BodyRule::Streamed { limit: wheel, too_large: "wheel too large" }
            }
        }),
        on_refusal: Some({
            let figures = figures.clone();
            Arc::new(move |status| figures.refused(status))
        }),
        ..edge::EdgeSettings::default()
    };
    let figures = figures.clone();
    HttpSettings {
        threads: settings.threads,
        max_streams: settings.max_watchers + limits::LONG_ANSWERS,
        behind_proxy: settings.behind_proxy,
        edge,
        observer: Some(Arc::new(move |access| {
            let route = route::find(&access.method, &access.path).ok().map(|(route, _)| route);
            let counts_time = route.is_none_or(|route| route.lasts == Lasts::Briefly);
            figures.answered(access, route.map(|route| route.path), counts_time);
        })),
    }
}
