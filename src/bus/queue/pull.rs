//! Pulls messages from durable consumers into one inbox.
//!
//! The inbox lives as long as its owner: a message that comes after its pull has expired must still be
//! settled. A status message of the server never becomes a job: only a `$JS.ACK.` reply subject makes one.
//!
//! A consumer may refuse a pull. Its limits are obeyed by smaller pulls; after any other pull that ends at
//! once the next one waits, longer each time, so that a refusal costs neither side more than a question now
//! and then.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use crate::bus::connection::inbox::Route;
use crate::bus::connection::link::Link;
use crate::bus::connection::message::Message;
use crate::bus::connection::routes::Routed;
use crate::bus::queue::delivered::Delivered;
use crate::bus::queue::nanos;
use crate::bus::queue::open_pulls::OpenPulls;
use crate::bus::{Error, Result};
use crate::model::limits::LEAST_RUN_SILENCE;

/// Lifetime of a pull that waits; the owner asks again when it ends. Shorter than any silence after which a
/// run is given back ([`LEAST_RUN_SILENCE`]): by then the pulls of a worker that stands still have ended, and
/// none of them takes the job.
const WAIT: Duration = LEAST_RUN_SILENCE.saturating_sub(Duration::from_secs(1));
/// The same when the inbox is over several consumers: what one delivers may leave no room for what
/// another still sends, and a pull cannot be taken back.
pub const MANY_WAIT: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which a waiting pull counts as lost.
const MAX_SILENCE: Duration = Duration::from_secs(6);
/// For the answer to a pull that does not wait.
const NO_WAIT_SILENCE: Duration = Duration::from_secs(2);
/// A waiting pull that ends sooner than this, and has brought nothing, was not waited for.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Before the next pull after one that ended at once; doubles each time.
const HOLD_OFF_MIN: Duration = Duration::from_millis(50);
const HOLD_OFF_MAX: Duration = Duration::from_secs(30);
/// Ends of pulls that are part of a server's life: they come once and nobody need do anything.
const PASSING: [&str; 3] = ["Leadership Change", "Server Shutdown", "Batch Completed"];
/// Of them, and beside them, those that end all pulls of a consumer.
const OF_ALL: [&str; 3] = ["Leadership Change", "Server Shutdown", "Consumer Deleted"];
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
    /// The consumer will never answer a pull.
    Refused(Error),
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

/// A consumer and what was asked of it.
struct Source {
    subject: String,
    /// The socket that its pulls went over; they end with it.
    generation: Option<u64>,
    pulls: OpenPulls,
    waits: bool,
    /// When the last pull was sent.
    asked: Instant,
    /// The number of that pull; an older one may end at any time after it.
    newest_pull: u64,
    /// When the pulls count as lost unless something is heard.
    void_after: Instant,
    limits: Limits,
    /// How long the next pull waits that ends at once; zero when the last one did not.
    hold_off: Duration,
    held_until: Option<Instant>,
    /// Why the log has it that pulls end at once, so that it has it once.
    warned: Option<String>,
}

