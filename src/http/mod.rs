//! Speaks HTTP to clients: owns the public port, reads requests, calls handlers, writes answers.
//!
//! Each connection has one thread, which does all of that, one request at a time. It reads a request whole
//! and bounded, takes one of a fixed number of permits, calls the handler, gives the permit back, and
//! writes the answer.
//!
//! **Invariants:**
//!
//! * A request reaches its handler whole or not at all, and is bounded in every dimension. The one exception
//!   is an upload, whose handler reads the body while it arrives and learns at its end whether all of it has
//!   come.
//! * Where a request ends is said in exactly one way, or the connection closes.
//! * No client, however slow, holds a permit: a body is read before one is taken, an answer is written after
//!   it was given back. What takes as long as its client (uploads, downloads, streams) holds a place in a
//!   bounded pool of its own instead.
//! * A panic in a handler costs that request a 500. Nothing that happens to one connection ends the accept
//!   loop or another connection.
//! * Every wait has a deadline: for a head, a body, a permit, an answer, a write, the next request.
//!
//! `tiny_http` gives the vocabulary of handlers ([`Method`], [`StatusCode`] and the `Response` inside of a
//! [`Reply`]); its server is not used, and `docs/architecture.md` says why. This floor and no other
//! names `tiny_http` and `httparse`. It knows no route, no NATS, no API key.

mod application;
mod budget;
pub mod cached;
mod connection;
pub mod error;
pub mod form;
mod permits;
mod reply;
mod request;
pub mod sse;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Resource, getrlimit};

pub use application::{Access, Application, Conduct, Transfer};
pub use connection::proxies::TrustedProxies;
pub use reply::{Reply, ReplyBody, WriteBody};
pub use request::Request;
pub use tiny_http::{Method, StatusCode};

use crate::model::limits;
use crate::thread::{self, JoinOnDrop, Service, Stack, StopSource, ThreadSet, stop_channel};
use budget::Budget;
use connection::accept::{self, ConnectionThreads};
use connection::socket::{Phase, Socket};
use connection::watchdog;
use permits::Permits;

/// Descriptors that are left to the rest of the process.
const RESERVED_DESCRIPTORS: usize = 128;
/// However few descriptors there are, so many clients are served.
const LEAST_CONNECTIONS: usize = 16;
/// Threads of connections that were closed for another one, and have not ended and been joined yet. On a busy
/// machine that takes its time, and a place that was made for a new client must not be refused to it.
const ENDING_THREADS: usize = 1024;
/// Threads that tell clients that there is no place; beyond them a connection is just closed.
const REFUSING_THREADS: usize = 16;
/// How long the end of a server waits for the request of a connection that has just been accepted.
const NEW_GRACE: Duration = Duration::from_millis(500);
/// How long the end of a server waits for handlers that outlive the grace period.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// Caps and deadlines of an [`HttpServer`].
pub struct HttpSettings {
    /// Requests that are handled at once.
    pub threads: usize,
    /// Connections served at once. When all places are taken, the longest idle one closes; when none is
    /// idle, further ones are answered 503.
    pub max_connections: usize,
    /// Streams of events, downloads and large answers at once; further ones are answered 503.
    pub max_streams: usize,
    /// Uploads at once; further ones are answered 503.
    pub max_uploads: usize,
    /// Memory for bodies and answers of all connections together, in bytes; also the largest body.
    pub max_buffered_bytes: usize,
    /// From the first byte of a request to the end of its head; also for a new connection's first byte.
    pub head_deadline: Duration,
    /// For the whole body of a request; for that of an upload, for each silence.
    pub body_deadline: Duration,
    /// Bytes per second below which an upload is given up, after `body_deadline`.
    pub upload_rate: u64,
    /// For a keep-alive connection without a request.
    pub idle_deadline: Duration,
    /// For a handler to answer; then 504. The time in which it waits for an upload's client does not count.
    pub answer_deadline: Duration,
    /// For an answer, or one piece of a large one, to a client that does not read.
    pub write_deadline: Duration,
    /// For a permit to call a handler; then 503.
    pub permit_patience: Duration,
    /// The proxies whose forwarding headers are believed; with `None` nobody's are.
    pub trusted_proxies: Option<TrustedProxies>,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            threads: limits::HTTP_THREADS,
            max_connections: limits::MAX_CONNECTIONS,
            max_streams: limits::MAX_STREAMS,
            max_uploads: limits::MAX_UPLOADS,
            max_buffered_bytes: limits::MAX_BUFFERED_BYTES,
            head_deadline: limits::HEAD_DEADLINE,
            body_deadline: limits::BODY_DEADLINE,
            upload_rate: limits::MIN_UPLOAD_RATE,
            idle_deadline: limits::IDLE_DEADLINE,
            answer_deadline: limits::ANSWER_DEADLINE,
            write_deadline: limits::WRITE_DEADLINE,
            permit_patience: limits::PERMIT_PATIENCE,
            trusted_proxies: None,
        }
    }
}

