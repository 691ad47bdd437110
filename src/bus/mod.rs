//! Everything that speaks NATS; the one floor that names the `nats` crate.
//!
//! Of the crate only `Connection` is used: its JetStream, KV and object calls are slow, may hang and report
//! some refusals as success. On it stand a [`link`](Link) per purpose, JetStream's JSON API, and our own KV,
//! object store, work queue, pulls and watch.
//!
//! Invariants: every wait has a deadline; an acknowledgement counts only with a sequence above 0; nothing
//! unchecked becomes part of a subject or header; a watch is `live` or says that it is not. This floor knows
//! no HTTP, no flow, and not what the bytes mean.

// The crate is marked deprecated upstream in favour of an async one; it is the blocking client.
#![allow(deprecated)]

mod audit;
mod connection;
mod error;
mod inspect;
mod jetstream;
mod kv;
mod mirror;
mod objects;
mod queue;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use audit::{AuditLog, AuditRecord, Noted};
pub use connection::link::{Link, LinkState};
pub use connection::message::{Message, Meta};
pub use error::Error;
pub use inspect::look::Ownership;
pub use inspect::settings::{Difference, Fix};
pub use inspect::{Inspected, Server};
pub use jetstream::PubAck;
pub use kv::{Edit, Edited, Entry, Kv, Operation};
pub use mirror::{Contact, Mirror, ObjectView, Versioned, View};
pub use objects::{Listing, ObjectMeta, ObjectStore, Sealed, Upload};
pub use queue::backlog::TagBacklog;
pub use queue::contents::{Deliveries, QueueContents};
pub use queue::delivered::{Delivered, Heard};
pub use queue::pull::{MANY_WAIT, PullEvent, PullInbox};
pub use queue::{ConsumerSettings, ExhaustedJob, StoredJob, WorkQueue};
pub use watch::{WATCH_SILENCE, Watch, WatchEvent};

use connection::large_payload::LargePayloadLink;
use jetstream::resources;

use crate::config::{NatsConfig, ResourceConfig};

pub type Result<T> = std::result::Result<T, Error>;

/// The connections of one process and what hangs on them. Clones share them.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<BusInner>,
}

struct BusInner {
    /// Requests whose answers somebody waits for.
    control: Link,
    /// Pulls and watches: a burst of what the server sends by itself never stands in front of an answer.
    stream: Link,
    /// Chunks of objects; opened when the first one moves.
    large_payloads: Arc<LargePayloadLink>,
    resources: ResourceConfig,
    timeout: Duration,
}

impl Bus {
    /// Returns at once and connects in the background; requests fail with [`Error::Disconnected`] until then.
    /// Fails when the settings cannot be used (an unreadable URL, two ways to authenticate).
    pub fn start(nats: &NatsConfig, resources: &ResourceConfig) -> Result<Bus> {
        let control = Link::start("control", nats)?;
        let stream = Link::start("stream", nats)?;
        Ok(Bus {
            inner: Arc::new(BusInner {
                control,
                stream,
                large_payloads: Arc::new(LargePayloadLink::new(nats)),
                resources: resources.clone(),
                timeout: nats.request_timeout,
            }),
        })
    }

    pub fn wait_connected(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.inner.control.wait_up(timeout)
            && self.inner.stream.wait_up(deadline.saturating_duration_since(Instant::now()))
    }

    pub fn state(&self) -> LinkState {
        self.inner.control.state()
    }

    pub fn runs(&self) -> Kv {
        self.kv(resources::runs_bucket(&self.inner.resources))
    }

    pub fn workers(&self) -> Kv {
        self.kv(resources::workers_bucket(&self.inner.resources))
    }

    pub fn auth(&self) -> Kv {
        self.kv(resources::auth_bucket(&self.inner.resources))
    }

    pub fn wheels(&self) -> ObjectStore {
        let inner = &self.inner;
        let bucket = resources::wheels_store(&inner.resources);
        let (control, stream) = (inner.control.clone(), inner.stream.clone());
        ObjectStore::new(control, stream, inner.large_payloads.clone(), bucket, inner.timeout)
    }

    /// The bucket of what was done with wheels.
    pub fn wheel_history(&self) -> Kv {
        self.kv(resources::wheel_history_bucket(&self.inner.resources))
    }

    pub fn audit(&self) -> AuditLog {
        let inner = &self.inner;
        AuditLog::new(inner.control.clone(), inner.resources.clone(), inner.timeout)
    }

    pub fn queue(&self) -> WorkQueue {
        WorkQueue::new(
            self.inner.control.clone(),
            self.inner.stream.clone(),
            self.inner.resources.clone(),
            self.inner.timeout,
        )
    }

    /// Creates whatever is missing; what exists is used as it is.
    pub fn ensure_resources(&self) -> Result<()> {
        self.runs().ensure()?;
        self.workers().ensure()?;
        self.auth().ensure()?;
        self.wheels().ensure()?;
        self.wheel_history().ensure()?;
        self.audit().ensure()?;
        self.queue().ensure_all()
    }

    /// Largest message that the server takes, in bytes, as far as a message of `size` bytes must know it: for
    /// a large one the server is asked again. Without bound while no server is known.
    pub fn max_payload(&self, size: usize) -> usize {
        self.inner.control.max_payload(size).unwrap_or(usize::MAX)
    }

    pub fn request_timeout(&self) -> Duration {
        self.inner.timeout
    }

    fn kv(&self, bucket: resources::Bucket) -> Kv {
        Kv::new(self.inner.control.clone(), self.inner.stream.clone(), bucket, self.inner.timeout)
    }
}

/// Time left until `deadline`, zero when it has passed.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
