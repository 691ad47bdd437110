//! Follows a bucket, or the metas of an object store, and never just goes quiet.
//!
//! A short-lived pull consumer delivers in batches that we ask for, so the server cannot flood us. The watch
//! is stale, says so, and is rebuilt when the connection changed, a delivery is missing, heartbeats stop, or
//! the stream has moved on without us. It goes on behind the newest of some told messages that the stream
//! still has, so that a bucket of many keys is not read as a whole because of a few that are written all the
//! time. When the stream has none of them, or has not all that was told behind the one, it may have been
//! restored from a backup: everything is read anew, and what was told before and is not there any more is
//! told as purged.
//!
//! A message may also leave a stream without a trace: by an age, a limit, or a purge. So the number of
//! subjects is compared with what was told, too.

mod consumer;
mod marks;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use consumer::{Consumer, consumer_config};
use crossbeam_channel::{RecvTimeoutError, after, select};
use marks::{Mark, Version, marks};
use serde_json::{Value, json};

use crate::bus::connection::link::Link;
use crate::bus::connection::message::{Message, Meta};
use crate::bus::connection::routes::Routed;
use crate::bus::left;
use crate::bus::{Error, Result, jetstream};
use crate::thread::{Service, StopSignal};

const BATCH: u64 = 512;
/// Unread messages of the route: two batches under way, and status messages.
const ROUTE_CAPACITY: usize = 2 * BATCH as usize + 64;
/// Silence after which the watch is rebuilt: three heartbeats.
pub const WATCH_SILENCE: Duration = Duration::from_secs(6);
/// Between two comparisons with what the stream holds.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
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

    /// How many of the subjects have a message; `None` when it cannot be told.
    fn subjects_of(&self, info: &jetstream::StreamInfo) -> Result<Option<u64>> {
        if self.is_whole_stream {
            return Ok(info.subjects);
        }
        let deadline = Instant::now() + WATCH_SILENCE;
        let found = jetstream::subjects(&self.link, self.stream_name(), &self.subjects, deadline)?;
        Ok(Some(found.subjects.len() as u64))
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

/// A message of the stream, or one that stands for its purge.
#[derive(Debug)]
pub(crate) struct Told {
    pub seq: u64,
    pub message: Message,
    /// When it was stored, by this process's clock.
    pub stored: Instant,
}

type OnTold = Box<dyn FnMut(WatchEvent<Told>) + Send>;

pub struct Watch {
    _follower: Service,
}

impl Watch {
    /// `timeout` is for creating the stream.
    pub(crate) fn start(followed: Followed, timeout: Duration, on_told: OnTold) -> Result<Watch> {
        let name = format!("watch-{}", followed.name);
        let follower = Service::start(name, move |stop| {
            Follower::new(followed, timeout, on_told).run(stop);
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
    /// The last message that was told.
    mark: Option<Mark>,
    /// Behind which sequence to go on; `None` to read everything anew.
    resume_after: Option<u64>,
    /// What was told last of each subject, deletes too.
    known: HashMap<String, Version>,
    /// What was known before everything was read anew, and has not come again yet.
    unconfirmed: HashMap<String, Version>,
    /// How many subjects the stream had at a sequence that is not told yet.
    expected: Option<Expected>,
    /// A comparison has found that subjects were never told: read everything anew.
    is_incomplete: bool,
    /// How many subjects are missing although everything was read anew: no reason to do so again and again.
    tolerated: u64,
    /// When the stream was created; another time means another bucket.
    created: String,
    /// The server's clock, unix seconds, and when it was read.
    server_clock: Option<(f64, Instant)>,
    live: bool,
    /// What the server has last refused, so that the log has it once.
    refused: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    first_seq: u64,
    last_seq: u64,
    subjects: u64,
}

enum End {
    Stopped,
    Rebuild(String),
}

impl Follower {
    fn new(followed: Followed, timeout: Duration, on_told: OnTold) -> Follower {
        Follower {
            followed,
            timeout,
            on_told,
            last_seen: None,
            mark: None,
            resume_after: None,
            known: HashMap::new(),
            unconfirmed: HashMap::new(),
            expected: None,
            is_incomplete: false,
            tolerated: 0,
            created: String::new(),
            server_clock: None,
            live: false,
            refused: None,
        }
    }

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
        let info = jetstream::creating(control, config, Instant::now() + self.timeout, look)?;
        self.read_clock(&info);
        if info.created != self.created || !self.is_known(&info)? {
            // A first start is a reset too: the owner knows nothing yet.
            self.created.clone_from(&info.created);
            self.known.clear();
            self.unconfirmed.clear();
            (self.last_seen, self.mark, self.resume_after) = (None, None, None);
            (self.on_told)(WatchEvent::Reset);
        }
        self.expected = None;
        let generation = link.generation();
        let name = format!("pyoco-watch-{}", uuid::Uuid::new_v4().simple());
        let config = consumer_config(&name, &self.followed.subjects, self.resume_after);
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
        let end = match self.incomplete() {
            Some(end) => Ok(end),
            None => consumer.pull().and_then(|()| self.read(&mut consumer, stop)),
        };
        // Best effort: the server removes it by itself after its inactivity threshold.
        let _ = link.publish(&link.api(&format!("CONSUMER.DELETE.{stream}.{name}")), None, b"");
        end
    }

    /// Whether the stream may be the one that was followed before. Decides where to go on: behind the newest
    /// mark that the stream has, else at the beginning.
    fn is_known(&mut self, info: &jetstream::StreamInfo) -> Result<bool> {
        if self.last_seen.is_some_and(|seen| seen > info.last_seq) {
            return Ok(false);
        }
        self.resume_after = None;
        for mark in marks(&self.known) {
            match mark.is_in(&self.followed)? {
                Some(false) => return Ok(false),
                Some(true) if !self.is_incomplete => {
                    self.resume_after = Some(mark.version.seq);
                    break;
                }
                // Another message of its subject may have taken its place; or this is another history.
                Some(true) | None => {}
            }
        }
        let after = self.resume_after;
        if after.is_none() {
            (self.last_seen, self.mark) = (None, None);
        }
        self.is_incomplete = false;
        // What comes again and is the same is no news; what does not come again is gone.
        let again = self.known.extract_if(|_, version| after.is_none_or(|after| version.seq > after));
        self.unconfirmed.extend(again);
        Ok(true)
    }

    fn read_clock(&mut self, info: &jetstream::StreamInfo) {
        self.server_clock = info.now.map(|now| (now, Instant::now())).or(self.server_clock);
    }

    /// When a message was stored, by our clock. What comes while the watch is live was stored just now.
    fn stored(&self, meta: &Meta) -> Instant {
        let now = Instant::now();
        let Some((server, read)) = self.server_clock.filter(|_| !self.live) else { return now };
        let age = server + (now - read).as_secs_f64() - meta.stored_at as f64 / 1e9;
        let age = Duration::try_from_secs_f64(age.max(0.0)).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
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
        if self.expected.is_some_and(|expected| expected.last_seq < meta.stream_seq) {
            self.compare_subjects()?;
        }
        self.last_seen = Some(self.last_seen.unwrap_or(0).max(meta.stream_seq));
        let version = Version { seq: meta.stream_seq, stored_at: meta.stored_at };
        self.mark = Some(Mark { subject: message.subject.clone(), version });
        self.known.insert(message.subject.clone(), version);
        // What has come before and is the same is no news.
        if self.unconfirmed.remove(&message.subject) != Some(version) {
            let stored = self.stored(&meta);
            (self.on_told)(WatchEvent::Entry(Told { seq: meta.stream_seq, message, stored }));
        }
        if meta.pending == 0 {
            self.set_live();
        }
        if self.expected.is_some_and(|expected| expected.last_seq == meta.stream_seq) {
            self.compare_subjects()?;
        }
        Ok(self.incomplete())
    }

    fn compare(&mut self, consumer: &mut Consumer) -> Result<Option<End>> {
        let seen = self.last_seen.unwrap_or(0);
        let followed = &self.followed;
        let info = jetstream::stream_info(&followed.link, followed.stream_name(), WATCH_SILENCE)?;
        let is_replaced = match &self.mark {
            Some(mark) => mark.is_in(&self.followed)? == Some(false),
            None => false,
        };
        if info.created != self.created || info.last_seq < seen || is_replaced {
            return Ok(Some(End::Rebuild("the bucket was replaced".into())));
        }
        // Before the newest: what is stored in between must not count as missing.
        let subjects = followed.subjects_of(&info)?;
        let newest = followed.newest(&info)?;
        self.read_clock(&info);
        // What was stored a moment ago may still be on its way; a second look tells.
        let behind = newest > seen && self.live && consumer.route.messages.is_empty();
        if behind && consumer.was_behind_at.replace(seen) == Some(seen) {
            let why = format!("the stream is at {newest} and the watch at {seen}");
            return Ok(Some(End::Rebuild(why)));
        }
        if behind {
            consumer.compare_at = Instant::now() + SECOND_LOOK;
        }
        if self.live {
            // Counted when everything that the stream had then is told: a busy stream is always a little
            // ahead.
            let (first_seq, last_seq) = (info.first_seq, newest);
            self.expected = subjects.map(|subjects| Expected { first_seq, last_seq, subjects });
            if newest <= seen {
                self.compare_subjects()?;
            }
        }
        Ok(self.incomplete())
    }

    /// Finds what has left the stream without a trace, and tells of it. What was told reaches up to the
    /// sequence of `expected` and no further.
    fn compare_subjects(&mut self) -> Result<()> {
        let Some(expected) = self.expected.take() else { return Ok(()) };
        let is_complete = |known: &HashMap<String, Version>| known.len() as u64 == expected.subjects;
        if is_complete(&self.known) {
            self.tolerated = 0;
            return Ok(());
        }
        // An age or a limit takes the oldest first.
        self.purge(|_, version| version.seq < expected.first_seq);
        if is_complete(&self.known) {
            return Ok(());
        }
        let followed = &self.followed;
        let deadline = Instant::now() + WATCH_SILENCE;
        let stored =
            jetstream::subjects(&followed.link, followed.stream_name(), &followed.subjects, deadline)?;
        let stored: HashSet<String> = stored.subjects.into_iter().collect();
        self.purge(|subject, version| version.seq <= expected.last_seq && !stored.contains(subject));
        let missing = expected.subjects.saturating_sub(self.known.len() as u64);
        self.is_incomplete = missing > self.tolerated;
        self.tolerated = missing;
        Ok(())
    }

    /// Tells that what is chosen is gone.
    fn purge(&mut self, is_gone: impl Fn(&str, &Version) -> bool) {
        let gone: Vec<_> = self.known.extract_if(|subject, version| is_gone(subject, version)).collect();
        self.tell_purged(gone);
    }

    fn tell_purged(&mut self, gone: impl IntoIterator<Item = (String, Version)>) {
        let mut count = 0;
        for (subject, version) in gone {
            let (message, stored) = (Message::purged(subject), Instant::now());
            (self.on_told)(WatchEvent::Entry(Told { seq: version.seq, message, stored }));
            count += 1;
        }
        if count > 0 {
            log::info!(bucket = self.followed.name.as_str(), count = count; "entries have left a bucket");
        }
    }

    fn incomplete(&self) -> Option<End> {
        let why = || End::Rebuild("the stream has more than was told".into());
        self.is_incomplete.then(why)
    }

    fn set_live(&mut self) {
        if !self.live {
            // What is missing behind a mark may be there in an older version: in another history.
            if self.resume_after.is_some() && !self.unconfirmed.is_empty() {
                self.is_incomplete = true;
                return;
            }
            // Everything that is there has come.
            let gone = std::mem::take(&mut self.unconfirmed);
            self.tell_purged(gone);
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