/// A running server. Dropping it is a hard stop.
pub struct HttpServer {
    local_addr: SocketAddr,
    /// Closing it ends the accept loop; then the loop is joined, and the port is closed.
    accepting: Option<(UnixStream, JoinOnDrop)>,
    watchdog: Option<Service>,
    /// Closing it ends waits for a permit.
    hard_stop: Option<StopSource>,
    threads: Arc<ConnectionThreads>,
    registry: Arc<Registry>,
    max_streams: usize,
}

/// What the threads of a server share.
struct Shared<S> {
    application: S,
    settings: HttpSettings,
    permits: Permits,
    /// For bodies and answers, in bytes.
    memory: Budget,
    uploads: Budget,
    streams: Budget,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct Registry {
    /// Set before idle connections are closed; looked at after a connection has become idle.
    stopping: AtomicBool,
    next_id: AtomicU64,
    sockets: Mutex<HashMap<u64, Arc<Socket>>>,
}

/// The entry of a connection that can be told to stop; removed when dropped.
struct Registered {
    registry: Arc<Registry>,
    id: u64,
}

impl HttpServer {
    /// Serves `listener` with `application`. After an error nothing is left running.
    pub fn start<S: Application>(
        listener: TcpListener,
        settings: HttpSettings,
        application: S,
    ) -> io::Result<HttpServer> {
        let settings = fit_to_descriptors(settings);
        let local_addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        give_up_on_silence(&listener, settings.write_deadline);
        let max_streams = settings.max_streams;
        let (hard_stop, hard_stopped) = stop_channel();
        let registry = Arc::<Registry>::default();
        let shared = Arc::new(Shared {
            application,
            permits: Permits::new(settings.threads.max(1), hard_stopped),
            memory: Budget::new(settings.max_buffered_bytes),
            uploads: Budget::new(settings.max_uploads),
            streams: Budget::new(max_streams),
            registry: Arc::clone(&registry),
            settings,
        });
        let most = shared.settings.max_connections + ENDING_THREADS;
        let threads = Arc::new(ConnectionThreads {
            // Not small: a handler takes snapshots apart, and JSON is read by recursion.
            serving: ThreadSet::new("http-conn", most, Stack::Full)?,
            refusing: ThreadSet::new("http-refuse", REFUSING_THREADS, Stack::Small)?,
        });
        let watched = Arc::clone(&shared);
        let watchdog = Service::start_small("http-watchdog", move |stop| watchdog::watch(&watched, stop))?;
        let (wake, woken) = UnixStream::pair()?;
        let accepting = {
            let threads = Arc::clone(&threads);
            thread::spawn_small("http-accept", move || {
                accept::accept(&listener, &woken, &shared, &threads);
            })?
        };
        Ok(HttpServer {
            local_addr,
            accepting: Some((wake, accepting)),
            watchdog: Some(watchdog),
            hard_stop: Some(hard_stop),
            threads,
            registry,
            max_streams,
        })
    }

    /// The public address, with the port that the system chose if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Streams at once: as many as were asked for, or fewer when descriptors are short.
    pub fn max_streams(&self) -> usize {
        self.max_streams
    }

