//! Follows a bucket, or the metas of an object store, and never just goes quiet.
//!
//! A short-lived pull consumer delivers in batches that we ask for, so the server cannot flood us. The watch
//! is stale, says so, and is rebuilt from the last sequence seen when the connection changed, a delivery is
//! missing, heartbeats stop, or the stream has moved on without us.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, after, select};
use serde_json::{Value, json};

use crate::bus::connection::inbox::Route;
use crate::bus::connection::link::Link;
use crate::bus::connection::message::{Message, Meta};
use crate::bus::connection::routes::Routed;
use crate::bus::left;
use crate::bus::{Error, Result, jetstream};
use crate::thread::{Service, StopSignal};

const BATCH: u64 = 512;
/// Unread messages of the route: two batches under way, and status messages.
const ROUTE_CAPACITY: usize = 2 * BATCH as usize + 64;
/// The server's sign of life while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which the watch is rebuilt: three heartbeats.
pub const WATCH_SILENCE: Duration = Duration::from_secs(6);
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// Between two comparisons with the stream's last sequence.
const COMPARE_INTERVAL: Duration = Duration::from_secs(10);
/// Between finding the watch behind and looking again.
const SECOND_LOOK: Duration = Duration::from_millis(500);
const REBUILD_MIN: Duration = Duration::from_millis(20);
const REBUILD_MAX: Duration = Duration::from_millis(500);

pub(crate) struct Followed {
    /// For log lines, and for the thread's name.
    pub name: String,
    pub link: Link,
    /// For creating the stream.
    pub control: Link,
    /// The stream's settings, in case that it is missing.
    pub stream: Value,
    pub subjects: String,
    /// Whether those are all that it has, so that its last sequence is one of theirs.
    pub is_whole_stream: bool,
}

impl Followed {
    fn stream_name(&self) -> &str {
        self.stream["name"].as_str().unwrap_or_default()
    }

    /// The newest sequence that a watch must have seen, as far as `info` and the leader know.
    fn newest(&self, info: &jetstream::StreamInfo) -> Result<u64> {
        if self.is_whole_stream {
            return Ok(info.last_seq);
        }
        let which = json!({"last_by_subj": self.subjects});
        let newest = jetstream::get_message(&self.link, self.stream_name(), &which, WATCH_SILENCE)?;
        Ok(newest.map_or(0, |newest| newest.seq))
    }
}

#[derive(Debug)]
pub enum WatchEvent<E> {
    /// The stream is another one than before: forget what you know.
    Reset,
    /// The newest message of a key, the newest meta of an object; a deleted one says so.
    Entry(E),
    /// Everything present has been told; from now on each change comes as it happens.
    Live,
    /// Changes may be missing until the next `Live`; the text says why.
    Stale(String),
}

impl<E> WatchEvent<E> {
    /// `None` for an entry of which `read` makes nothing.
    pub(crate) fn read<F>(self, read: impl FnOnce(E) -> Option<F>) -> Option<WatchEvent<F>> {
        Some(match self {
            WatchEvent::Reset => WatchEvent::Reset,
            WatchEvent::Entry(entry) => WatchEvent::Entry(read(entry)?),
            WatchEvent::Live => WatchEvent::Live,
            WatchEvent::Stale(why) => WatchEvent::Stale(why),
        })
    }
}

/// Takes what a watch tells: of an entry its sequence in the stream and the message.
type OnTold = Box<dyn FnMut(WatchEvent<(u64, Message)>) + Send>;

pub struct Watch {
    _follower: Service,
}

impl Watch {
    /// `timeout` is for creating the stream.
    pub(crate) fn start(followed: Followed, timeout: Duration, on_told: OnTold) -> Result<Watch> {
        let name = format!("watch-{}", followed.name);
        let follower = Service::start(name, move |stop| {
            let (last_seen, created, live, refused) = (None, String::new(), false, None);
            Follower { followed, timeout, on_told, last_seen, created, live, refused }.run(stop);
        })
        .map_err(|e| Error::Setup(format!("cannot start a thread: {e}")))?;
        Ok(Watch { _follower: follower })
    }
}

struct Follower {
    followed: Followed,
    timeout: Duration,
    on_told: OnTold,
    /// Sequence up to which everything was told.
    last_seen: Option<u64>,
    /// When the stream was created; another time means another bucket.
    created: String,
    live: bool,
    /// What the server has last refused, so that the log has it once.
    refused: Option<String>,
}

enum End {
    Stopped,
    Rebuild(String),
}

