//! Pulls messages from durable consumers into one inbox, and settles them.
//!
//! The inbox lives as long as its owner: a message that comes after its pull has expired must still be
//! settled. A status message of the server never becomes a job: only a `$JS.ACK.` reply subject makes one.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde_json::json;

use crate::bus::connection::inbox::Route;
use crate::bus::connection::link::Link;
use crate::bus::connection::message::{Message, Meta};
use crate::bus::connection::routes::Routed;
use crate::bus::{Error, Result};

/// Lifetime of a pull that waits; the owner asks again when it ends.
const WAIT: Duration = Duration::from_secs(20);
/// The same when the inbox is over several consumers: what one delivers may leave no room for what
/// another still sends, and a pull cannot be taken back.
pub const MANY_WAIT: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which a waiting pull counts as lost.
const MAX_SILENCE: Duration = Duration::from_secs(6);
/// For the answer to a pull that does not wait.
const NO_WAIT_SILENCE: Duration = Duration::from_secs(2);
/// For the server's confirmation of an ACK, NAK or TERM.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Unread messages; far more than is ever asked for at once.
const ROUTE_CAPACITY: usize = 4096;

/// `source` is an index into the consumers that the inbox was opened with.
#[derive(Debug)]
pub enum PullEvent {
    Delivered {
        source: usize,
        message: Delivered,
    },
    /// The consumer had nothing, or the pull has expired: ask again when there is room.
    Ended {
        source: usize,
    },
    /// The consumer is missing; ensure it before asking again.
    Missing {
        source: usize,
    },
    Reconnected,
    Quiet,
}

/// Pulls over several consumers into one channel.
pub struct PullInbox {
    link: Link,
    /// Settling goes over the connection of requests.
    control: Link,
    route: Route,
    sources: Vec<Source>,
    next_pull: u64,
}

/// Unread arrival; hand it to [`PullInbox::take`].
#[derive(Debug)]
pub struct Arrival(Routed);

/// A consumer and what was asked of it. Several pulls may be under way at once; the server serves
/// them in turn, so only their sum is known, and that is all that matters.
struct Source {
    subject: String,
    /// The socket that its pulls went over; they end with it.
    generation: Option<u64>,
    outstanding: u64,
    waits: bool,
    /// When the pulls count as lost unless something is heard.
    void_after: Instant,
}

impl PullInbox {
    pub(crate) fn open(
        link: Link,
        control: Link,
        consumers: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let consumers: Vec<String> =
            consumers.into_iter().map(|(stream, consumer)| format!("{stream}.{consumer}")).collect();
        let route = link.open_route(ROUTE_CAPACITY, &consumers);
        let sources = consumers
            .iter()
            .map(|consumer| Source {
                subject: link.api(&format!("CONSUMER.MSG.NEXT.{consumer}")),
                generation: None,
                outstanding: 0,
                waits: false,
                void_after: Instant::now(),
            })
            .collect();
        PullInbox { link, control, route, sources, next_pull: 1 }
    }

    /// For `select!`; what it yields goes to [`PullInbox::take`].
    pub fn arrivals(&self) -> &Receiver<impl Into<Arrival> + use<>> {
        &self.route.messages
    }

    pub fn outstanding(&self, source: usize) -> u64 {
        self.sources[source].outstanding
    }

    /// Whether the server keeps a pull of `source` open until something comes.
    pub fn is_waiting(&self, source: usize) -> bool {
        self.sources[source].outstanding > 0 && self.sources[source].waits
    }

    /// Asks `source` for up to `batch` more messages; with `wait`, the server keeps the pull open.
    ///
    /// # Errors
    /// [`Error::Disconnected`]; the inbox tells when it is worth asking again.
    pub fn ask(&mut self, source: usize, batch: u64, wait: bool) -> Result<()> {
        // The number of a pull tells its source, also when its last status comes late.
        let pull = self.next_pull * self.sources.len() as u64 + source as u64;
        self.next_pull += 1;
        let body = match (wait, self.sources.len()) {
            (false, _) => json!({"batch": batch, "no_wait": true}),
            (true, 1) => {
                json!({"batch": batch, "expires": nanos(WAIT), "idle_heartbeat": nanos(HEARTBEAT)})
            }
            // Too short for a sign of life in between.
            (true, _) => json!({"batch": batch, "expires": nanos(MANY_WAIT)}),
        };
        let reply = self.route.reply_subject(pull);
        let generation = self.link.generation();
        let source = &mut self.sources[source];
        if source.generation != generation {
            source.generation = generation;
            source.outstanding = 0;
        }
        self.link.publish(&source.subject, Some(&reply), body.to_string().as_bytes())?;
        source.outstanding += batch;
        source.waits = wait;
        source.hear();
        Ok(())
    }