    pub fn connections(&self) -> usize {
        let sockets = self.registry.sockets.lock();
        sockets.values().filter(|socket| socket.phase().0 != Phase::Closed).count()
    }

    /// Takes no new request, lets those in flight finish for up to `grace`, cuts what is left and joins
    /// the threads. Returns by `grace` and a second; a handler that does not return by then is logged and
    /// left behind. `false` when something was cut.
    ///
    /// Streams count as in flight: end them (close what feeds them) before this, or they last until
    /// `grace` is over.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.stop_now(Instant::now() + grace)
    }

    fn stop_now(&mut self, until: Instant) -> bool {
        // 1. Nobody new.
        if let Some((wake, accepting)) = self.accepting.take() {
            drop(wake);
            accepting.join();
        }
        // 2. Nobody idle: the flag first, see `Registry`.
        self.registry.stopping.store(true, Ordering::SeqCst);
        for socket in self.registry.sockets.lock().values() {
            socket.close_if_unasked();
        }
        // 3. What is in flight may finish; the request of a new connection is on its way.
        let is_empty = |by| self.threads.serving.wait_empty(by) && self.threads.refusing.wait_empty(by);
        if !is_empty(until.min(Instant::now() + NEW_GRACE)) {
            for socket in self.registry.sockets.lock().values() {
                socket.close_if_idle();
            }
        }
        let has_finished = is_empty(until);
        // 4. What is left is cut.
        self.hard_stop.take();
        for socket in self.registry.sockets.lock().values() {
            socket.close();
        }
        // 5. Nothing is left that a thread of ours waits for, but a handler may wait for something else.
        if !is_empty(Instant::now() + STOP_SLACK) {
            log::error!("a handler does not return; its thread is left behind");
            self.threads.serving.abandon();
        }
        drop(self.watchdog.take());
        has_finished
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.stop_now(Instant::now());
        }
    }
}

impl<S> Shared<S> {
    fn register(&self, socket: &Arc<Socket>) -> Registered {
        let registry = Arc::clone(&self.registry);
        let id = registry.next_id.fetch_add(1, Ordering::Relaxed);
        registry.sockets.lock().insert(id, Arc::clone(socket));
        Registered { registry, id }
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<u64, Arc<Socket>>> {
        self.registry.sockets.lock()
    }

    fn is_stopping(&self) -> bool {
        self.registry.stopping.load(Ordering::SeqCst)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.sockets.lock().remove(&self.id);
    }
}

/// Makes every connection of `listener` end when what was sent is not acknowledged, or not read, for as
/// long as this floor would wait. Else the kernel keeps trying for a quarter of an hour with a client
/// whose network has gone. Accepted sockets take the option over from the one that listens.
fn give_up_on_silence(listener: &TcpListener, silence: Duration) {
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(listener, millis) {
            log::warn!(error:% = error; "cannot bound how long a silent client is waited for");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (listener, silence);
}

/// Lowers the caps such that a full house does not use up the descriptors of the process.
fn fit_to_descriptors(mut settings: HttpSettings) -> HttpSettings {
    settings.max_uploads = settings.max_uploads.max(1);
    settings.max_streams = settings.max_streams.max(1);
    let Some(limit) = getrlimit(Resource::Nofile).current else { return settings };
    let free = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVED_DESCRIPTORS);
    let connections = settings.max_connections.min(free).max(LEAST_CONNECTIONS);
    // Half of all connections are left to requests that end soon.
    let streams = settings.max_streams.min(connections / 2).max(1);
    if connections < settings.max_connections || streams < settings.max_streams {
        log::warn!(
            "only {limit} files may be open: serving {connections} connections and {streams} streams at \
             once; raise it with `ulimit -n`"
        );
    }
    settings.max_connections = connections.min(settings.max_connections);
    settings.max_streams = streams;
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
        give_up_on_silence(&listener, Duration::from_secs(30));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&accepted).unwrap(), 30_000);
    }
}
