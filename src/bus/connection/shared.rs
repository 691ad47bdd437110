//! One connection after another under one link, and what its callers, its watchdog and its dispatchers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::bus::connection::connect::{self, ServerInfo, Signals};
use crate::bus::connection::inbox::Pending;
use crate::bus::connection::message::Message;
use crate::bus::connection::routes::Routes;
use crate::bus::{Error, Result};
use crate::config::NatsConfig;
use crate::model::name;
use crate::thread::{self, StopSource};

/// Unread messages of one connection at most; more means that our dispatcher is stuck.
const MAX_UNREAD_MESSAGES: usize = 64 * 1024;
/// For the handshake of a new connection, after the probe has been answered.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// For one flush; it is the flusher's own wait, never a caller's.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct LinkShared {
    pub(crate) role: &'static str,
    pub(crate) nats: NatsConfig,
    pub(crate) servers: Vec<nats::ServerAddress>,
    pub(crate) routes: Arc<Routes>,
    live: RwLock<Option<Arc<Live>>>,
    /// Set by the watchdog: the socket stands, but nobody answers.
    suspect: AtomicBool,
    /// Counts every loss and every new connection; a request belongs to the epoch it was sent in.
    epoch: AtomicU64,
    connections: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) info: Mutex<Option<ServerInfo>>,
    pub(crate) changed: (Mutex<()>, Condvar),
}

/// One connection of the crate. Its threads end when the kick and stop channels close; a flusher
/// that is stuck in a dead connection is left to its end, which is why nobody joins it.
pub(crate) struct Live {
    pub(crate) number: u64,
    connection: nats::Connection,
    pub(crate) signals: Arc<Signals>,
    kick: Sender<()>,
    _stop: StopSource,
}

impl LinkShared {
    pub(crate) fn new(role: &'static str, nats: NatsConfig, servers: Vec<nats::ServerAddress>) -> LinkShared {
        LinkShared {
            role,
            nats,
            servers,
            routes: Arc::new(Routes::new()),
            live: RwLock::new(None),
            suspect: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            info: Mutex::new(None),
            changed: (Mutex::new(()), Condvar::new()),
        }
    }

    /// Asks over the present connection, also while it is suspected: for the watchdog itself.
    pub(crate) fn ping(&self, timeout: Duration) -> Result<Message> {
        let live = self.current().ok_or(Error::Disconnected)?;
        self.begin_over(&live, "$JS.API.INFO", &[], b"", timeout)?.wait()
    }

    /// Makes a new connection and lets it take the place of the present one.
    pub(crate) fn connect(self: &Arc<Self>) -> std::result::Result<(), String> {
        let info = connect::probe(&self.servers)?;
        let (changed, on_change) = bounded(1);
        let signals = Arc::new(Signals { up: AtomicBool::new(true), epoch: AtomicU64::new(0), changed });
        let name = format!("pyoco-server {}", self.role);
        let connection = self.dial(name, &signals)?;
        let replies = connection.subscribe(&format!("{}.*", self.routes.inbox)).map_err(|e| e.to_string())?;
        replies.set_message_limits(MAX_UNREAD_MESSAGES);
        let (stop, stopped) = thread::stop_channel();
        let (kick, kicked) = bounded(1);
        let flushing = connection.clone();
        thread::spawn(format!("flush-{}", self.role), move || flush_loop(&flushing, &kicked))
            .map_err(|e| e.to_string())?
            .abandon();
        let shared = self.clone();
        thread::spawn(format!("replies-{}", self.role), move || {
            dispatch_loop(&shared, &replies, &on_change, &stopped);
        })
        .map_err(|e| e.to_string())?
        .abandon();
        log::info!(link = self.role, server = info.server_name.as_str(), version = info.version.as_str();
            "connected to NATS");
        *self.info.lock() = Some(info);
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        self.reconnects.fetch_add(u64::from(number > 0), Ordering::Relaxed);
        let live = Arc::new(Live { number, connection, signals, kick, _stop: stop });
        let old = self.live.write().replace(live);
        self.suspect.store(false, Ordering::SeqCst);
        self.new_epoch();
        // Closing an old connection would flush it first; dropping it only lets its threads end.
        drop(old);
        Ok(())
    }

    pub(crate) fn disconnect(&self) {
        let old = self.live.write().take();
        drop(old);
    }

