//! A worker of ours: pulls, claims, executes, records, settles, gives back, with two slots; it may die,
//! freeze, drain and be cut off.

mod claim;
mod execute;
mod give_back;
mod pull;

use std::collections::VecDeque;
use std::time::Duration;

use pyoco_server::bus::Heard;
use pyoco_server::delivery::Limits;
use pyoco_server::delivery::claim::Claim;
use pyoco_server::delivery::give_back::GiveBack;
use pyoco_server::delivery::requeue::Requeue;
use pyoco_server::model::run::RunSnapshot;

use super::checks::MAX_LOST;
use super::jetstream::{self, Millis};
use super::net::{ACK_WAIT, Arrival, Going, Message, Net, Stream, Trouble};

/// Names of workers.
pub const WORKER_IDS: [&str; 3] = ["w0", "w1", "w2"];
const SLOTS: usize = 2;
const HEARTBEAT: Millis = 1_000;
const RECORD_INTERVAL: Millis = 5_000;
const PROGRESS_INTERVAL: Millis = 10_000;
const FRESH: Duration = Duration::from_millis(PROGRESS_INTERVAL / 4);
const PROGRESS_RETRY: Millis = 2_000;
/// How long a pull waits.
const WAIT: Millis = 4_000;
/// The same of a worker with several tags. A job that finds no slot comes again when such pulls have ended,
/// after so many tries.
const MANY_WAIT: Millis = 2_000;
/// A puller that has stood still for so long leaves what arrives for a while after that alone.
const STALE_AFTER: Millis = ACK_WAIT / 4 * 3;
const STALE_ARRIVALS: Millis = 1_000;
/// Longest time between two tries to write of a worker that could not.
const MAX_CHECK_PAUSE: Millis = 5_000;
/// How long a job is kept alive while its run cannot be claimed.
const CLAIM_PATIENCE: Millis = 10_000;
const MAX_SLOW_CLAIMS: u32 = 3;
/// Before a claim is begun anew because the run has just changed.
const CHANGED_PAUSE: Millis = 50;
/// How long the end of a run is kept while NATS does not take it.
const STORE_DEADLINE: Millis = 600_000;
const STORE_RETRY: Millis = 500;
const TROUBLE_DELAY: Duration = Duration::from_secs(2);
/// Silence after which a worker that is not to go on without NATS ends its runs.
pub const LOST_NATS: Millis = 4_000;
/// For the answer to a request.
const TIMEOUT: Millis = 2_000;
/// A run with Python goes on so long without a sign of life of its worker, which gives one more often.
const LEASE: Millis = 3_500;
const LONGEST_RENEWAL: Millis = 900;
const CANCEL_GRACE: Millis = 30_000;
const DRAIN_TIMEOUT: Millis = 30_000;

pub struct Worker {
    actor: usize,
    index: usize,
    kind: Kind,
    /// Counts its starts.
    instance: u64,
    slots: [Slot; SLOTS],
    /// When it looks for jobs, and at what has come.
    pull_at: Millis,
    sweep: Option<(u64, Going<Requeue<'static>>)>,
    /// A run of the Python worker: its exhausted message, the revision of its snapshot, and since when.
    watched: Option<(u64, u64, Millis)>,
    record_due: Millis,
    /// Until when it asks for nothing, and how long the next pause is.
    unwell: Option<(Millis, Millis)>,
    /// Until when it stands still.
    frozen_until: Millis,
    /// What arrives until then may have been delivered long ago.
    stale_until: Millis,
    /// Since its stop: until when its runs may go on.
    drain: Option<Millis>,
}

#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// It ends its runs when NATS is silent.
    pub stops_without_nats: bool,
    /// Its tasks stand still when it does. Those in Python go on until their lease has run out.
    pub is_native: bool,
    /// It asks for more than it has room for.
    pub has_tags: bool,
}

struct Slot {
    /// Its next step is due then.
    at: Millis,
    held: Option<InHand>,
    doing: Doing,
}

/// A job that the worker has, from its delivery until the slot is free.
struct InHand {
    message: Message,
    /// The newest one; it settles the job.
    delivery: jetstream::Delivery,
    heard: Heard,
    /// Deliveries that have come since.
    again: VecDeque<Arrival>,
}

impl InHand {
    fn new(message: Message, delivery: jetstream::Delivery, now: Millis) -> InHand {
        let heard = Heard::new(Duration::from_millis(now));
        InHand { message, delivery, heard, again: VecDeque::new() }
    }

    /// Goes on with the next delivery that has come since.
    fn adopt(&mut self, now: Millis) -> Option<jetstream::Delivery> {
        let Arrival { delivery, .. } = self.again.pop_front()?;
        (self.delivery, self.heard) = (delivery, Heard::new(Duration::from_millis(now)));
        Some(delivery)
    }

    fn may_be_stale(&self, now: Millis) -> bool {
        self.heard.silence(Duration::from_millis(now)) >= Duration::from_millis(STALE_AFTER)
    }
}