/// What the consumer takes, as far as its refusals have said. A limit of bytes is none for a pull that names
/// no bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Limits {
    batch: Option<u64>,
    expires: Option<Duration>,
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
                pulls: OpenPulls::default(),
                waits: false,
                asked: Instant::now(),
                newest_pull: 0,
                void_after: Instant::now(),
                limits: Limits::default(),
                hold_off: Duration::ZERO,
                held_until: None,
                warned: None,
            })
            .collect();
        PullInbox { link, control, route, sources, next_pull: 1 }
    }

    /// For `select!`; what it yields goes to [`PullInbox::take`].
    pub fn arrivals(&self) -> &Receiver<impl Into<Arrival> + use<>> {
        &self.route.messages
    }

    pub fn outstanding(&self, source: usize) -> u64 {
        self.sources[source].pulls.outstanding()
    }

    /// Whether the server keeps a pull of `source` open until something comes.
    pub fn is_waiting(&self, source: usize) -> bool {
        self.outstanding(source) > 0 && self.sources[source].waits
    }

    /// Whether pulls of `source` end at once, so that the next one has to wait.
    pub fn is_held(&self, source: usize) -> bool {
        self.sources[source].held_until.is_some_and(|until| until > Instant::now())
    }

    /// Does nothing while [`PullInbox::is_held`]. Else asks `source` for up to `batch` more messages; with
    /// `wait`, the server keeps the pull open.
    ///
    /// # Errors
    /// [`Error::Disconnected`]; the inbox tells when it is worth asking again.
    pub fn ask(&mut self, source: usize, batch: u64, wait: bool) -> Result<()> {
        if self.is_held(source) {
            return Ok(());
        }
        // The number of a pull tells its source, also when its last status comes late.
        let pull = self.next_pull * self.sources.len() as u64 + source as u64;
        self.next_pull += 1;
        let lifetime = if self.sources.len() == 1 { WAIT } else { MANY_WAIT };
        let (batch, body) = self.sources[source].limits.pull(batch, wait.then_some(lifetime));
        let reply = self.route.pull_reply_subject(pull);
        let generation = self.link.generation();
        let source = &mut self.sources[source];
        if source.generation != generation {
            source.generation = generation;
            source.pulls.forget();
        }
        self.link.publish(&source.subject, Some(&reply), body.to_string().as_bytes())?;
        source.waits = wait;
        (source.newest_pull, source.asked) = (pull, Instant::now());
        source.pulls.sent(pull, batch, source.asked, if wait { lifetime } else { NO_WAIT_SILENCE });
        source.hear();
        Ok(())
    }

    /// When the first pull becomes void unless something is heard, or a source may be asked again; `None`
    /// when no pull is under way and none is held.
    pub fn next_deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let asked = self.sources.iter().filter(|source| source.pulls.outstanding() > 0);
        let held = self.sources.iter().filter_map(|source| source.held_until).filter(|until| *until > now);
        asked.map(|source| source.void_after).chain(held).min()
    }

    /// Forgets pulls of which nothing was heard for too long.
    pub fn forget_silent(&mut self, now: Instant) {
        for source in &mut self.sources {
            if source.void_after <= now && source.pulls.outstanding() > 0 {
                source.pulls.forget();
                self.link.note_pulls(false);
            }
        }
    }

    /// Ends the pulls that the server keeps open, and those of all inboxes over the same connection: nothing
    /// comes after this has returned. What is on its way in this moment comes again after `ack_wait`. Pulls
    /// end by themselves when the server does not answer within `timeout`.
    pub fn end_pulls(&mut self, timeout: Duration) {
        if let Err(e) = self.link.end_pulls(timeout) {
            log::info!(error = e.to_string(); "cannot end the pulls that are open; they end in a moment");
        }
        self.sources.iter_mut().for_each(|source| source.pulls.forget());
    }

    pub fn take(&mut self, arrival: impl Into<Arrival>) -> PullEvent {
        match arrival.into().0 {
            Routed::Reconnected => {
                // The news may come after somebody has asked over the new socket already; a pull that
                // is forgotten there would bring its messages on top of the next one's.
                let present = self.link.generation();
                for source in &mut self.sources {
                    if source.generation != present {
                        source.pulls.forget();
                    }
                    // The consumer may be another one now.
                    source.limits = Limits::default();
                    source.goes_well();
                }
                PullEvent::Reconnected
            }
            Routed::Delivered { source, meta, message } => {
                self.link.note_pulls(true);
                let asked = &mut self.sources[source];
                asked.pulls.message(Instant::now());
                asked.hear();
                asked.goes_well();
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
        self.link.note_pulls(status != Some(503));
        if status == Some(100) {
            source.goes_well();
            return PullEvent::Quiet;
        }
        let text = message.header("Description").unwrap_or_default();
        let is_missing = status == Some(503) || text.contains("Consumer Deleted");
        if is_missing || OF_ALL.iter().any(|of_all| text.contains(of_all)) {
            source.pulls.forget();
        } else {
            let unsent = message.header("Nats-Pending-Messages").and_then(|n| n.parse().ok());
            source.pulls.ended(pull, unsent);
        }
        match status {
            // With nothing to wait for, an empty consumer answers at once.
            Some(404 | 408)
                if !source.waits || pull != source.newest_pull || source.asked.elapsed() >= AT_ONCE =>
            {
                source.goes_well();
            }
            Some(409) if text.contains("push based") => {
                let consumer = source.consumer().to_owned();
                return PullEvent::Refused(Error::NotPullable { consumer, reason: text.to_owned() });
            }
            Some(409) if source.limits.learn(text) => {
                log::info!(consumer = source.consumer(), reason = text; "a consumer limits pulls; asking for less");
            }
            _ => source.hold(text, is_missing),
        }
        match status {
            _ if is_missing => PullEvent::Missing { source: index },
            Some(404 | 408) if source.pulls.outstanding() > 0 => PullEvent::Quiet,
            _ => PullEvent::Ended { source: index },
        }
    }
}

impl Source {
    fn consumer(&self) -> &str {
        self.subject.rsplit('.').next().unwrap_or_default()
    }

    fn hear(&mut self) {
        let silence = if self.waits { MAX_SILENCE } else { NO_WAIT_SILENCE };
        self.void_after = Instant::now() + silence;
    }

    fn goes_well(&mut self) {
        self.hold_off = Duration::ZERO;
        self.held_until = None;
        self.warned = None;
    }

    /// A pull has ended at once. A consumer that is missing is told by the one who makes it anew.
    fn hold(&mut self, reason: &str, is_missing: bool) {
        self.hold_off = (self.hold_off * 2).clamp(HOLD_OFF_MIN, HOLD_OFF_MAX);
        self.held_until = Some(Instant::now() + self.hold_off);
        if PASSING.iter().any(|passing| reason.contains(passing)) {
            log::info!(consumer = self.consumer(), reason = reason; "the server ended a pull");
        } else if !is_missing && self.warned.as_deref() != Some(reason) {
            log::warn!(consumer = self.consumer(), reason = reason;
                "the server ends pulls at once; asking again after growing pauses");
            self.warned = Some(reason.to_owned());
        }
    }
}

impl Limits {
    /// How many messages are asked for, and the body of the pull; one without a lifetime does not wait.
    fn pull(&self, batch: u64, lifetime: Option<Duration>) -> (u64, Value) {
        let batch = self.batch.map_or(batch, |limit| batch.min(limit)).max(1);
        let mut body = json!({"batch": batch});
        match lifetime.map(|lifetime| self.expires.map_or(lifetime, |limit| lifetime.min(limit))) {
            None => body["no_wait"] = true.into(),
            Some(lifetime) => {
                body["expires"] = nanos(lifetime).into();
                // A shorter one has no room for a sign of life in between.
                if lifetime > HEARTBEAT * 2 {
                    body["idle_heartbeat"] = nanos(HEARTBEAT).into();
                }
            }
        }
        (batch, body)
    }

    /// Reads the limit in the text of a refusal; `false` when there is none that is news.
    fn learn(&mut self, refusal: &str) -> bool {
        let before = *self;
        if let Some(limit) = refusal.strip_prefix("Exceeded MaxRequestBatch of ") {
            self.batch = limit.parse().ok().filter(|limit| *limit > 0).or(before.batch);
        } else if let Some(limit) = refusal.strip_prefix("Exceeded MaxRequestExpires of ") {
            self.expires = go_duration(limit).or(before.expires);
        }
        *self != before
    }
}

/// Reads a duration as the server writes it, such as `1m30s` or `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "µs" | "us" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

impl From<Routed> for Arrival {
    fn from(routed: Routed) -> Self {
        Arrival(routed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_server_are_read() {
        for (text, millis) in
            [("1m30s", 90_000), ("2s", 2000), ("1.5s", 1500), ("250ms", 250), ("1h0m0s", 3_600_000)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "5", "s", "1x", "1.2.3s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn limits_are_learnt_from_refusals_and_obeyed() {
        let mut limits = Limits::default();
        assert!(limits.learn("Exceeded MaxRequestBatch of 3"));
        assert!(limits.learn("Exceeded MaxRequestExpires of 1s"));
        assert!(!limits.learn("Exceeded MaxRequestExpires of 1s"), "it is no news");
        assert!(!limits.learn("Exceeded MaxWaiting"));
        let (batch, body) = limits.pull(8, Some(WAIT));
        assert_eq!((batch, body), (3, json!({"batch": 3, "expires": 1_000_000_000})));
        assert_eq!(limits.pull(1, None).1, json!({"batch": 1, "no_wait": true}));
    }
}