    /// The crate's handshake has no deadline: its thread is given up when the server falls silent.
    fn dial(&self, name: String, signals: &Arc<Signals>) -> std::result::Result<nats::Connection, String> {
        let (sender, made) = bounded(1);
        let (nats, servers, signals) = (self.nats.clone(), self.servers.clone(), signals.clone());
        thread::spawn(format!("dial-{}", self.role), move || {
            // When nobody waits any more, the connection is dropped with the message.
            let _ = sender.send(connect::connect(&nats, servers, &name, &signals));
        })
        .map_err(|e| e.to_string())?
        .abandon();
        match made.recv_timeout(DIAL_TIMEOUT) {
            Ok(made) => made.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no handshake within {DIAL_TIMEOUT:?}")),
        }
    }

    /// Whether there is a socket; it may be half-open.
    pub(crate) fn has_socket(&self) -> bool {
        self.current().is_some_and(|live| live.signals.up.load(Ordering::SeqCst))
    }

    pub(crate) fn never_connected(&self) -> bool {
        self.current().is_none()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.has_socket() && !self.suspect.load(Ordering::SeqCst)
    }

    /// Marks the connection as one that does not answer, or as well again.
    pub(crate) fn set_suspect(&self, suspect: bool) {
        if self.suspect.swap(suspect, Ordering::SeqCst) != suspect {
            self.new_epoch();
        }
    }

    pub(crate) fn begin_over(
        &self,
        live: &Live,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Pending> {
        let deadline = Instant::now() + timeout;
        let epoch = self.epoch.load(Ordering::SeqCst);
        let room = self.routes.request(epoch, payload.len(), deadline);
        let (id, answer) =
            room.ok_or_else(|| Error::Timeout { subject: subject.to_owned(), after: timeout })?;
        let (routes, subject) = (self.routes.clone(), subject.to_owned());
        let pending = Pending { routes, id, subject, answer, timeout, deadline };
        let reply = format!("{}.{id}", self.routes.inbox);
        self.send(live, &pending.subject, Some(&reply), headers, payload)?;
        Ok(pending)
    }

    pub(crate) fn send(
        &self,
        live: &Live,
        subject: &str,
        reply: Option<&str>,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<()> {
        if !name::is_subject(subject) {
            return Err(Error::BadName(subject.to_owned()));
        }
        if let Some((_, value)) = headers.iter().find(|(_, v)| v.contains(['\r', '\n'])) {
            return Err(Error::BadName((*value).to_owned()));
        }
        let headers = (!headers.is_empty()).then(|| headers.iter().copied().collect::<nats::HeaderMap>());
        self.check_size(payload.len())?;
        live.connection
            .publish_with_reply_or_headers(subject, reply, headers.as_ref(), payload)
            .map_err(|_| Error::Disconnected)?;
        // One pending kick is enough: the flush that it starts carries this message too.
        let _ = live.kick.try_send(());
        Ok(())
    }

    fn check_size(&self, size: usize) -> Result<()> {
        let info = self.info.lock();
        match info.as_ref().map(|i| i.max_payload) {
            // A larger message would cost the connection. Headers count too; they are small.
            Some(limit) if limit > 0 && size + 1024 > limit => Err(Error::TooLarge { size, limit }),
            _ => Ok(()),
        }
    }

    pub(crate) fn usable(&self) -> Result<Arc<Live>> {
        match self.current() {
            Some(live) if self.is_up() => Ok(live),
            _ => Err(Error::Disconnected),
        }
    }

    pub(crate) fn current(&self) -> Option<Arc<Live>> {
        self.live.read().clone()
    }

    fn new_epoch(&self) {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.routes.reconnected(epoch);
        let (lock, changed) = &self.changed;
        drop(lock.lock());
        changed.notify_all();
    }
}

/// Flushes once per kick; requests that arrive during a flush share the next one.
fn flush_loop(connection: &nats::Connection, kicked: &Receiver<()>) {
    while kicked.recv().is_ok() {
        // Its failure shows as a disconnect or as the deadline of whoever waits.
        let _ = connection.flush_timeout(FLUSH_TIMEOUT);
    }
}

/// Hands replies to their owners, and turns the crate's callbacks into a new epoch.
fn dispatch_loop(
    shared: &LinkShared,
    replies: &nats::Subscription,
    changed: &Receiver<()>,
    stopped: &thread::StopSignal,
) {
    loop {
        select! {
            recv(stopped) -> _ => return,
            recv(changed) -> _ => {
                let up = shared.has_socket();
                if up {
                    shared.reconnects.fetch_add(1, Ordering::Relaxed);
                    log::info!(link = shared.role; "connected to NATS again");
                } else {
                    shared.disconnects.fetch_add(1, Ordering::Relaxed);
                    log::warn!(link = shared.role; "lost the connection to NATS; reconnecting");
                }
                shared.new_epoch();
            }
            recv(replies.receiver()) -> message => {
                let Ok(message) = message else { return };
                shared.routes.deliver(Message::new(message));
            }
        }
    }
}