impl Follower {
    fn run(mut self, stop: &StopSignal) {
        let mut pause = Duration::ZERO;
        loop {
            select! {
                recv(stop) -> _ => return,
                recv(after(pause)) -> _ => {}
            }
            let started = Instant::now();
            match self.follow(stop) {
                Ok(End::Stopped) => return,
                Ok(End::Rebuild(why)) => self.set_stale(why),
                Err(e) => {
                    // What the server refuses will not go by itself, and nobody else says it.
                    let refused = matches!(e, Error::Api { .. }) && !e.is_transient();
                    let why = e.to_string();
                    if refused && !self.live && self.refused.as_ref() != Some(&why) {
                        log::warn!(bucket = self.followed.name.as_str(), error = why.as_str();
                        "cannot follow a bucket; trying again");
                        self.refused = Some(why.clone());
                    }
                    self.set_stale(why);
                }
            }
            let was_short = started.elapsed() < REBUILD_MAX;
            pause = if was_short { (pause * 2).clamp(REBUILD_MIN, REBUILD_MAX) } else { REBUILD_MIN };
        }
    }

    /// Makes a consumer and follows it until it has to be rebuilt.
    fn follow(&mut self, stop: &StopSignal) -> Result<End> {
        if !self.followed.link.wait_up(REBUILD_MAX) {
            return Err(Error::Disconnected);
        }
        let (link, timeout) = (self.followed.link.clone(), WATCH_SILENCE);
        let stream = self.followed.stream_name().to_owned();
        let Followed { control, stream: config, .. } = &self.followed;
        let look = || jetstream::stream_info(&link, &stream, timeout);
        let info = jetstream::creating(control, config, self.timeout, look)?;
        if info.created != self.created || self.last_seen.is_some_and(|seen| seen > info.last_seq) {
            // A first start is a reset too: the owner knows nothing yet.
            self.last_seen = None;
            self.created.clone_from(&info.created);
            (self.on_told)(WatchEvent::Reset);
        }
        let generation = link.generation();
        let name = format!("pyoco-watch-{}", uuid::Uuid::new_v4().simple());
        let config = consumer_config(&name, &self.followed.subjects, self.last_seen);
        let created: Value = jetstream::call(
            &link,
            &format!("CONSUMER.CREATE.{stream}.{name}"),
            &json!({"stream_name": stream, "config": config}),
            timeout,
        )?;
        let waiting = created["num_pending"].as_u64().unwrap_or(0);
        let mut consumer = Consumer {
            generation,
            route: link.open_route(ROUTE_CAPACITY, &[format!("{stream}.{name}")]),
            link: link.clone(),
            pull_subject: link.api(&format!("CONSUMER.MSG.NEXT.{stream}.{name}")),
            pulls: 0,
            outstanding: 0,
            consumer_seq: 0,
            heard: Instant::now(),
            compare_at: Instant::now() + COMPARE_INTERVAL,
            was_behind_at: None,
        };
        if waiting == 0 {
            self.last_seen = Some(self.last_seen.unwrap_or(0).max(info.last_seq));
            self.set_live();
        }
        consumer.pull()?;
        let end = self.read(&mut consumer, stop);
        // Best effort: the server removes it by itself after its inactivity threshold.
        let _ = link.publish(&link.api(&format!("CONSUMER.DELETE.{stream}.{name}")), None, b"");
        end
    }

    fn read(&mut self, consumer: &mut Consumer, stop: &StopSignal) -> Result<End> {
        loop {
            let patience = left(consumer.heard + WATCH_SILENCE);
            let routed = select! {
                recv(stop) -> _ => return Ok(End::Stopped),
                recv(consumer.route.messages) -> routed => routed.map_err(|_| RecvTimeoutError::Disconnected),
                recv(after(patience)) -> _ => Err(RecvTimeoutError::Timeout),
            };
            match routed {
                Err(_) => return Ok(End::Rebuild("no sign of life from the server".into())),
                // The news may come after this consumer has begun over the new socket already.
                Ok(Routed::Reconnected) if consumer.generation == self.followed.link.generation() => {}
                Ok(Routed::Reconnected) => {
                    return Ok(End::Rebuild("the connection to NATS has changed".into()));
                }
                Ok(Routed::Delivered { meta, message, .. }) => {
                    consumer.heard = Instant::now();
                    if let Some(end) = self.take(consumer, meta, message)? {
                        return Ok(end);
                    }
                }
                Ok(Routed::Status { message, .. }) => {
                    consumer.heard = Instant::now();
                    if let Some(end) = consumer.take_status(&message)? {
                        return Ok(end);
                    }
                }
            }
            if Instant::now() >= consumer.compare_at {
                consumer.compare_at = Instant::now() + COMPARE_INTERVAL;
                if let Some(end) = self.compare(consumer)? {
                    return Ok(end);
                }
            }
        }
    }

