//! One connection to NATS with requests that end: shared inbox, flusher, deadline, watchdog.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::bus::connection::connect::{self, ServerInfo};
use crate::bus::connection::inbox::{Pending, Route};
use crate::bus::connection::message::Message;
use crate::bus::connection::shared::LinkShared;
use crate::bus::connection::unanswered::Kind;
use crate::bus::connection::watchdog;
use crate::bus::{Error, Result};
use crate::config::{JS_API, NatsConfig};
use crate::thread::Service;

/// A connection that heals by itself. Clones share it; the last one stops its threads.
#[derive(Clone)]
pub struct Link {
    shared: Arc<LinkShared>,
    _watchdog: Arc<Service>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    pub connected: bool,
    pub server: String,
    pub disconnects: u64,
    pub reconnects: u64,
}

impl Link {
    pub(crate) fn start(role: &'static str, nats: &NatsConfig) -> Result<Link> {
        let servers = connect::servers(nats)?;
        let shared = Arc::new(LinkShared::new(role, nats.clone(), servers));
        let watched = shared.clone();
        let watchdog = Service::start(format!("nats-{role}"), move |stop| {
            watchdog::run(&watched, stop);
            // The dispatcher holds on to us, and only this ends it.
            watched.disconnect();
        })
        .map_err(|e| Error::Setup(format!("cannot start a thread: {e}")))?;
        Ok(Link { shared, _watchdog: Arc::new(watchdog) })
    }

    /// Sends a request and waits for its answer, at most for `timeout`.
    pub fn request(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Message> {
        self.begin(subject, headers, payload, timeout)?.wait()
    }

    /// Sends a request; [`Pending::wait`] waits for its answer. `timeout` runs from here.
    pub(crate) fn begin(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Pending> {
        let live = self.shared.usable()?;
        self.shared.begin_over(&live, subject, headers, payload, timeout)
    }

    /// Sends a message without waiting for anything.
    pub fn publish(&self, subject: &str, reply: Option<&str>, payload: &[u8]) -> Result<()> {
        let live = self.shared.usable()?;
        self.shared.send(&live, subject, reply, &[], payload)
    }

    /// Takes the interest in pulls from work queues away, until the next connection: the server ends them.
    /// What has come before has reached its route.
    pub(crate) fn end_pulls(&self, timeout: Duration) -> Result<()> {
        self.shared.end_pulls(timeout)
    }

    pub(crate) fn open_route(&self, capacity: usize, consumers: &[String]) -> Route {
        let routes = self.shared.routes.clone();
        let (id, messages) = routes.open(capacity, consumers);
        Route { routes, id, messages }
    }

    /// Whether the consumers of pulls are heard of, which are no requests.
    pub(crate) fn note_pulls(&self, are_heard: bool) {
        let unanswered = &self.shared.routes.unanswered;
        if are_heard {
            unanswered.answered(Kind::Call)
        } else {
            unanswered.failed(Kind::Call, Instant::now())
        }
    }

    /// Waits until requests can be sent, at most for `timeout`.
    pub fn wait_up(&self, timeout: Duration) -> bool {
        let shared = &self.shared;
        let deadline = Instant::now() + timeout;
        let (lock, changed) = &shared.changed;
        let mut guard = lock.lock();
        changed.wait_while_until(&mut guard, |()| !shared.is_up(), deadline);
        shared.is_up()
    }

    /// Which socket requests go over at the moment; another one after each loss. `None` without one.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.shared.generation()
    }

    /// The largest message that the server takes, as far as a message of `size` bytes must know it: a larger
    /// one asks the server again, since the limit may have changed. `None` without a connection.
    pub(crate) fn max_payload(&self, size: usize) -> Option<usize> {
        self.shared.max_payload(size)
    }

    /// The subject of a call to JetStream's API; the one place that knows the domain.
    pub(crate) fn api(&self, call: &str) -> String {
        format!("{}{call}", self.shared.api_prefix)
    }

    /// The subject under which a key of a KV bucket is written: a domain maps it too.
    pub(crate) fn kv_write(&self, subject: &str) -> String {
        match &*self.shared.api_prefix {
            JS_API => subject.to_owned(),
            domain => format!("{domain}{subject}"),
        }
    }

    /// What the server seen last says of itself.
    pub(crate) fn server_info(&self) -> Option<ServerInfo> {
        self.shared.info.lock().clone()
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.shared.address()
    }

    /// Version of the server seen last; empty while none is known.
    pub(crate) fn server_version(&self) -> String {
        let info = self.shared.info.lock();
        info.as_ref().map(|info| info.version.clone()).unwrap_or_default()
    }

    pub fn state(&self) -> LinkState {
        let shared = &self.shared;
        let info = shared.info.lock();
        LinkState {
            connected: shared.is_up(),
            server: info.as_ref().map(|i| format!("{} {}", i.server_name, i.version)).unwrap_or_default(),
            disconnects: shared.disconnects.load(Ordering::Relaxed),
            reconnects: shared.reconnects.load(Ordering::Relaxed),
        }
    }
}
