//! A model of the parts of JetStream that the delivery protocol stands on: a work queue with one consumer,
//! and a bucket. `tests/simulation` holds it against a real nats-server: random operations, equal answers.
//!
//! What is easily taken to be otherwise:
//!
//! - A settlement goes by the sequence of the message. That of an old delivery is as good as that of the
//!   newest.
//! - An ACK removes its message whatever state that is in, also when its deliveries are exhausted. All other
//!   settlements need a message in delivery, and do nothing otherwise. The server confirms all of them alike.
//! - A message that waits for its next delivery, or for the end of a delay, is in delivery: it counts as
//!   ack-pending and holds a place of `max_ack_pending`.
//! - Messages for redelivery stand in a line. They come before new ones, also when `max_ack_pending` is
//!   reached. A NAK of a message in the line does not move it, and an in-progress ACK does not take it out; a
//!   NAK with a delay does.
//! - The last `ack_wait`, or the last NAK, does not exhaust a message: the pull that would deliver it once
//!   more does. Until then it is ack-pending and there is no advisory. Only with a `max_deliver` of 1 the end
//!   of `ack_wait` does it without a pull.
//! - Pulls that wait are served in turn: one with room for more goes to the end of the line.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Virtual time in milliseconds.
pub type Millis = u64;

/// A stream with work-queue retention and the durable consumer of its one subject.
#[derive(Debug, Clone)]
pub struct WorkQueue<M> {
    pub settings: Settings,
    /// A stream that holds so many messages refuses further ones.
    pub max_messages: usize,
    last_seq: u64,
    messages: BTreeMap<u64, M>,
    /// Message ids, with the sequence that each was stored under and when.
    ids: HashMap<String, (u64, Millis)>,
    /// The next message that was never delivered.
    next_new: u64,
    deliveries: u64,
    /// Messages in delivery: what the server calls ack-pending.
    pending: BTreeMap<u64, Pending>,
    /// Those of them that the next pulls get, the first one first.
    again: VecDeque<u64>,
    /// No message in delivery is due before this time, those in the line aside.
    earliest: Millis,
    /// Sequences of messages whose deliveries are exhausted, one advisory each.
    advisories: Vec<u64>,
    /// Pulls that wait, the next one to be served first.
    pulls: VecDeque<Pull>,
    /// Working memory of `expire`.
    due: Vec<(Millis, u64)>,
}

/// A connection to the server: whose, and which one of those that it has had.
pub type Connection = (usize, u64);

#[derive(Debug, Clone, Copy)]
struct Pull {
    by: Connection,
    left: usize,
    until: Millis,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    deliveries: u64,
    /// When it gets into the line.
    due: Millis,
    in_line: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub ack_wait: Millis,
    pub max_deliver: u64,
    pub max_ack_pending: usize,
    pub duplicate_window: Millis,
}

/// A delivery: `num` counts those of the message, `nth` those of the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    pub seq: u64,
    pub num: u64,
    pub nth: u64,
}

/// The figures of the stream and its consumer. A message that is stored and neither `pending` nor
/// `ack_pending` is never delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub stored: u64,
    /// Never delivered so far.
    pub pending: u64,
    pub ack_pending: u64,
    /// The highest sequence that was delivered.
    pub delivered_to: u64,
    /// Deliveries of all messages.
    pub deliveries: u64,
}

