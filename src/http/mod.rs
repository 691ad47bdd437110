//! Runs handlers: a fixed pool of threads, one request each, behind the edge or behind a proxy.
//!
//! tiny_http is named here and nowhere else. It listens on a private Unix socket that only the
//! [`edge`](super::edge) knows, in a directory that only this user can enter; or, with
//! [`HttpSettings::behind_proxy`], on the public port itself, and then limits and deadlines are the
//! proxy's work. Invariants: a panic in a handler costs that request a 500 and nothing else; a
//! short answer leaves in one write with its exact length; an answer that takes long (a stream, a
//! large download) runs on a thread of its own, so that the pool always has its handlers back, and
//! so does a handler whose request brings an upload; that one reads its body while it arrives, and
//! knows at its end whether all of it has come ([`BodyReader`]).
//! This floor does not know paths, status rules or JSON shapes of the product: that is the router's.

mod backend;
mod body;
pub mod cached;
pub mod caller;
pub mod edge;
pub mod form;
mod reply;
mod request;
mod serve;
pub mod sse;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

pub use body::{BodyError, BodyReader};
pub use reply::{Reply, ReplyBody, WriteBody};
pub use request::Request;
pub use serve::{Access, Observer};

use backend::Backend;
use serve::Service;

use crate::model::limits;
use crate::thread::{Stack, ThreadSet};
use edge::{Budget, Edge, EdgeError, EdgeSettings};

/// Descriptors of one connection behind the edge: ours, and two of tiny_http's.
const DESCRIPTORS_PER_UPSTREAM: usize = 3;
/// However few descriptors there are, so many clients are served.
const LEAST_CONNECTIONS: usize = 16;

/// Answers requests. Runs on many threads at once; every wait in it needs a deadline, since the
/// pool has a fixed number of threads.
pub trait Handler: Send + Sync {
    /// Answers one request; a panic becomes a 500.
    fn handle(&self, request: &mut Request) -> Reply;
}

impl<F: Fn(&mut Request) -> Reply + Send + Sync> Handler for F {
    fn handle(&self, request: &mut Request) -> Reply {
        self(request)
    }
}