    /// When the first pull becomes void unless something is heard; `None` when none is under way.
    pub fn next_deadline(&self) -> Option<Instant> {
        let asked = self.sources.iter().filter(|source| source.outstanding > 0);
        asked.map(|source| source.void_after).min()
    }

    /// Forgets pulls of which nothing was heard for too long.
    pub fn forget_silent(&mut self, now: Instant) {
        for source in &mut self.sources {
            if source.void_after <= now {
                source.outstanding = 0;
            }
        }
    }

    pub fn take(&mut self, arrival: impl Into<Arrival>) -> PullEvent {
        match arrival.into().0 {
            Routed::Reconnected => {
                // The news may come after somebody has asked over the new socket already; a pull that
                // is forgotten there would bring its messages on top of the next one's.
                let present = self.link.generation();
                let gone = self.sources.iter_mut().filter(|s| s.generation != present);
                gone.for_each(|source| source.outstanding = 0);
                PullEvent::Reconnected
            }
            Routed::Delivered { source, meta, message } => {
                let asked = &mut self.sources[source];
                asked.outstanding = asked.outstanding.saturating_sub(1);
                asked.hear();
                let control = self.control.clone();
                PullEvent::Delivered { source, message: Delivered::new(message, meta, control) }
            }
            Routed::Status { pull, message } => self.take_status(pull, &message),
        }
    }

    fn take_status(&mut self, pull: u64, message: &Message) -> PullEvent {
        let index = usize::try_from(pull % self.sources.len() as u64).unwrap_or(0);
        let source = &mut self.sources[index];
        source.hear();
        let status = message.status();
        if status == Some(100) {
            return PullEvent::Quiet;
        }
        // A pull has ended with so many messages not sent; without the count it was the only one.
        let unsent = message.header("Nats-Pending-Messages").and_then(|n| n.parse().ok());
        source.outstanding = source.outstanding.saturating_sub(unsent.unwrap_or(u64::MAX));
        let text = message.header("Description").unwrap_or_default();
        match status {
            Some(404 | 408) if source.outstanding > 0 => PullEvent::Quiet,
            Some(404 | 408) => PullEvent::Ended { source: index },
            Some(503) => PullEvent::Missing { source: index },
            _ if text.contains("Consumer Deleted") => PullEvent::Missing { source: index },
            _ => {
                log::info!(reason = text; "the server ended a pull");
                PullEvent::Ended { source: index }
            }
        }
    }
}

impl Source {
    fn hear(&mut self) {
        let silence = if self.waits { MAX_SILENCE } else { NO_WAIT_SILENCE };
        self.void_after = Instant::now() + silence;
    }
}

impl From<Routed> for Arrival {
    fn from(routed: Routed) -> Self {
        Arrival(routed)
    }
}

/// A message to be settled. When it is dropped it comes again after its consumer's `ack_wait`.
#[derive(Clone)]
pub struct Delivered {
    pub subject: String,
    pub payload: Vec<u8>,
    pub num_delivered: u64,
    pub stream_seq: u64,
    ack_subject: String,
    link: Link,
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivered")
            .field("subject", &self.subject)
            .field("num_delivered", &self.num_delivered)
            .field("stream_seq", &self.stream_seq)
            .finish_non_exhaustive()
    }
}

impl Delivered {
    fn new(message: Message, meta: Meta, link: Link) -> Self {
        Delivered {
            subject: message.subject,
            payload: message.data,
            num_delivered: meta.num_delivered,
            stream_seq: meta.stream_seq,
            ack_subject: message.reply.unwrap_or_default(),
            link,
        }
    }

    /// The subject that settles this delivery; whoever knows it may give the job back.
    pub fn ack_subject(&self) -> &str {
        &self.ack_subject
    }

    /// Tells the server that the work goes on: `ack_wait` starts anew. Not confirmed.
    pub fn in_progress(&self) -> Result<()> {
        self.link.publish(&self.ack_subject, None, b"+WPI")
    }

    /// Removes the message from the queue; confirmed by the server.
    pub fn ack(&self) -> Result<()> {
        self.settle(b"+ACK")
    }

    /// Gives the message back, to be delivered again after `delay`; confirmed by the server.
    pub fn nak(&self, delay: Duration) -> Result<()> {
        if delay.is_zero() {
            return self.settle(b"-NAK");
        }
        self.settle(format!("-NAK {}", json!({"delay": nanos(delay)})).as_bytes())
    }

    /// Removes a message that can never be executed; confirmed by the server.
    pub fn term(&self) -> Result<()> {
        self.settle(b"+TERM")
    }

    fn settle(&self, verdict: &[u8]) -> Result<()> {
        match self.link.request(&self.ack_subject, &[], verdict, SETTLE_TIMEOUT) {
            Ok(_) => Ok(()),
            // The consumer is gone: nothing was settled.
            Err(Error::NoResponders(_)) => Err(Error::NoResponders(self.ack_subject.clone())),
            Err(e) => Err(e),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
