//! Stands between the public port and the HTTP server, and decides what may reach it.
//!
//! The server behind (tiny_http) is small and trusting: an absurd length aborts the process, a
//! burst of connections loses some, a slow client holds a handler. So it never meets any of that.
//! One thread per connection, capped, reads one request at a time within total deadlines, checks
//! it ([`head`]), writes it anew and sends it over one of a fixed set of private connections
//! ([`pool`]); the answer comes back the same way ([`relay`]). Invariants:
//!
//! * a request reaches a handler whole or not at all, and is bounded in every dimension; with one
//!   exception, the body of an upload ([`BodyRule::Streamed`]). It reaches its handler while it
//!   arrives ([`upload`]), with its length announced in a header that no client can set, and ends
//!   there with the mark of its end after exactly so many bytes, or with an error; a handler acts on
//!   it after that mark only;
//! * bytes are never forwarded as they came, so both sides agree where each message ends;
//! * a connection costs a few KiB until its request has been accepted;
//! * no client, however slow, occupies a handler: bodies are read before one is taken, short
//!   answers are taken off it before they are written, long ones leave the pool, and so do
//!   uploads, of which there are few at once, each in a small fixed memory;
//! * nothing that happens to one connection ends the accept loop or another connection.
//!
//! The edge does not know what a path means, except for the body limit that it is given, and it
//! does not know what answers at the other end of its connections.

mod accept;
mod answer;
mod budget;
mod chunks;
mod client;
mod connection;
mod head;
mod pool;
mod refusal;
mod relay;
mod status;
mod upload;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use answer::LENGTH_HEADER;
pub use budget::{Budget, Reservation};
pub use head::{BODY_HEADER, BodyRule, BodyRules, PEER_HEADER, REQUEST_ID_HEADER, new_request_id};
pub use pool::{Connect, Link, PROBE};
pub use status::{date, reason};

use accept::Crews;
use client::Socket;
use pool::{Pool, UpstreamDeadlines};

use crate::model::limits;
use crate::thread::{self, JoinOnDrop, StopSource, stop_channel};
use crate::thread::{Stack, ThreadSet};

/// Caps and deadlines of an [`Edge`].
#[derive(Clone)]
pub struct EdgeSettings {
    /// Connections served at once; further ones are answered 503.
    pub max_connections: usize,
    /// Connections to the server behind: as many as it has handlers.
    pub upstream_connections: usize,
    /// Memory for bodies and answers of all connections together, in bytes; also the largest body.
    pub max_buffered_bytes: usize,
    /// From the first byte of a request to the end of its head; also for a new connection's first.
    pub head_deadline: Duration,
    /// For the whole body of a request; for one that is streamed, for each silence.
    pub body_deadline: Duration,
    /// Bytes per second below which a streamed body is given up, after `body_deadline`.
    pub upload_rate: u64,
    /// Streamed bodies at once; further ones are answered 503.
    pub max_uploads: usize,
    /// For a keep-alive connection without a request.
    pub idle_deadline: Duration,
    /// For an answer to begin, and for each silence within one; then 504, or the end.
    pub answer_deadline: Duration,
    /// For one piece of an answer to a client that does not read.
    pub write_deadline: Duration,
    /// For a free handler; then 503.
    pub checkout_deadline: Duration,
    /// For opening one connection to the server behind.
    pub probe_deadline: Duration,
    /// What each route takes as a body.
    pub body_rules: BodyRules,
    /// Told the status of each answer that the edge gave by itself.
    pub on_refusal: Option<Arc<dyn Fn(u16) + Send + Sync>>,
}