/// The stream holds as many messages as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<M> WorkQueue<M> {
    pub fn new(settings: Settings) -> Self {
        WorkQueue {
            settings,
            max_messages: usize::MAX,
            last_seq: 0,
            messages: BTreeMap::new(),
            ids: HashMap::new(),
            next_new: 1,
            deliveries: 0,
            pending: BTreeMap::new(),
            again: VecDeque::new(),
            earliest: Millis::MAX,
            advisories: Vec::new(),
            pulls: VecDeque::new(),
            due: Vec::new(),
        }
    }

    /// The sequence, and whether the id was known, for a stream without a limit of messages.
    pub fn publish(&mut self, now: Millis, id: &str, message: M) -> (u64, bool) {
        self.try_publish(now, id, message).expect("no limit of messages is set")
    }

    /// The sequence, and whether the id was known; a full stream still answers for ids that it knows.
    pub fn try_publish(&mut self, now: Millis, id: &str, message: M) -> Result<(u64, bool), Full> {
        let window = self.settings.duplicate_window;
        if let Some((seq, at)) = self.ids.get(id)
            && now < at + window
        {
            return Ok((*seq, true));
        }
        if self.messages.len() >= self.max_messages {
            return Err(Full);
        }
        self.last_seq += 1;
        self.messages.insert(self.last_seq, message);
        self.ids.insert(id.to_owned(), (self.last_seq, now));
        Ok((self.last_seq, false))
    }

    /// What a pull for one message without waiting gets.
    pub fn fetch(&mut self, now: Millis) -> Option<Delivery> {
        self.expire(now);
        let due = now + self.settings.ack_wait;
        while let Some(seq) = self.again.pop_front() {
            let Some(pending) = self.pending.get_mut(&seq) else { continue };
            if pending.deliveries >= self.settings.max_deliver {
                self.exhaust(seq);
                continue;
            }
            *pending = Pending { deliveries: pending.deliveries + 1, due, in_line: false };
            let num = pending.deliveries;
            return Some(self.delivered(seq, num, due));
        }
        if self.pending.len() >= self.settings.max_ack_pending {
            return None;
        }
        let seq = *self.messages.range(self.next_new..).next()?.0;
        self.next_new = seq + 1;
        self.pending.insert(seq, Pending { deliveries: 1, due, in_line: false });
        Some(self.delivered(seq, 1, due))
    }

    /// Opens a pull for so many messages that waits for them until a time.
    pub fn pull(&mut self, by: Connection, batch: usize, until: Millis) {
        self.pulls.push_back(Pull { by, left: batch, until });
    }

    /// The next message that a waiting pull gets; pulls of connections that are gone are forgotten.
    pub fn deliver(
        &mut self,
        now: Millis,
        is_there: impl Fn(Connection) -> bool,
    ) -> Option<(Connection, Delivery)> {
        self.pulls.retain(|pull| now < pull.until && is_there(pull.by));
        let mut pull = *self.pulls.front()?;
        let delivery = self.fetch(now)?;
        self.pulls.pop_front();
        pull.left -= 1;
        if pull.left > 0 {
            self.pulls.push_back(pull);
        }
        Some((pull.by, delivery))
    }

    /// How many messages the waiting pulls of a connection may still bring.
    pub fn asked_by(&self, by: Connection) -> usize {
        self.pulls.iter().filter(|pull| pull.by == by).map(|pull| pull.left).sum()
    }

    pub fn end_pulls(&mut self, by: Connection) {
        self.pulls.retain(|pull| pull.by != by);
    }

    /// The leader is gone, and with it what no other node has: pulls, and the line of messages that were
    /// given back. Those come again after `ack_wait`.
    pub fn lose_leader(&mut self, now: Millis) {
        self.pulls.clear();
        for seq in self.again.drain(..) {
            if let Some(pending) = self.pending.get_mut(&seq) {
                (pending.in_line, pending.due) = (false, now + self.settings.ack_wait);
                self.earliest = self.earliest.min(pending.due);
            }
        }
    }

    /// What TERM does, too. `false`: the message was gone.
    pub fn ack(&mut self, now: Millis, seq: u64) -> bool {
        self.expire(now);
        self.forget(seq);
        self.messages.remove(&seq).is_some()
    }

    /// Without a delay (0), the message gets to the end of the line at once.
    pub fn nak(&mut self, now: Millis, seq: u64, delay: Millis) {
        self.expire(now);
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        if delay == 0 {
            if !pending.in_line {
                pending.in_line = true;
                self.again.push_back(seq);
            }
            return;
        }
        pending.due = now.saturating_add(delay);
        self.earliest = self.earliest.min(pending.due);
        if std::mem::take(&mut pending.in_line) {
            self.again.retain(|due| *due != seq);
        }
    }

    /// How often a message in delivery was delivered.
    pub fn deliveries_of(&self, seq: u64) -> u64 {
        self.pending.get(&seq).map_or(0, |pending| pending.deliveries)
    }

    pub fn in_progress(&mut self, now: Millis, seq: u64) {
        self.expire(now);
        let due = now + self.settings.ack_wait;
        if let Some(pending) = self.pending.get_mut(&seq) {
            pending.due = due;
            self.earliest = self.earliest.min(due);
        }
    }

    pub fn get(&self, seq: u64) -> Option<&M> {
        self.messages.get(&seq)
    }

    /// The first message from a sequence on.
    pub fn next(&self, seq: u64) -> Option<(u64, &M)> {
        self.messages.range(seq..).next().map(|(seq, message)| (*seq, message))
    }

    /// Takes effect at the time of the last call that had one; that matters only for the advisories of a
    /// `max_deliver` of 1.
    pub fn remove(&mut self, seq: u64) {
        self.forget(seq);
        self.messages.remove(&seq);
    }

    pub fn figures(&mut self, now: Millis) -> Figures {
        self.expire(now);
        Figures {
            stored: self.messages.len() as u64,
            pending: self.messages.range(self.next_new..).count() as u64,
            ack_pending: self.pending.len() as u64,
            delivered_to: self.next_new - 1,
            deliveries: self.deliveries,
        }
    }

    /// Advisories since the last call.
    pub fn take_advisories(&mut self, now: Millis) -> Vec<u64> {
        self.expire(now);
        std::mem::take(&mut self.advisories)
    }

    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages in delivery that get into the line by themselves, and when.
    pub fn due(&self) -> impl Iterator<Item = (u64, Millis)> {
        let waiting = self.pending.iter().filter(|(_, pending)| !pending.in_line);
        waiting.map(|(seq, pending)| (*seq, pending.due))
    }

    fn delivered(&mut self, seq: u64, num: u64, due: Millis) -> Delivery {
        self.earliest = self.earliest.min(due);
        self.deliveries += 1;
        Delivery { seq, num, nth: self.deliveries }
    }

    /// It is in no delivery any more.
    fn forget(&mut self, seq: u64) {
        if self.pending.remove(&seq).is_some_and(|pending| pending.in_line) {
            self.again.retain(|due| *due != seq);
        }
    }

    /// It is never delivered again, and stays stored.
    fn exhaust(&mut self, seq: u64) {
        self.pending.remove(&seq);
        self.advisories.push(seq);
    }

    /// Puts what was not settled in time into the line, as the server's timer would have done by now.
    fn expire(&mut self, now: Millis) {
        if now < self.earliest {
            return;
        }
        self.earliest = Millis::MAX;
        let mut due = std::mem::take(&mut self.due);
        for (seq, pending) in self.pending.iter_mut().filter(|(_, pending)| !pending.in_line) {
            if pending.due <= now {
                due.push((pending.due, *seq));
                pending.in_line = true;
            } else {
                self.earliest = self.earliest.min(pending.due);
            }
        }
        due.sort_unstable();
        for (_, seq) in due.drain(..) {
            if self.settings.max_deliver == 1 {
                self.exhaust(seq);
            } else {
                self.again.push_back(seq);
            }
        }
        self.due = due;
    }
}

/// A bucket: the newest value of each key, or a tombstone.
#[derive(Debug, Clone, Default)]
pub struct Bucket<V> {
    last: u64,
    newest: BTreeMap<usize, (u64, Option<V>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongRevision;

impl<V> Bucket<V> {
    pub fn new() -> Self {
        Bucket { last: 0, newest: BTreeMap::new() }
    }

    /// Its revision, and the value unless it was deleted.
    pub fn newest(&self, key: usize) -> Option<&(u64, Option<V>)> {
        self.newest.get(&key)
    }

    /// Stores a value, or a tombstone, if the key's newest message has this revision; 0: if there is none.
    pub fn update(&mut self, key: usize, expected: u64, value: Option<V>) -> Result<u64, WrongRevision> {
        if self.newest.get(&key).map_or(0, |(revision, _)| *revision) != expected {
            return Err(WrongRevision);
        }
        self.last += 1;
        self.newest.insert(key, (self.last, value));
        Ok(self.last)
    }
}