/// How an [`HttpServer`] runs.
#[derive(Clone)]
pub struct HttpSettings {
    /// Handler threads; also the number of connections between the edge and them.
    pub threads: usize,
    /// Streaming answers at once; further ones are answered 503.
    pub max_streams: usize,
    /// Leave the edge out and trust the last entry of `X-Forwarded-For`. Only for a listener that
    /// nobody but a reverse proxy can reach, and a proxy that bounds heads, bodies and time.
    pub behind_proxy: bool,
    /// Caps and deadlines of the edge. Its `body_rules` and `max_uploads` count with a proxy, too; its
    /// `upstream_connections` is ignored for [`HttpSettings::threads`].
    pub edge: EdgeSettings,
    /// Told of each request that a handler has answered.
    pub observer: Option<Observer>,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            threads: limits::HTTP_THREADS,
            max_streams: limits::MAX_STREAMS,
            behind_proxy: false,
            edge: EdgeSettings::default(),
            observer: None,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The edge did not start.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The private socket, or the threads behind it, could not be had.
    #[error("cannot start the HTTP server: {0}; is the directory for temporary files writable?")]
    Start(#[from] io::Error),
}

/// A running server. Dropping it is a hard stop.
pub struct HttpServer {
    // Field order is the order of the end: nobody asks any more when the handlers go.
    edge: Option<Edge>,
    backend: Option<Arc<Backend>>,
    local_addr: SocketAddr,
    max_streams: usize,
}

impl HttpServer {
    /// Serves `listener` with `handler`.
    ///
    /// # Errors
    /// See [`HttpError`]; nothing is left running then.
    pub fn start(
        listener: TcpListener,
        settings: HttpSettings,
        handler: Arc<dyn Handler>,
    ) -> Result<HttpServer, HttpError> {
        let settings = fit_to_descriptors(settings);
        let local_addr = listener.local_addr()?;
        give_up_on_silence(&listener);
        let max_streams = settings.max_streams.max(1);
        let max_uploads = settings.edge.max_uploads.max(1);
        let service = Service {
            handler,
            body_rules: Arc::clone(&settings.edge.body_rules),
            behind_proxy: settings.behind_proxy,
            observer: settings.observer,
            // Not small: a stream of events takes snapshots apart, and JSON is read by recursion.
            streams: ThreadSet::new("http-stream", max_streams, Stack::Full)?,
            uploads: ThreadSet::new("http-upload", 2 * max_uploads, Stack::Full)?,
            upload_places: Arc::new(Budget::new(max_uploads)),
        };
        if settings.behind_proxy {
            let backend = Backend::on_port(service, settings.threads, listener)?;
            return Ok(HttpServer { edge: None, backend: Some(backend), local_addr, max_streams });
        }
        let backend = Backend::behind_edge(service, settings.threads)?;
        let connect = {
            let backend = Arc::downgrade(&backend);
            move || match backend.upgrade() {
                Some(backend) => backend.connect(),
                None => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        let upstream_connections = settings.threads.max(1);
        let edge = Edge::start(
            listener,
            Arc::new(connect),
            EdgeSettings { upstream_connections, ..settings.edge },
        );
        Ok(HttpServer { edge: Some(edge?), backend: Some(backend), local_addr, max_streams })
    }

    /// The public address, with the port that the system chose if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Streaming answers at once: as many as were asked for, or fewer when descriptors are short.
    pub fn max_streams(&self) -> usize {
        self.max_streams
    }

    /// Clients that are connected now; zero behind a proxy, where nobody counts them.
    pub fn connections(&self) -> usize {
        self.edge.as_ref().map_or(0, Edge::connections)
    }

    /// Takes no new request, lets those in flight finish for up to `grace`, cuts what is left, joins
    /// the threads and removes the private socket. Returns by `grace` and two seconds; a handler
    /// that does not return by then is logged and left behind. `false` when something was cut.
    ///
    /// Streams count as in flight: end them (close what feeds them) before this, or they last
    /// until `grace` is over. Behind a proxy there is no closing of idle connections: tiny_http
    /// keeps them until the proxy closes them, or the process ends.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.stop_now(grace)
    }

    fn stop_now(&mut self, grace: Duration) -> bool {
        let until = Instant::now() + grace;
        let finished = self.edge.take().is_none_or(|edge| edge.stop(grace));
        let ended = self.backend.take().is_none_or(|backend| backend.stop(until));
        finished && ended
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop_now(Duration::ZERO);
    }
}

/// Makes every connection of `listener` end when what was sent is not acknowledged, or not read, for as
/// long as the edge would wait. Else the kernel keeps trying for a quarter of an hour with a client
/// whose network has gone, and behind a proxy for ever with one that does not read: tiny_http
/// knows no deadline. Accepted sockets take the option over from the one that listens.
fn give_up_on_silence(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(limits::WRITE_DEADLINE.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(listener, millis) {
            log::warn!(error:% = error; "cannot bound how long a silent client is waited for");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// Lowers the caps such that a full house does not use up the descriptors of the process, since
/// much in it (tiny_http first) does not live through that.
fn fit_to_descriptors(mut settings: HttpSettings) -> HttpSettings {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return settings };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let fixed = limits::RESERVED_DESCRIPTORS + DESCRIPTORS_PER_UPSTREAM * settings.threads;
    let free = limit.saturating_sub(fixed);
    // An upload costs as much as a stream; few are allowed, so that these come first.
    let uploads = settings.edge.max_uploads.min(free / 8 / DESCRIPTORS_PER_UPSTREAM);
    let free = free - uploads * DESCRIPTORS_PER_UPSTREAM;
    // A stream costs a client's descriptor and three behind it: at most half of all for these.
    let streams = settings.max_streams.min(free / 2 / DESCRIPTORS_PER_UPSTREAM);
    let left = free - streams * DESCRIPTORS_PER_UPSTREAM;
    let connections = settings.edge.max_connections.min(left.max(LEAST_CONNECTIONS));
    if streams < settings.max_streams
        || connections < settings.edge.max_connections
        || uploads < settings.edge.max_uploads
    {
        log::warn!(
            "only {limit} files may be open: serving {connections} connections, {streams} streams and \
             {uploads} uploads at once; raise it with `ulimit -n`"
        );
    }
    settings.edge.max_uploads = uploads.max(1);
    settings.max_streams = streams.max(1);
    settings.edge.max_connections = connections;
    settings
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn accepted_connections_do_not_wait_for_a_silent_client_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        give_up_on_silence(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let millis = rustix::net::sockopt::tcp_user_timeout(&accepted).unwrap();
        assert_eq!(u128::from(millis), limits::WRITE_DEADLINE.as_millis());
    }
}