    fn take(&mut self, consumer: &mut Consumer, meta: Meta, message: Message) -> Result<Option<End>> {
        if meta.consumer_seq != consumer.consumer_seq + 1 {
            return Ok(Some(End::Rebuild("a delivery is missing".into())));
        }
        consumer.consumer_seq = meta.consumer_seq;
        consumer.spend(1)?;
        self.last_seen = Some(self.last_seen.unwrap_or(0).max(meta.stream_seq));
        (self.on_told)(WatchEvent::Entry((meta.stream_seq, message)));
        if meta.pending == 0 {
            self.set_live();
        }
        Ok(None)
    }

    fn compare(&mut self, consumer: &mut Consumer) -> Result<Option<End>> {
        let seen = self.last_seen.unwrap_or(0);
        let followed = &self.followed;
        let info = jetstream::stream_info(&followed.link, followed.stream_name(), WATCH_SILENCE)?;
        if info.created != self.created || info.last_seq < seen {
            return Ok(Some(End::Rebuild("the bucket was replaced".into())));
        }
        let newest = followed.newest(&info)?;
        // What was stored a moment ago may still be on its way; a second look tells.
        let behind = newest > seen && self.live && consumer.route.messages.is_empty();
        if behind && consumer.was_behind_at.replace(seen) == Some(seen) {
            let why = format!("the stream is at {newest} and the watch at {seen}");
            return Ok(Some(End::Rebuild(why)));
        }
        if behind {
            consumer.compare_at = Instant::now() + SECOND_LOOK;
        }
        Ok(None)
    }

    fn set_live(&mut self) {
        if !self.live {
            self.live = true;
            self.refused = None;
            (self.on_told)(WatchEvent::Live);
        }
    }

    fn set_stale(&mut self, why: String) {
        if self.live {
            self.live = false;
            log::warn!(bucket = self.followed.name.as_str(), reason = why.as_str(); "a watch is stale; rebuilding it");
            (self.on_told)(WatchEvent::Stale(why));
        }
    }
}

/// One consumer on the server, and what was asked of it.
struct Consumer {
    /// The socket that it lives on.
    generation: Option<u64>,
    route: Route,
    link: Link,
    pull_subject: String,
    pulls: u64,
    outstanding: u64,
    consumer_seq: u64,
    heard: Instant,
    compare_at: Instant,
    /// Where the watch stood when a comparison last found it behind.
    was_behind_at: Option<u64>,
}

impl Consumer {
    /// Counts what was delivered or expired, and asks for more before the server runs dry.
    fn spend(&mut self, count: u64) -> Result<()> {
        self.outstanding = self.outstanding.saturating_sub(count);
        if self.outstanding <= BATCH / 2 { self.pull() } else { Ok(()) }
    }

    fn take_status(&mut self, message: &Message) -> Result<Option<End>> {
        match message.status() {
            // A heartbeat.
            Some(100) => Ok(None),
            // A pull has expired with so many messages not sent.
            Some(408) => {
                let unused = message.header("Nats-Pending-Messages");
                self.spend(unused.and_then(|n| n.parse().ok()).unwrap_or(BATCH))?;
                Ok(None)
            }
            status => Ok(Some(End::Rebuild(format!("the server ended the pull ({status:?})")))),
        }
    }

    fn pull(&mut self) -> Result<()> {
        self.pulls += 1;
        self.outstanding += BATCH;
        let body = json!({
            "batch": BATCH,
            "expires": PULL_EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        let reply = self.route.reply_subject(self.pulls);
        self.link.publish(&self.pull_subject, Some(&reply), body.to_string().as_bytes())
    }
}

/// Ephemeral pull consumer: everything present, or what came after a sequence.
fn consumer_config(name: &str, subjects: &str, after: Option<u64>) -> Value {
    let mut config = json!({
        "name": name,
        "filter_subject": subjects,
        "ack_policy": "none",
        "mem_storage": true,
        "num_replicas": 1,
        // Far above our longest silence, so that a lost consumer goes by itself.
        "inactive_threshold": 60_000_000_000u64,
    });
    match after {
        None => config["deliver_policy"] = "last_per_subject".into(),
        Some(seq) => {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = (seq + 1).into();
        }
    }
    config
}
