//! One connection after another under one link, and what its callers, its watchdog and its dispatchers share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::bus::connection::connect::{Held, ServerInfo, Socket};
use crate::bus::connection::dial::{Dialled, Dialler};
use crate::bus::connection::inbox::Pending;
use crate::bus::connection::message::Message;
use crate::bus::connection::payload_limit::PayloadLimit;
use crate::bus::connection::routes::Routes;
use crate::bus::connection::unanswered::Kind;
use crate::bus::{Error, Result};
use crate::config::NatsConfig;
use crate::model::limits::{ADVISED_MAX_PAYLOAD, low_max_payload};
use crate::model::name;
use crate::thread::{self, StopSource};

/// Unread messages of one connection at most; more means that our dispatcher is stuck.
const MAX_UNREAD_MESSAGES: usize = 64 * 1024;
/// For one write of a flush; it is the flusher's own wait, never a caller's.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct LinkShared {
    pub(crate) role: &'static str,
    dialler: Dialler,
    pub(crate) api_prefix: String,
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
    /// Written by the crate's callback, read by the watchdog.
    lost: Sender<()>,
    pub(crate) on_lost: Receiver<()>,
}

/// One connection of the crate. Its threads end when the kick and stop channels close; a flusher
/// that is stuck in a dead connection is left to its end, which is why nobody joins it.
pub(crate) struct Live {
    pub(crate) number: u64,
    socket: Arc<Socket>,
    address: SocketAddr,
    payload_limit: PayloadLimit,
    kick: Sender<()>,
    /// Written by the flusher after each PONG, read by whoever asked for it.
    pongs: Receiver<()>,
    /// Read by the dispatcher, which drops it when all that had come before has reached its route.
    marks: Sender<Sender<()>>,
    _stop: StopSource,
}

impl LinkShared {
    pub(crate) fn new(role: &'static str, nats: NatsConfig, servers: Vec<nats::ServerAddress>) -> LinkShared {
        let (lost, on_lost) = bounded(1);
        LinkShared {
            role,
            api_prefix: nats.api_prefix(),
            routes: Arc::new(Routes::new(&nats.inbox_prefix)),
            dialler: Dialler::new(role, nats, servers),
            live: RwLock::new(None),
            suspect: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            info: Mutex::new(None),
            changed: (Mutex::new(()), Condvar::new()),
            lost,
            on_lost,
        }
    }

    /// Waits for a sign of life over the present connection, also while it is suspected: for the watchdog
    /// itself. The flusher asks with the protocol's PING, which needs no permission; it may block, we do not.
    pub(crate) fn ping(&self, timeout: Duration) -> Result<()> {
        let live = self.current().ok_or(Error::Disconnected)?;
        while live.pongs.try_recv().is_ok() {}
        // One pending kick is enough. A flush under way that ends now is a sign of life as well.
        let _ = live.kick.try_send(());
        select! {
            recv(live.pongs) -> pong => pong.map_err(|_| Error::Disconnected),
            recv(self.on_lost) -> _ => Err(Error::Disconnected),
            recv(after(timeout)) -> _ => Err(Error::Timeout { subject: "PING".into(), after: timeout }),
        }
    }