enum Doing {
    Nothing,
    Claims(Box<Claims>),
    Executes(Box<Attempt>),
    GivesBack(Box<GivesBack>),
}

struct Claims {
    acks: Vec<String>,
    step: Going<Claim<'static>>,
    give_up: Millis,
    may_be_stored: bool,
    began: Millis,
    /// How often it took so long that it was made sure of.
    slow: u32,
    silent: Option<u64>,
}

struct Attempt {
    acks: Vec<String>,
    snapshot: RunSnapshot,
    revision: u64,
    /// When the flow ends.
    ends_at: Millis,
    next_write: Millis,
    next_progress: Millis,
    last_contact: Millis,
    is_executing: bool,
    /// The lease has run out: what was executed is killed.
    lapses_at: Option<Millis>,
    is_interrupted: bool,
    is_cancelled: bool,
    /// The terminal snapshot is stored; the ACK is not out.
    stored: bool,
    /// A conflict is to be read back.
    conflict: bool,
    give_up: Millis,
}

struct GivesBack {
    /// The deliveries by which the snapshot may name this worker.
    acks: Vec<String>,
    delay: Duration,
    /// Made right before its first request, as the question whether the job still is in these hands.
    step: Option<Going<GiveBack<'static>>>,
    give_up: Millis,
}

impl Slot {
    fn free() -> Slot {
        Slot { at: Millis::MAX, held: None, doing: Doing::Nothing }
    }
}

impl Worker {
    pub fn new(actor: usize, index: usize, kind: Kind) -> Worker {
        Worker {
            actor,
            index,
            kind,
            instance: 1,
            slots: [Slot::free(), Slot::free()],
            pull_at: 0,
            sweep: None,
            watched: None,
            record_due: 0,
            unwell: None,
            frozen_until: 0,
            stale_until: 0,
            drain: None,
        }
    }

    /// The process ends at once, alone or with its machine, and a new one is started.
    pub fn die(&mut self, net: &mut Net, with_machine: bool) {
        for (place, slot) in self.slots.iter().enumerate() {
            let Some(held) = &slot.held else { continue };
            net.checks.ends(held.message.0, (self.index, place));
            match &slot.doing {
                Doing::Nothing => {}
                Doing::Claims(claims) => net.checks.all_go(&claims.acks),
                Doing::Executes(attempt) => net.checks.all_go(&attempt.acks),
                Doing::GivesBack(gives) => net.checks.all_go(&gives.acks),
            }
        }
        if let Some((seq, _)) = &self.sweep {
            net.advise(*seq);
        }
        net.disconnect(self.index, with_machine);
        self.start_anew();
    }

    fn start_anew(&mut self) {
        let instance = self.instance + 1;
        *self = Worker { instance, ..Worker::new(self.actor, self.index, self.kind) };
    }

    /// SIGTERM: finishes what runs, gives back the rest and ends.
    pub fn drain(&mut self, net: &mut Net) {
        self.drain.get_or_insert(net.now + net.random.within(0..DRAIN_TIMEOUT));
    }

