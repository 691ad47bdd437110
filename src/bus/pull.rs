//! Pulls messages from durable consumers into one inbox, and settles them.
//!
//! The inbox lives as long as its owner: a message that comes late, after its pull has expired,
//! is still read and must be executed, given back or acknowledged. A status message of the server
//! never becomes a job: only a `$JS.ACK.` reply subject makes one.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde_json::json;

use super::link::{Link, Route};
use super::message::{Message, Meta};
use super::routes::Routed;
use super::{Error, Result};

/// Lifetime of a pull that waits; the owner asks again when it ends.
const WAIT: Duration = Duration::from_secs(20);
/// The same when the inbox is over several consumers: what one delivers may leave no room for what
/// another still sends, and a pull cannot be taken back.
pub const MANY_WAIT: Duration = Duration::from_secs(2);
/// Sign of life of a waiting pull.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which a waiting pull counts as lost.
const MAX_SILENCE: Duration = Duration::from_secs(6);
/// For the answer to a pull that does not wait.
const NO_WAIT_SILENCE: Duration = Duration::from_secs(2);
/// For the server's confirmation of an ACK, NAK or TERM.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Unread messages; far more than is ever asked for at once.
const ROUTE_CAPACITY: usize = 4096;

/// What arrived. `source` is an index into the consumers that the inbox was opened with.
#[derive(Debug)]
pub enum PullEvent {
    /// A message of the stream.
    Delivered {
        /// Which consumer it came from.
        source: usize,
        /// The message.
        message: Delivered,
    },
    /// The consumer had nothing, or the pull has expired: ask again when there is room.
    Ended {
        /// Which consumer.
        source: usize,
    },
    /// The consumer is missing; ensure it before asking again.
    Missing {
        /// Which consumer.
        source: usize,
    },
    /// All pulls are void; ask again.
    Reconnected,
    /// A sign of life.
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

struct Source {
    subject: String,
    pull: Option<Pull>,
}

/// What was asked of one consumer and has not ended.
struct Pull {
    id: u64,
    remaining: u64,
    void_after: Instant,
    waits: bool,
}

impl PullInbox {
    pub(super) fn open(
        link: Link,
        control: Link,
        consumers: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let consumers: Vec<String> = consumers
            .into_iter()
            .map(|(stream, consumer)| format!("{stream}.{consumer}"))
            .collect();
        let route = link.open_route(ROUTE_CAPACITY, &consumers);
        let sources = consumers
            .iter()
            .map(|consumer| Source {
                subject: format!("$JS.API.CONSUMER.MSG.NEXT.{consumer}"),
                pull: None,
            })
            .collect();
        PullInbox { link, control, route, sources, next_pull: 1 }
    }

    /// For `select!`; what it yields goes to [`PullInbox::take`].
    pub fn arrivals(&self) -> &Receiver<impl Into<Arrival> + use<>> {
        &self.route.messages
    }

    /// How many messages `source` may still send for what it was asked.
    pub fn outstanding(&self, source: usize) -> u64 {
        self.sources[source].pull.as_ref().map_or(0, |pull| pull.remaining)
    }

    /// Whether a pull of `source` is under way.
    pub fn is_asked(&self, source: usize) -> bool {
        self.sources[source].pull.is_some()
    }

    /// Whether the server keeps a pull of `source` open until something comes.
    pub fn is_waiting(&self, source: usize) -> bool {
        self.sources[source].pull.as_ref().is_some_and(|pull| pull.waits)
    }

    /// Asks `source` for up to `batch` messages; with `wait`, the server keeps the pull open.
    /// A pull that was under way is forgotten; what it still delivers arrives all the same.
    ///
    /// # Errors
    /// [`Error::Disconnected`]; the inbox tells when it is worth asking again.
    pub fn ask(&mut self, source: usize, batch: u64, wait: bool) -> Result<()> {
        let id = self.next_pull;
        self.next_pull += 1;
        let (body, silence) = match (wait, self.sources.len()) {
            (false, _) => (json!({"batch": batch, "no_wait": true}), NO_WAIT_SILENCE),
            (true, 1) => {
                let (expires, heartbeat) = (nanos(WAIT), nanos(HEARTBEAT));
                let body = json!({"batch": batch, "expires": expires, "idle_heartbeat": heartbeat});
                (body, MAX_SILENCE)
            }
            // Too short for a sign of life in between.
            (true, _) => (json!({"batch": batch, "expires": nanos(MANY_WAIT)}), MAX_SILENCE),
        };
        let reply = self.route.reply_subject(id);
        let subject = &self.sources[source].subject;
        self.link.publish(subject, Some(&reply), body.to_string().as_bytes())?;
        let void_after = Instant::now() + silence;
        self.sources[source].pull = Some(Pull { id, remaining: batch, void_after, waits: wait });
        Ok(())
    }

