//! A model of the parts of JetStream that the delivery protocol stands on: a work queue with one consumer,
//! and a bucket. `tests/simulation` holds it against a real nats-server.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Virtual time in milliseconds.
pub type Millis = u64;

/// A stream with work-queue retention and the durable consumer of its one subject.
#[derive(Debug, Clone)]
pub struct WorkQueue<M> {
    pub settings: Settings,
    last_seq: u64,
    messages: BTreeMap<u64, M>,
    /// Message ids, with the sequence that each was stored under and when.
    ids: HashMap<String, (u64, Millis)>,
    /// The next message that was never delivered.
    next_new: u64,
    deliveries: u64,
    /// Messages in delivery, with the time at which each comes again.
    pending: BTreeMap<u64, Millis>,
    /// How often each message was delivered.
    counts: HashMap<u64, u64>,
    /// Messages that are due for another delivery, the next one first.
    again: VecDeque<u64>,
    /// Sequences that reached the bound of deliveries, one advisory each.
    advisories: Vec<u64>,
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

/// The figures of the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub stored: u64,
    pub pending: u64,
    pub ack_pending: u64,
    pub delivered_to: u64,
}

impl<M> WorkQueue<M> {
    pub fn new(settings: Settings) -> Self {
        WorkQueue {
            settings,
            last_seq: 0,
            messages: BTreeMap::new(),
            ids: HashMap::new(),
            next_new: 1,
            deliveries: 0,
            pending: BTreeMap::new(),
            counts: HashMap::new(),
            again: VecDeque::new(),
            advisories: Vec::new(),
        }
    }

    /// The sequence, and whether the id was known.
    pub fn publish(&mut self, now: Millis, id: &str, message: M) -> (u64, bool) {
        let window = self.settings.duplicate_window;
        if let Some((seq, at)) = self.ids.get(id)
            && now < at + window
        {
            return (*seq, true);
        }
        self.last_seq += 1;
        self.messages.insert(self.last_seq, message);
        self.ids.insert(id.to_owned(), (self.last_seq, now));
        (self.last_seq, false)
    }

    /// What a pull for one message without waiting gets.
    pub fn fetch(&mut self, now: Millis) -> Option<Delivery> {
        self.expire(now);
        while let Some(seq) = self.again.pop_front() {
            if self.messages.contains_key(&seq) {
                return Some(self.deliver(seq, now));
            }
            self.pending.remove(&seq);
        }
        if self.pending.len() >= self.settings.max_ack_pending {
            return None;
        }
        let seq = *self.messages.range(self.next_new..).next()?.0;
        self.next_new = seq + 1;
        Some(self.deliver(seq, now))
    }

    /// `false`: it is in no delivery, and nothing happened.
    pub fn ack(&mut self, now: Millis, seq: u64) -> bool {
        self.expire(now);
        if self.pending.remove(&seq).is_none() {
            return false;
        }
        self.again.retain(|due| *due != seq);
        self.messages.remove(&seq);
        true
    }

    pub fn nak(&mut self, now: Millis, seq: u64, delay: Millis) {
        self.expire(now);
        if !self.pending.contains_key(&seq) || self.is_exhausted(seq) {
            return;
        }
        self.again.retain(|due| *due != seq);
        if delay > 0 {
            self.pending.insert(seq, now + delay);
        } else {
            self.again.push_back(seq);
        }
    }

    pub fn in_progress(&mut self, now: Millis, seq: u64) {
        self.expire(now);
        let due = now + self.settings.ack_wait;
        if let Some(at) = self.pending.get_mut(&seq) {
            *at = due;
            self.again.retain(|again| *again != seq);
        }
    }

    pub fn get(&self, seq: u64) -> Option<&M> {
        self.messages.get(&seq)
    }

    /// The first message from a sequence on.
    pub fn next(&self, seq: u64) -> Option<(u64, &M)> {
        self.messages.range(seq..).next().map(|(seq, message)| (*seq, message))
    }

    pub fn remove(&mut self, seq: u64) {
        self.messages.remove(&seq);
        self.pending.remove(&seq);
        self.again.retain(|due| *due != seq);
    }

    pub fn figures(&mut self, now: Millis) -> Figures {
        self.expire(now);
        Figures {
            stored: self.messages.len() as u64,
            pending: self.messages.range(self.next_new..).count() as u64,
            ack_pending: self.pending.len() as u64,
            delivered_to: self.next_new - 1,
        }
    }

    /// Advisories since the last call.
    pub fn take_advisories(&mut self, now: Millis) -> Vec<u64> {
        self.expire(now);
        std::mem::take(&mut self.advisories)
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn deliver(&mut self, seq: u64, now: Millis) -> Delivery {
        let num = self.counts.entry(seq).or_insert(0);
        *num += 1;
        self.deliveries += 1;
        self.pending.insert(seq, now + self.settings.ack_wait);
        Delivery { seq, num: *num, nth: self.deliveries }
    }

    /// Puts what was not settled in time in line for another delivery.
    fn expire(&mut self, now: Millis) {
        let due: Vec<u64> = self.pending.iter().filter(|(_, at)| **at <= now).map(|(seq, _)| *seq).collect();
        for seq in due {
            if self.again.contains(&seq) || self.is_exhausted(seq) {
                continue;
            }
            self.again.push_back(seq);
        }
    }

    /// Whether it was delivered as often as it may; then it is in no delivery any more, and stays.
    fn is_exhausted(&mut self, seq: u64) -> bool {
        if self.counts.get(&seq).is_none_or(|count| *count < self.settings.max_deliver) {
            return false;
        }
        if self.pending.remove(&seq).is_some() {
            self.advisories.push(seq);
        }
        true
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