    /// Whether the server is cut off from its cluster, and another one is known.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.routes.unanswered.is_cut_off() && !self.dialler.is_alone()
    }

    /// Takes back the subscription of pulls. What has come for them has reached its route by then; the crate
    /// drops what is still on its way.
    pub(crate) fn end_pulls(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let live = self.usable()?;
        let (mark, passed) = bounded(0);
        live.marks.send_deadline(mark, deadline).map_err(|_| Error::Disconnected)?;
        // It drops what it was sent.
        let _ = passed.recv_deadline(deadline);
        if let Some(pulls) = live.socket.take_pulls() {
            pulls.unsubscribe().map_err(|_| Error::Disconnected)?;
        }
        // The server answers after it has read the end of the subscription.
        self.ping(timeout)
    }

    /// Makes a new connection and lets it take the place of the present one.
    pub(crate) fn connect(self: &Arc<Self>) -> std::result::Result<(), String> {
        if let Some(silent) = self.current() {
            self.dialler.set_lost(silent.address);
        }
        let Dialled { connection, socket, address, info } = self.dialler.dial(&self.lost)?;
        let replies = connection.subscribe(&format!("{}.*", self.routes.inbox)).map_err(|e| e.to_string())?;
        replies.set_message_limits(MAX_UNREAD_MESSAGES);
        let pulls = connection.subscribe(&format!("{}.*", self.routes.pulls())).map_err(|e| e.to_string())?;
        pulls.set_message_limits(MAX_UNREAD_MESSAGES);
        let messages = [replies.receiver().clone(), pulls.receiver().clone()];
        let (stop, stopped) = thread::stop_channel();
        let (kick, kicked) = bounded(1);
        let (ponged, pongs) = bounded(1);
        let (marks, marked) = bounded(1);
        socket.hold(Held { connection, replies, pulls: Some(pulls) });
        let flushing = socket.clone();
        thread::spawn(format!("flush-{}", self.role), move || flush_loop(&flushing, &kicked, &ponged))
            .map_err(|e| e.to_string())?
            .abandon();
        let routes = self.routes.clone();
        thread::spawn(format!("replies-{}", self.role), move || {
            dispatch_loop(&routes, &messages, &marked, &stopped)
        })
        .map_err(|e| e.to_string())?
        .abandon();
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let payload_limit = PayloadLimit::new(address, info.max_payload);
        let live = Arc::new(Live { number, socket, address, payload_limit, kick, pongs, marks, _stop: stop });
        // Lost before it was held: the crate's callback found nothing to give up.
        if !live.socket.is_up() {
            return Err("the connection was lost again at once".into());
        }
        self.reconnects.fetch_add(u64::from(number > 0), Ordering::Relaxed);
        let text = if number > 0 { "connected to NATS again" } else { "connected to NATS" };
        log::info!(link = self.role, server = info.server_name.as_str(), version = info.version.as_str(),
            address = address.to_string(); "{text}");
        self.tell_low_max_payload(&info);
        *self.info.lock() = Some(info);
        let old = self.live.write().replace(live);
        self.suspect.store(false, Ordering::SeqCst);
        self.routes.unanswered.forget();
        self.new_epoch();
        // One that was lost is gone by now, and counted; this one was silent.
        self.disconnects.fetch_add(u64::from(old.is_some()), Ordering::Relaxed);
        // Its threads end by themselves, the flusher when the silent server lets it.
        drop(old);
        Ok(())
    }

    /// Says once per connection of requests what a small limit costs.
    fn tell_low_max_payload(&self, info: &ServerInfo) {
        if self.role == "control"
            && let Some(what) = low_max_payload(info.max_payload)
        {
            log::warn!(max_payload = info.max_payload, advised = ADVISED_MAX_PAYLOAD, reason = what;
                "the server's max_payload is low");
        }
    }

    pub(crate) fn disconnect(&self) {
        let old = self.live.write().take();
        drop(old);
    }

    /// Whether there is no connection; gives up the present one if it has been lost.
    pub(crate) fn drop_lost(&self) -> bool {
        let Some(live) = self.current() else { return true };
        if live.socket.is_up() {
            return false;
        }
        self.disconnects.fetch_add(1, Ordering::Relaxed);
        log::warn!(link = self.role; "lost the connection to NATS; reconnecting");
        self.dialler.set_lost(live.address);
        self.disconnect();
        self.new_epoch();
        true
    }

    /// Whether there is a socket; it may be half-open.
    pub(crate) fn has_socket(&self) -> bool {
        self.current().is_some_and(|live| live.socket.is_up())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.has_socket() && !self.suspect.load(Ordering::SeqCst)
    }

    /// Which connection requests go over at the moment. `None` without one.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.current().filter(|live| live.socket.is_up()).map(|live| live.number)
    }

    /// Where the server is that requests go to.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.current().map(|live| live.address)
    }

    /// The largest message that the server takes, as far as a message of `size` bytes must know it.
    pub(crate) fn max_payload(&self, size: usize) -> Option<usize> {
        self.current()?.max_payload(size)
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
        let asked = Instant::now();
        let deadline = asked + timeout;
        let epoch = self.epoch.load(Ordering::SeqCst);
        let room = self.routes.request(epoch, payload.len(), deadline);
        let (id, answer) =
            room.ok_or_else(|| Error::Timeout { subject: subject.to_owned(), after: timeout })?;
        let (routes, subject) = (self.routes.clone(), subject.to_owned());
        let kind = Kind::of(&subject, &self.api_prefix);
        let pending = Pending { routes, id, subject, kind, asked, answer, timeout, deadline };
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
        live.check_size(payload.len() + header_bytes(headers))?;
        let headers = (!headers.is_empty()).then(|| headers.iter().copied().collect::<nats::HeaderMap>());
        let connection = live.socket.connection().ok_or(Error::Disconnected)?;
        connection
            .publish_with_reply_or_headers(subject, reply, headers.as_ref(), payload)
            .map_err(|_| Error::Disconnected)?;
        // One pending kick is enough: the flush that it starts carries this message too.
        let _ = live.kick.try_send(());
        Ok(())
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

impl Live {
    fn max_payload(&self, size: usize) -> Option<usize> {
        let told = self.socket.connection()?.max_payload();
        Some(self.payload_limit.in_force(told, size))
    }

    /// A larger message would cost the connection.
    fn check_size(&self, size: usize) -> Result<()> {
        match self.max_payload(size) {
            Some(limit) if size > limit => Err(Error::TooLarge { size, limit }),
            _ => Ok(()),
        }
    }
}

/// What headers take on the wire; it counts as payload.
fn header_bytes(headers: &[(&str, &str)]) -> usize {
    const FRAME: usize = "NATS/1.0\r\n\r\n".len();
    const LINE: usize = ": \r\n".len();
    let lines: usize = headers.iter().map(|(name, value)| name.len() + value.len() + LINE).sum();
    if headers.is_empty() { 0 } else { FRAME + lines }
}

/// Flushes once per kick; requests that arrive during a flush share the next one. The crate's flush is a PING
/// and its PONG.
fn flush_loop(socket: &Socket, kicked: &Receiver<()>, ponged: &Sender<()>) {
    while kicked.recv().is_ok() {
        let Some(connection) = socket.connection() else { break };
        // Its failure shows as a loss or as the deadline of whoever waits.
        if connection.flush_timeout(FLUSH_TIMEOUT).is_ok() {
            let _ = ponged.try_send(());
        }
        if !socket.is_up() {
            // It was lost meanwhile, and the crate has reconnected for this flush alone.
            connection.close();
            break;
        }
    }
    // Only a thread that may block can close a connection: the crate flushes it first.
    if let Some(held) = socket.take() {
        drop((held.replies, held.pulls));
        held.connection.close();
    }
}

/// Hands replies to their owners until the connection is replaced or lost.
fn dispatch_loop(
    routes: &Routes,
    [replies, pulls]: &[Receiver<nats::Message>; 2],
    marks: &Receiver<Sender<()>>,
    stopped: &thread::StopSignal,
) {
    let mut pulls = pulls.clone();
    loop {
        select! {
            recv(stopped) -> _ => return,
            recv(replies) -> message => match message {
                Ok(message) => routes.deliver(Message::new(message)),
                Err(_) => return,
            },
            recv(pulls) -> message => match message {
                Ok(message) => routes.deliver(Message::new(message)),
                // They were ended.
                Err(_) => pulls = never(),
            },
            recv(marks) -> mark => {
                pulls.try_iter().chain(replies.try_iter()).for_each(|it| routes.deliver(Message::new(it)));
                drop(mark);
            }
        }
    }
}