    /// When the first pull becomes void unless something is heard; `None` when none is under way.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.sources.iter().filter_map(|s| Some(s.pull.as_ref()?.void_after)).min()
    }

    /// Forgets pulls of which nothing was heard for too long; says whether there were any.
    pub fn forget_silent(&mut self, now: Instant) -> bool {
        let mut any = false;
        for source in &mut self.sources {
            any |= source.pull.take_if(|pull| pull.void_after <= now).is_some();
        }
        any
    }

    /// Reads one arrival.
    pub fn take(&mut self, arrival: impl Into<Arrival>) -> PullEvent {
        match arrival.into().0 {
            Routed::Reconnected => {
                self.sources.iter_mut().for_each(|source| source.pull = None);
                PullEvent::Reconnected
            }
            Routed::Delivered { source, meta, message } => {
                self.count_delivery(source);
                let control = self.control.clone();
                PullEvent::Delivered { source, message: Delivered::new(message, meta, control) }
            }
            Routed::Status { pull, message } => self.take_status(pull, &message),
        }
    }

    fn take_status(&mut self, pull: u64, message: &Message) -> PullEvent {
        let asked = |s: &Source| s.pull.as_ref().is_some_and(|p| p.id == pull);
        // What concerns a pull that was forgotten concerns nobody.
        let Some(source) = self.sources.iter().position(asked) else { return PullEvent::Quiet };
        let slot = &mut self.sources[source].pull;
        match message.status() {
            Some(100) => {
                if let Some(pull) = slot {
                    pull.void_after = Instant::now() + MAX_SILENCE;
                }
                PullEvent::Quiet
            }
            Some(404 | 408) => {
                *slot = None;
                PullEvent::Ended { source }
            }
            status => {
                *slot = None;
                let text = message.header("Description").unwrap_or_default();
                log::warn!(reason = text; "the server ended a pull ({status:?})");
                if status == Some(503) || text.contains("Consumer Deleted") {
                    PullEvent::Missing { source }
                } else {
                    PullEvent::Ended { source }
                }
            }
        }
    }

    fn count_delivery(&mut self, source: usize) {
        let slot = &mut self.sources[source].pull;
        if let Some(pull) = slot {
            pull.remaining = pull.remaining.saturating_sub(1);
            let silence = if pull.waits { MAX_SILENCE } else { NO_WAIT_SILENCE };
            pull.void_after = Instant::now() + silence;
            if pull.remaining == 0 {
                *slot = None;
            }
        }
    }
}

impl From<Routed> for Arrival {
    fn from(routed: Routed) -> Self {
        Arrival(routed)
    }
}

/// A message that the server waits to have settled. Dropping it settles nothing: after its
/// consumer's `ack_wait` it comes again.
#[derive(Clone)]
pub struct Delivered {
    /// Where it was published.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// How often it has been delivered, from 1.
    pub num_delivered: u64,
    /// Its sequence in the stream.
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
    ///
    /// # Errors
    /// [`Error::Disconnected`].
    pub fn in_progress(&self) -> Result<()> {
        self.link.publish(&self.ack_subject, None, b"+WPI")
    }

    /// Removes the message from the queue; confirmed by the server.
    ///
    /// # Errors
    /// Those of a request; the message may then come again.
    pub fn ack(&self) -> Result<()> {
        self.settle(b"+ACK")
    }

    /// Gives the message back, to be delivered again after `delay`; confirmed by the server.
    ///
    /// # Errors
    /// Those of a request; the message then comes again after `ack_wait`.
    pub fn nak(&self, delay: Duration) -> Result<()> {
        if delay.is_zero() {
            return self.settle(b"-NAK");
        }
        self.settle(format!("-NAK {}", json!({"delay": nanos(delay)})).as_bytes())
    }

    /// Removes a message that can never be executed; confirmed by the server.
    ///
    /// # Errors
    /// Those of a request.
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
