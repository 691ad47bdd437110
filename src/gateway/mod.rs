//! The HTTP gateway: from a request to NATS, and back.
//!
//! Its rooms import in this order, and a test keeps it so: [`crate::http`] speaks HTTP; [`view`] is what
//! the gateway knows in memory, `page` the files of the dashboard; [`auth`] finds out who asks, `chores`
//! does what nobody asks for, [`metrics`] measures; [`api`] is the table of routes and their handlers,
//! `openapi` describes them; this file puts all of them together. This floor knows nothing of workers but
//! their records, and never executes a flow.

#[doc(hidden)]
pub mod api;
#[doc(hidden)]
pub mod auth;
mod chores;
#[doc(hidden)]
pub mod metrics;
mod openapi;
mod page;
mod settings;
#[doc(hidden)]
pub mod view;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

pub use api::error::ApiError;
pub use auth::AuthSettings;
pub use page::Lang;
pub use settings::GatewaySettings;

use crate::bus::{self, Bus, Watch};
use crate::http::cached::Cached;
use crate::http::{HttpServer, HttpSettings, TrustedProxies};
use crate::thread::Service;
use api::context::Parts;
use api::dispatch::Dispatcher;
use api::health::WriteTest;
use auth::Auth;
use chores::{Audit, Undo};
use metrics::Metrics;
use view::WheelRegistry;
use view::backlog::Backlog;
use view::hub::Hub;
use view::keys::KeyMirror;
use view::ownership::Ownership;
use view::runs::RunIndex;
use view::workers::WorkerMirror;

/// How long a gateway that starts waits for NATS and for what it has to know of it, before it answers. Until
/// then clients wait; they would get a 503 else, at each restart.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// Places for long answers beside those of watchers, so that lists get through when all watch.
const LONG_ANSWERS: usize = 64;

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
    /// The HTTP floor did not start.
    #[error("cannot start the HTTP server: {0}; raise the limits on threads and open files")]
    Http(#[source] std::io::Error),
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

/// A running gateway. Dropping it is a hard stop.
///
/// ```no_run
/// use std::time::Duration;
///
/// use pyoco_server::bus::Bus;
/// use pyoco_server::config::Config;
/// use pyoco_server::gateway::{GatewaySettings, RunningGateway};
///
/// fn serve_for_a_minute(
///     config: &Config,
///     settings: GatewaySettings,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let bus = Bus::start(&config.nats, &config.resources)?;
///     // Port 0 takes a free one.
///     let gateway = RunningGateway::start(([127, 0, 0, 1], 0).into(), &bus, settings)?;
///     println!("listening on http://{}", gateway.local_addr());
///     std::thread::sleep(Duration::from_secs(60));
///     // Requests that are in flight have this long to end.
///     gateway.stop(Duration::from_secs(10));
///     Ok(())
/// }
/// ```
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
    /// Listens on `address` and serves; NATS may come later. Returns at once when it is there, else after two
    /// seconds.
    pub fn start(address: SocketAddr, bus: &Bus, settings: GatewaySettings) -> Result<RunningGateway, Error> {
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
        let backlog = Arc::new(Backlog::new(kick));
        let ownership = Ownership::default();
        let undo = Undo::new(bus.runs(), index.clone());
        let audit = Audit::new(bus.audit());
        let chores = chores::ChoreParts {
            bus: bus.clone(),
            runs: index.clone(),
            workers: workers.clone(),
            keys: settings.auth.is_some().then(|| key_mirror.clone()),
            backlog: backlog.clone(),
            undo: undo.clone(),
            ownership: ownership.clone(),
            audit: audit.clone(),
            disconnect_timeout: settings.disconnect_timeout,
            worker_heartbeat: settings.worker_heartbeat,
            workers_retention: settings.workers_retention,
            cancel_grace: settings.cancel_grace,
        };
        let chores = chores::start(chores, kicked)?;
        let header = settings.api_key_header.as_str();
        let auth = Auth::new(settings.auth.clone(), header, key_mirror)?;
        let http = http_settings(&settings);
        let keys = openapi::Keys { header: header.to_owned(), required: settings.auth.is_some() };
        let parts = Parts {
            bus: bus.clone(),
            auth,
            runs: bus.runs(),
            records: bus.workers(),
            queue: bus.queue(),
            undo,
            ownership,
            audit,
            write_test: WriteTest::default(),
            index,
            workers,
            wheels,
            hub: hub.clone(),
            metrics,
            backlog,
            openapi: LazyLock::new(Box::new(move || {
                Cached::new("application/json", openapi::document(&keys))
            })),
            settings,
        };
        let until = Instant::now() + START_PATIENCE;
        let left = || until.saturating_duration_since(Instant::now());
        let _ = bus.wait_connected(left()) && parts.index.wait_live(left()) && parts.auth.wait_live(left());
        let http = HttpServer::start(listener, http, Dispatcher::new(parts)).map_err(Error::Http)?;
        // Watchers hold their places for long: some are always left to other long answers.
        let long = LONG_ANSWERS.min(http.max_streams() / 4);
        hub.lower_limit(http.max_streams() - long);
        log::info!(address = http.local_addr().to_string(); "gateway listens");
        Ok(RunningGateway { streams: OpenStreams(hub), http, _chores: chores, _watches: watches })
    }

    /// The public address, with the port that the system chose if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Lets requests in flight finish within `grace`; `false` when something was cut off.
    pub fn stop(self, grace: Duration) -> bool {
        drop(self.streams);
        self.http.stop(grace)
    }
}

fn http_settings(settings: &GatewaySettings) -> HttpSettings {
    HttpSettings {
        threads: settings.threads,
        max_streams: settings.max_watchers + LONG_ANSWERS,
        trusted_proxies: settings.trusted_proxies.clone().map(TrustedProxies::new),
        ..HttpSettings::default()
    }
}