impl Default for EdgeSettings {
    fn default() -> EdgeSettings {
        EdgeSettings {
            max_connections: limits::MAX_CONNECTIONS,
            upstream_connections: limits::HTTP_THREADS,
            max_buffered_bytes: limits::MAX_BUFFERED_BYTES,
            head_deadline: limits::HEAD_DEADLINE,
            body_deadline: limits::BODY_DEADLINE,
            upload_rate: limits::MIN_UPLOAD_RATE,
            max_uploads: limits::MAX_UPLOADS,
            idle_deadline: limits::IDLE_DEADLINE,
            answer_deadline: limits::ANSWER_DEADLINE,
            write_deadline: limits::WRITE_DEADLINE,
            checkout_deadline: limits::CHECKOUT_DEADLINE,
            probe_deadline: limits::PROBE_DEADLINE,
            body_rules: Arc::new(|_, _| BodyRule::Whole { limit: limits::MAX_JSON_BODY_BYTES }),
            on_refusal: None,
        }
    }
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The public listener cannot be used.
    #[error("cannot listen: {0}")]
    Listen(#[source] io::Error),
    /// The server behind does not take or does not answer connections.
    #[error("cannot connect to the handlers: {0}")]
    Upstream(#[source] io::Error),
    /// The system gives no thread or no descriptor.
    #[error("cannot start the edge: {0}; raise the limits on threads and open files")]
    Start(#[source] io::Error),
}

/// A running edge. Dropping it is a hard stop.
pub struct Edge {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    /// Closing it ends the accept loop; then the loop is joined, and the port is closed.
    accepting: Option<(UnixStream, JoinOnDrop)>,
    /// Closing it ends the opener; then it is joined.
    opening: Option<(StopSource, JoinOnDrop)>,
    /// Closing it ends waits for a free handler.
    hard_stop: Option<StopSource>,
    crews: Arc<Crews>,
}

/// What the threads of an edge share.
struct Shared {
    settings: EdgeSettings,
    pool: Pool,
    budget: Budget,
    /// Of places for streamed bodies.
    uploads: Budget,
    /// Set before idle connections are closed; looked at after a connection has become idle.
    stopping: AtomicBool,
    next_id: AtomicU64,
    sockets: Mutex<HashMap<u64, Arc<Socket>>>,
}

/// The entry of a connection that can be told to stop; removed when dropped.
struct Registered {
    shared: Arc<Shared>,
    id: u64,
}

impl Edge {
    /// Opens the connections to the server behind and starts to accept on `listener`.
    ///
    /// # Errors
    /// See [`EdgeError`]; nothing is left running then.
    pub fn start(
        listener: TcpListener,
        connect: Connect,
        settings: EdgeSettings,
    ) -> Result<Edge, EdgeError> {
        let local_addr = listener.local_addr().map_err(EdgeError::Listen)?;
        listener.set_nonblocking(true).map_err(EdgeError::Listen)?;
        let (hard_stop, hard_stopped) = stop_channel();
        let deadlines = UpstreamDeadlines {
            answer: settings.answer_deadline,
            checkout: settings.checkout_deadline,
            probe: settings.probe_deadline,
        };
        let size = settings.upstream_connections.max(1);
        let pool =
            Pool::open(connect, size, deadlines, hard_stopped).map_err(EdgeError::Upstream)?;
        let start = || -> io::Result<Edge> {
            let crews = Arc::new(Crews {
                serving: ThreadSet::new(
                    "edge-conn",
                    settings.max_connections.max(1),
                    Stack::Small,
                )?,
                refusing: ThreadSet::new("edge-refuse", limits::MAX_REFUSERS, Stack::Small)?,
            });
            let shared = Arc::new(Shared {
                pool,
                budget: Budget::new(settings.max_buffered_bytes),
                uploads: Budget::new(settings.max_uploads.max(1)),
                settings,
                stopping: AtomicBool::new(false),
                next_id: AtomicU64::new(0),
                sockets: Mutex::default(),
            });
            let (stop_opening, stopped) = stop_channel();
            let opener = {
                let shared = Arc::clone(&shared);
                thread::spawn_small("edge-open", move || shared.pool.keep_full(&stopped))?
            };
            let (wake, woken) = UnixStream::pair()?;
            let acceptor = {
                let (shared, crews) = (Arc::clone(&shared), Arc::clone(&crews));
                thread::spawn_small("edge-accept", move || {
                    accept::accept(&listener, &woken, &shared, &crews);
                })
            };
            Ok(Edge {
                local_addr,
                shared,
                accepting: Some((wake, acceptor?)),
                opening: Some((stop_opening, opener)),
                hard_stop: Some(hard_stop),
                crews,
            })
        };
        start().map_err(EdgeError::Start)
    }

    /// The address that is listened on, with the port that the system chose if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.crews.serving.len()
    }

    /// Closes the port and idle connections, lets requests in flight finish for up to `grace`,
    /// then cuts what is left and joins all threads. `false` when something had to be cut.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.stop_now(Instant::now() + grace)
    }

    fn stop_now(&mut self, until: Instant) -> bool {
        // 1. Nobody new.
        if let Some((wake, acceptor)) = self.accepting.take() {
            drop(wake);
            acceptor.join();
        }
        // 2. Nobody idle: the flag first, see `Socket::end`.
        self.shared.stopping.store(true, Ordering::SeqCst);
        for socket in self.shared.sockets().values() {
            socket.close_if_idle();
        }
        // 3. What is in flight may finish.
        let finished =
            self.crews.serving.wait_empty(until) && self.crews.refusing.wait_empty(until);
        // 4. What is left is cut. The opener ends only now, since requests in flight may need it;
        // it is told first, so that the pool's close ends even a probe it waits for.
        let opening = self.opening.take();
        let opener = opening.map(|(stop, opener)| {
            drop(stop);
            opener
        });
        self.hard_stop.take();
        for socket in self.shared.sockets().values() {
            socket.close();
        }
        self.shared.pool.close();
        if let Some(opener) = opener {
            opener.join();
        }
        // 5. Nothing a connection's thread waits for is left, so they end, and are joined.
        let joined = Instant::now() + limits::STOP_SLACK;
        if !(self.crews.serving.wait_empty(joined) && self.crews.refusing.wait_empty(joined)) {
            log::error!("threads of the edge are slow to end");
        }
        finished
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.stop_now(Instant::now());
        }
    }
}

impl Shared {
    fn register(self: &Arc<Shared>, socket: &Arc<Socket>) -> Registered {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.sockets().insert(id, Arc::clone(socket));
        Registered { shared: Arc::clone(self), id }
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<u64, Arc<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.sockets().remove(&self.id);
    }
}