    /// SIGSTOP: the process does not run.
    /// One that still has to go on after another freeze does that first.
    pub fn freeze(&mut self, net: &mut Net, time: Millis) {
        if self.frozen_until > 0 {
            return;
        }
        self.frozen_until = net.now + time;
        if time >= STALE_AFTER {
            self.stale_until = self.frozen_until + STALE_ARRIVALS;
        }
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let (Doing::Executes(attempt), Some(held)) = (&mut slot.doing, &slot.held) else { continue };
            if !attempt.is_executing {
                continue;
            }
            if self.kind.is_native {
                attempt.ends_at += time;
                net.checks.ends(held.message.0, (self.index, place));
            } else {
                let lapses = net.now + LEASE - net.random.within(0..LONGEST_RENEWAL);
                attempt.lapses_at = Some(lapses).filter(|at| *at < self.frozen_until);
            }
        }
    }

    pub fn is_frozen(&self, now: Millis) -> bool {
        now < self.frozen_until
    }

    /// What happens without the process: executions go on, and end. The time until the next such event.
    fn stand_still(&mut self, net: &mut Net) -> Millis {
        let mut next = self.frozen_until;
        for (place, slot) in self.slots.iter_mut().enumerate() {
            let (Doing::Executes(attempt), Some(held)) = (&mut slot.doing, &slot.held) else { continue };
            let Some(lapses_at) = attempt.lapses_at else { continue };
            if net.now < lapses_at.min(attempt.ends_at) {
                next = next.min(lapses_at).min(attempt.ends_at);
                continue;
            }
            net.tell(|| format!("the run r{} of w{}, which stands still, ends", held.message.0, self.index));
            net.checks.ends(held.message.0, (self.index, place));
            attempt.lapses_at = None;
            attempt.is_interrupted = attempt.ends_at > net.now;
        }
        next - net.now
    }

    fn thaw(&mut self, net: &mut Net) {
        self.frozen_until = 0;
        net.tell(|| format!("w{} goes on", self.index));
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if let (Doing::Executes(attempt), Some(held)) = (&slot.doing, &slot.held)
                && attempt.is_executing
                && self.kind.is_native
            {
                let run = held.message.0;
                let newest = net.runs.newest(run).and_then(|(_, snapshot)| snapshot.as_ref());
                let held = newest.and_then(|newest| newest.delivery.as_ref());
                let is_rescued = held.is_some_and(|held| held.rescued);
                net.checks.goes_on(net.now, run, (self.index, place), is_rescued);
            }
        }
    }

    /// One step; the time until the next one.
    pub fn step(&mut self, net: &mut Net) -> Millis {
        if self.is_frozen(net.now) {
            return self.stand_still(net);
        }
        if self.frozen_until > 0 {
            self.thaw(net);
        }
        if net.now >= self.record_due {
            let (index, record) = (self.index, (net.now, Some(self.instance)));
            let written = net.ask_of(Stream::Records, self.actor, true, |net| net.records[index] = record);
            self.record_due = net.now + if written.is_ok() { RECORD_INTERVAL } else { 500 };
        }
        let is_due = |at: Millis| at <= net.now;
        let due = [is_due(self.slots[0].at), is_due(self.slots[1].at), is_due(self.pull_at)];
        let first = net.random.below(3) as usize;
        match (first..first + 3).map(|part| part % 3).find(|part| due[*part]) {
            Some(2) => self.pull(net),
            Some(place) => self.turn(net, place),
            None => {}
        }
        if self.drain.is_some() && self.is_drained(net) {
            return net.random.within(500..20_000);
        }
        let next = self.slots.iter().map(|slot| slot.at).min().unwrap_or(Millis::MAX);
        next.min(self.pull_at).saturating_sub(net.now)
    }

    /// Whether its process has ended in good order.
    fn is_drained(&mut self, net: &mut Net) -> bool {
        if self.slots.iter().any(|slot| slot.held.is_some()) {
            return false;
        }
        if !net.is_cut(self.actor) {
            net.queue.end_pulls((self.index, net.connections[self.index]));
        }
        for arrival in std::mem::take(&mut net.inboxes[self.index]) {
            self.refuse(net, arrival);
        }
        let (index, now) = (self.index, net.now);
        let _ = net.ask_of(Stream::Records, self.actor, true, |net| net.records[index] = (now, None));
        net.tell(|| format!("w{index} has stopped"));
        if let Some((seq, _)) = &self.sweep {
            net.advise(*seq);
        }
        net.disconnect(index, false);
        self.start_anew();
        true
    }

    /// Whether the queue has confirmed that it knows of the work on a job.
    fn keep_alive(&self, net: &mut Net, held: &mut InHand) -> bool {
        let is_confirmed = net.in_progress(self.actor, held.delivery.seq).is_ok();
        if is_confirmed {
            held.heard.confirmed(Duration::from_millis(net.now));
        }
        is_confirmed
    }

    /// Before something that may take long.
    fn refresh(&self, net: &mut Net, held: &mut InHand) {
        if !held.heard.is_within(FRESH, Duration::from_millis(net.now)) {
            self.keep_alive(net, held);
        }
    }

    fn is_hard_stop(&self, now: Millis) -> bool {
        self.drain.is_some_and(|until| now >= until)
    }

    fn limits() -> Limits {
        Limits::new(MAX_LOST, Some(4))
    }

    /// A write has failed.
    fn note(&mut self, net: &mut Net, trouble: Trouble) {
        if trouble != Trouble::Disconnected {
            let pause = self.unwell.map_or(1_000, |(_, pause)| (pause * 2).min(MAX_CHECK_PAUSE));
            self.unwell = Some((net.now + pause, pause));
        }
    }

    /// How long a request that has failed in this way has taken.
    fn blocked(trouble: Trouble) -> Millis {
        if trouble == Trouble::Unknown { TIMEOUT } else { 1 }
    }

    fn turn(&mut self, net: &mut Net, place: usize) {
        let at = net.now + 1 + net.random.within(0..20);
        let Slot { held: Some(mut held), doing, .. } =
            std::mem::replace(&mut self.slots[place], Slot::free())
        else {
            return;
        };
        let next = match doing {
            Doing::Nothing => None,
            Doing::Claims(claims) => self.claim(net, place, &mut held, claims, at),
            Doing::Executes(attempt) => self.attempt(net, place, &mut held, attempt, at),
            Doing::GivesBack(gives) => self.give_back(net, &mut held, gives, at),
        };
        match next {
            Some((at, doing)) => self.slots[place] = Slot { at, held: Some(held), doing },
            // What came after the last look means nothing by itself; another claim finds out.
            None => {
                if let Some(unread) = held.again.pop_back() {
                    self.begin_claim(net, place, unread);
                }
            }
        }
    }
}

fn ack(delivery: jetstream::Delivery) -> String {
    let jetstream::Delivery { seq, num, nth } = delivery;
    format!("$JS.ACK.S.C.{num}.{seq}.{nth}.0.0")
}
