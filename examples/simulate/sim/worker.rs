//! A worker of ours: pulls, claims, executes, records, settles, gives back, with two slots; it may die,
//! freeze, drain and be cut off.

use std::collections::VecDeque;
use std::time::Duration;

use pyoco_server::delivery::claim::{self, Claim, Claimant};
use pyoco_server::delivery::give_back::{self, GiveBack};
use pyoco_server::delivery::owner::{self, Conflict};
use pyoco_server::delivery::requeue::{self, Reason, Requeue};
use pyoco_server::delivery::{self, Limits, Newest, Stored};
use pyoco_server::model::run::{Delivery, RunSnapshot, RunStatus};

use super::checks::MAX_LOST;
use super::jetstream::{self, Millis};
use super::net::{
    ACK_WAIT, Arrival, Going, Message, NAK_WITHIN, Net, Progress, RUNS, Stream, TOO_MANY_TASKS, Trouble,
    Writer, job,
};

/// Names of workers.
pub const WORKER_IDS: [&str; 3] = ["w0", "w1", "w2"];
const SLOTS: usize = 2;
const HEARTBEAT: Millis = 1_000;
const RECORD_INTERVAL: Millis = 5_000;
const PROGRESS_INTERVAL: Millis = 10_000;
/// How long a pull waits.
const WAIT: Millis = 4_000;
/// The same of a worker with several tags. A job that finds no slot comes again when such pulls have ended,
/// after so many tries.
const MANY_WAIT: Millis = 2_000;
const QUICK_GIVE_BACKS: u64 = 2;
const GIVE_BACK_DELAY: Duration = Duration::from_millis(MANY_WAIT + 500);
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
const LOST_NATS: Millis = 4_000;
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
    /// Deliveries that have come since.
    again: VecDeque<Arrival>,
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
    /// When it has kept its job alive last, and whether that was ever too late.
    kept_alive: Millis,
    may_be_stale: bool,
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
    may_be_stale: bool,
    /// The deliveries by which the snapshot may name this worker.
    acks: Vec<String>,
    delay: Duration,
    step: Going<GiveBack<'static>>,
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
    pub fn freeze(&mut self, net: &mut Net, time: Millis) {
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
                net.checks.goes_on(net.now, held.message.0, (self.index, place));
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

    fn pull(&mut self, net: &mut Net) {
        self.pull_at = net.now + 100 + net.random.within(0..900);
        if let Some(arrival) = net.inboxes[self.index].pop_front() {
            self.pull_at = net.now + 1 + net.random.within(0..20);
            return self.take(net, arrival);
        }
        self.sweep(net);
        if self.drain.is_some() {
            return;
        }
        if let Some((until, pause)) = self.unwell {
            if net.now < until {
                return;
            }
            if !net.test_write(self.actor) {
                self.unwell = Some((net.now + pause, (pause * 2).min(MAX_CHECK_PAUSE)));
                return;
            }
            self.unwell = None;
        }
        if net.now < self.stale_until {
            return;
        }
        let free = self.slots.iter().filter(|slot| slot.held.is_none()).count();
        let me = (self.index, net.connections[self.index]);
        let wanted = if free > 0 && self.kind.has_tags { free + 1 } else { free };
        let more = wanted.saturating_sub(net.queue.asked_by(me));
        if more > 0 {
            let wait = if self.kind.has_tags { MANY_WAIT } else { WAIT };
            let until = net.now + wait;
            let _ = net.ask(self.actor, false, |net| net.queue.pull(me, more, until));
        }
    }

    /// Takes a job that has come.
    fn take(&mut self, net: &mut Net, arrival: Arrival) {
        let Arrival { message, delivery } = arrival;
        if net.now < self.stale_until {
            net.tell(|| format!("w{} stood still and leaves r{}", self.index, message.0));
            return;
        }
        let is_mine = |slot: &Slot| {
            let held = slot.held.as_ref();
            held.is_some_and(|held| held.message.0 == message.0 && held.delivery.seq == delivery.seq)
        };
        let mine = self.slots.iter().position(is_mine);
        let free = self.slots.iter().position(|slot| slot.held.is_none());
        let place = free.filter(|_| self.unwell.is_none() && self.drain.is_none());
        let place = mine.or(place);
        let Some(place) = place else { return self.refuse(net, arrival) };
        let slot = &mut self.slots[place];
        if let Some(held) = &mut slot.held {
            net.tell(|| format!("w{} has r{} already", self.index, message.0));
            held.again.push_back(arrival);
            slot.at = slot.at.min(net.now + 1);
            return;
        }
        self.begin_claim(net, place, arrival);
    }

    fn begin_claim(&mut self, net: &mut Net, place: usize, arrival: Arrival) {
        let Arrival { message, delivery } = arrival;
        net.in_progress(self.actor, delivery.seq);
        let acks = vec![ack(delivery)];
        let step = self.claiming(net, message, delivery, None);
        let give_up = net.now + CLAIM_PATIENCE;
        let claims = Claims {
            acks,
            step,
            give_up,
            may_be_stored: false,
            kept_alive: net.now,
            may_be_stale: false,
            slow: 0,
            silent: None,
        };
        self.slots[place] = Slot {
            at: net.now + 1 + net.random.within(0..20),
            held: Some(InHand { message, delivery, again: VecDeque::new() }),
            doing: Doing::Claims(Box::new(claims)),
        };
    }

    /// Gives back what it has no room for.
    fn refuse(&mut self, net: &mut Net, Arrival { message, delivery }: Arrival) {
        net.tell(|| format!("w{} has no room for r{}", self.index, message.0));
        let delay = if delivery.num <= QUICK_GIVE_BACKS { Duration::ZERO } else { GIVE_BACK_DELAY };
        let _ = net.nak(self.actor, delivery.seq, delay);
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
            Doing::GivesBack(gives) => self.give_back(net, &held, gives, at),
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

    fn delivery(&self, delivery: jetstream::Delivery) -> Delivery {
        Delivery::new(ack(delivery), format!("w{}-{}", self.index, self.instance), 1.0)
    }

    fn claiming(
        &self,
        net: &Net,
        message: Message,
        delivery: jetstream::Delivery,
        silent: Option<u64>,
    ) -> Going<Claim<'static>> {
        let claimant = Claimant {
            worker_id: WORKER_IDS[self.index],
            stream_seq: delivery.seq,
            num_delivered: delivery.num,
            delivery: self.delivery(delivery),
            now: net.seconds(),
        };
        let claim = Claim::new(job(message), claimant, Self::limits()).silent(silent);
        Going::new(claim, message.0, Some(delivery))
    }

    /// Claims anew, for the newest delivery.
    fn claim_again(&self, net: &mut Net, held: &mut InHand, claims: &mut Claims) {
        claims.may_be_stale |= net.now >= claims.kept_alive + STALE_AFTER;
        claims.kept_alive = net.now;
        while let Some(again) = held.again.pop_front() {
            claims.acks.push(ack(again.delivery));
            held.delivery = again.delivery;
            claims.may_be_stale = false;
        }
        net.in_progress(self.actor, held.delivery.seq);
        claims.step = self.claiming(net, held.message, held.delivery, claims.silent);
    }

    fn claim(
        &mut self,
        net: &mut Net,
        place: usize,
        held: &mut InHand,
        mut claims: Box<Claims>,
        at: Millis,
    ) -> Option<(Millis, Doing)> {
        let run = held.message.0;
        let hold = |claims: Claims| if claims.may_be_stored { claims.acks } else { Vec::new() };
        if claims.may_be_stale || net.now >= claims.kept_alive + STALE_AFTER {
            net.tell(|| format!("w{} leaves r{run} to others", self.index));
            return Some((at, self.giving_back(net, held, (hold(*claims), true), Duration::ZERO)));
        }
        let progress = claims.step.step(net, self.actor);
        claims.may_be_stored |= claims.step.protocol.may_be_stored();
        match progress {
            Progress::Going => Some((at, Doing::Claims(claims))),
            Progress::Trouble(trouble) => {
                net.tell(|| format!("w{} cannot claim r{run}: {trouble:?}", self.index));
                self.note(net, trouble);
                if net.now >= claims.give_up || self.drain.is_some() {
                    return Some((at, self.giving_back(net, held, (hold(*claims), false), TROUBLE_DELAY)));
                }
                self.claim_again(net, held, &mut claims);
                let pause = Self::blocked(trouble) + 250 + net.random.within(0..1_750);
                Some((net.now + pause, Doing::Claims(claims)))
            }
            Progress::End(claim::End::Execute(..))
                if net.now >= claims.kept_alive + LEASE && claims.slow < MAX_SLOW_CLAIMS =>
            {
                claims.slow += 1;
                claims.may_be_stored = true;
                self.claim_again(net, held, &mut claims);
                Some((net.now + 1, Doing::Claims(claims)))
            }
            Progress::End(claim::End::Execute(snapshot, revision)) => {
                Some((at, self.executing(net, place, run, snapshot, revision)))
            }
            Progress::End(claim::End::Foreign(revision)) => {
                if self.drain.is_some() {
                    return Some((at, self.giving_back(net, held, (Vec::new(), false), Duration::ZERO)));
                }
                claims.silent = Some(revision);
                self.claim_again(net, held, &mut claims);
                Some((net.now + foreign_silence(), Doing::Claims(claims)))
            }
            Progress::End(claim::End::Changed) => {
                self.claim_again(net, held, &mut claims);
                Some((net.now + CHANGED_PAUSE, Doing::Claims(claims)))
            }
            Progress::End(end) => {
                net.tell(|| format!("w{} is done with r{run}: {end:?}", self.index));
                None
            }
        }
    }

    fn executing(
        &self,
        net: &mut Net,
        place: usize,
        run: usize,
        snapshot: Box<RunSnapshot>,
        revision: u64,
    ) -> Doing {
        net.tell(|| format!("w{} executes r{run} in attempt {:?}", self.index, snapshot.attempt));
        let newest = net.runs.newest(run).and_then(|(_, snapshot)| snapshot.as_ref());
        let is_owner = newest.is_some_and(|newest| newest.delivery == snapshot.delivery);
        // What had arrived before it stood still may be a later delivery than that of whoever has begun
        // since; that one finds out with its next heartbeat.
        let takes_over = is_owner && net.now >= self.stale_until;
        net.checks.begins(net.now, run, (self.index, place), takes_over);
        let is_long = net.has_long_run && run == 0;
        let ends_at = net.now + net.random.within(if is_long { 250_000..300_000 } else { 100..8_000 });
        Doing::Executes(Box::new(Attempt {
            acks: snapshot.delivery.iter().map(|delivery| delivery.ack.clone()).collect(),
            snapshot: *snapshot,
            revision,
            ends_at,
            next_write: net.now + HEARTBEAT,
            next_progress: net.now,
            last_contact: net.now,
            is_executing: true,
            lapses_at: None,
            is_interrupted: false,
            is_cancelled: false,
            stored: false,
            conflict: false,
            give_up: Millis::MAX,
        }))
    }

    fn attempt(
        &mut self,
        net: &mut Net,
        place: usize,
        held: &mut InHand,
        mut attempt: Box<Attempt>,
        at: Millis,
    ) -> Option<(Millis, Doing)> {
        let run = held.message.0;
        while let Some(again) = held.again.pop_front() {
            held.delivery = again.delivery;
            attempt.next_progress = net.now;
            attempt.acks.push(ack(again.delivery));
            if !attempt.snapshot.status.is_terminal() {
                attempt.snapshot.attempt = Some(attempt.snapshot.attempt.unwrap_or(0) + 1);
                attempt.snapshot.delivery = Some(self.delivery(again.delivery));
                attempt.next_write = net.now;
            }
        }
        if attempt.is_executing {
            let is_silent = net.now >= attempt.last_contact + LOST_NATS && self.kind.stops_without_nats;
            let (why, delay) = match () {
                () if attempt.is_interrupted => ("was interrupted", Duration::ZERO),
                () if self.is_hard_stop(net.now) => ("is stopped", Duration::ZERO),
                () if is_silent => ("has lost NATS", TROUBLE_DELAY),
                () => ("", Duration::ZERO),
            };
            if !why.is_empty() {
                net.tell(|| format!("w{} {why} and ends r{run}", self.index));
                net.checks.ends(run, (self.index, place));
                return Some((at, self.giving_back(net, held, (attempt.acks, false), delay)));
            }
            if attempt.snapshot.status == RunStatus::Cancelling && !attempt.is_cancelled {
                attempt.is_cancelled = true;
                let takes = if net.random.one_in(8) { CANCEL_GRACE } else { net.random.within(10..3_000) };
                attempt.ends_at = attempt.ends_at.min(net.now + takes);
            }
        }
        if net.now >= attempt.next_progress || !attempt.is_executing && !attempt.stored {
            net.in_progress(self.actor, held.delivery.seq);
            attempt.next_progress = net.now + PROGRESS_INTERVAL;
        }
        if attempt.is_executing && net.now >= attempt.ends_at {
            net.checks.ends(run, (self.index, place));
            finish(net, run, &mut attempt);
        }
        if attempt.stored {
            // Lost: the job comes once more, finds its run ended and is acknowledged then.
            let _ = net.ask(self.actor, false, |net| net.queue.ack(net.now, held.delivery.seq));
            net.tell(|| format!("w{} has ended r{run}", self.index));
            return None;
        }
        let now = net.now;
        let due = |attempt: &Attempt| match attempt.is_executing {
            true => attempt.next_write.min(attempt.ends_at).max(now + 1),
            false => attempt.next_write.max(now + 1),
        };
        if net.now < attempt.next_write {
            return Some((due(&attempt), Doing::Executes(attempt)));
        }
        let is_free_at = self.record(net, place, held, &mut attempt)?;
        if !attempt.is_executing && !attempt.stored && net.now >= attempt.give_up
            || self.is_late(net, &attempt)
        {
            let is_stopping = self.is_hard_stop(net.now);
            if !is_stopping {
                // It costs an attempt: this end may be one that can be stored nowhere.
                net.checks.all_go(&attempt.acks);
            }
            let acks = if is_stopping { attempt.acks } else { Vec::new() };
            return Some((at, self.giving_back(net, held, (acks, false), TROUBLE_DELAY)));
        }
        let due = due(&attempt).max(is_free_at);
        Some((due, Doing::Executes(attempt)))
    }

    /// Whether the worker has no time left to store an end.
    fn is_late(&self, net: &Net, attempt: &Attempt) -> bool {
        !attempt.is_executing && !attempt.stored && !attempt.conflict && self.is_hard_stop(net.now)
    }

    /// Writes the snapshot of an attempt: a heartbeat, or how it ended. When the slot may go on; `None`: the
    /// run is lost.
    fn record(
        &mut self,
        net: &mut Net,
        place: usize,
        held: &InHand,
        attempt: &mut Attempt,
    ) -> Option<Millis> {
        let (run, now, seconds) = (held.message.0, net.now, net.seconds());
        let is_end = !attempt.is_executing;
        let failed = |worker: &mut Worker, net: &mut Net, attempt: &mut Attempt, trouble: Trouble| {
            worker.note(net, trouble);
            attempt.next_write = now + STORE_RETRY;
            if trouble.is_answer() {
                attempt.last_contact = now;
            }
            Some(now + Self::blocked(trouble))
        };
        if attempt.conflict {
            let newest = match net.read(self.actor, run) {
                Ok(newest) => newest,
                Err(trouble) => return failed(self, net, attempt, trouble),
            };
            let revision = newest.as_ref().map_or(0, |(revision, _)| *revision);
            let stored = match &newest {
                None => Stored::Missing,
                Some((_, None)) => Stored::Deleted,
                Some((_, Some(snapshot))) => Stored::Run(snapshot),
            };
            let newest = Newest { revision, stored };
            match owner::on_conflict(&mut attempt.snapshot, &attempt.acks, &newest) {
                Conflict::Lost(why) => {
                    net.tell(|| format!("w{} has lost r{run}: {why}", self.index));
                    net.checks.ends(run, (self.index, place));
                    return None;
                }
                Conflict::Stored => attempt.stored = is_end,
                Conflict::Again => {}
            }
            attempt.revision = revision;
            attempt.conflict = false;
            return Some(now);
        }
        if is_end {
            while attempt.snapshot.tasks.len() >= TOO_MANY_TASKS
                && owner::shrink(&mut attempt.snapshot, seconds)
            {}
        } else {
            attempt.snapshot.heartbeat_at = Some(seconds);
        }
        // What no message can hold is refused each time.
        let fits = attempt.snapshot.tasks.len() < TOO_MANY_TASKS;
        let snapshot = attempt.snapshot.clone();
        let written = match fits {
            true => {
                net.write(self.actor, run, attempt.revision, Some(snapshot), Writer::Owner(&attempt.acks))
            }
            false => Err(Trouble::Full),
        };
        match written {
            Ok(Some(revision)) => {
                (attempt.revision, attempt.last_contact) = (revision, now);
                attempt.next_write = now + HEARTBEAT;
                if is_end {
                    (attempt.stored, attempt.next_write) = (true, now);
                }
                Some(now)
            }
            Ok(None) => {
                attempt.conflict = true;
                Some(now)
            }
            Err(trouble) => {
                // An unknown outcome is read back before the next try.
                attempt.conflict = !trouble.is_answer();
                failed(self, net, attempt, trouble)
            }
        }
    }

    /// `acks`: the deliveries by which the snapshot may name this worker. Without any, trouble is not waited
    /// out.
    fn giving_back(&self, net: &Net, held: &InHand, hold: (Vec<String>, bool), delay: Duration) -> Doing {
        let (acks, may_be_stale) = hold;
        let step = Self::release(net, held, (&acks, may_be_stale), delay);
        let give_up = net.now + STORE_DEADLINE;
        Doing::GivesBack(Box::new(GivesBack { may_be_stale, acks, delay, step, give_up }))
    }

    fn release(
        net: &Net,
        held: &InHand,
        (acks, may_be_stale): (&[String], bool),
        delay: Duration,
    ) -> Going<GiveBack<'static>> {
        let InHand { message, delivery, .. } = held;
        let numbers = (delivery.seq, delivery.num);
        let acks = acks.to_vec();
        let step = GiveBack::new(job(*message), acks, numbers, delay, Self::limits(), net.seconds());
        Going::new(step.may_be_stale(may_be_stale), message.0, Some(*delivery))
    }

    fn give_back(
        &mut self,
        net: &mut Net,
        held: &InHand,
        mut gives: Box<GivesBack>,
        at: Millis,
    ) -> Option<(Millis, Doing)> {
        let run = held.message.0;
        match gives.step.step(net, self.actor) {
            Progress::Going => Some((at, Doing::GivesBack(gives))),
            Progress::End(give_back::End::Changed) => {
                gives.step = Self::release(net, held, (&gives.acks, gives.may_be_stale), gives.delay);
                Some((at, Doing::GivesBack(gives)))
            }
            Progress::End(end) => {
                net.tell(|| format!("w{} has given r{run} back: {end:?}", self.index));
                None
            }
            Progress::Trouble(_) if gives.acks.is_empty() => None,
            Progress::Trouble(_) if net.now >= gives.give_up || self.is_hard_stop(net.now) => {
                net.checks.all_go(&gives.acks);
                if !gives.may_be_stale && net.now < gives.step.looked_at + NAK_WITHIN {
                    let _ = net.nak(self.actor, held.delivery.seq, gives.delay);
                }
                None
            }
            Progress::Trouble(trouble) => {
                net.in_progress(self.actor, held.delivery.seq);
                gives.step = Self::release(net, held, (&gives.acks, gives.may_be_stale), gives.delay);
                Some((net.now + Self::blocked(trouble) + 1_000, Doing::GivesBack(gives)))
            }
        }
    }

    /// Takes care of messages that are delivered no more, as far as advisories tell of them.
    fn sweep(&mut self, net: &mut Net) {
        if let Some((seq, mut step)) = self.sweep.take() {
            self.pull_at = net.now + 1 + net.random.within(0..20);
            match step.step(net, self.actor) {
                Progress::Going => self.sweep = Some((seq, step)),
                Progress::End(end) => {
                    net.tell(|| format!("w{} swept the message {seq}: {end:?}", self.index));
                    if let requeue::End::Foreign(revision) = end
                        && self.watched.is_none_or(|(of, at, _)| (of, at) != (seq, revision))
                    {
                        self.watched = Some((seq, revision, net.now));
                    }
                    if matches!(end, requeue::End::Changed | requeue::End::Foreign(_)) {
                        net.advise(seq);
                    }
                }
                // It comes again.
                Progress::Trouble(_) => net.advise(seq),
            }
            return;
        }
        let Some(seq) = net.advisory(self.actor) else { return };
        let Some(message) = net.queue.get(seq).copied() else { return };
        let silent = self.watched.filter(|(of, _, since)| *of == seq && net.now >= since + foreign_silence());
        let step = Requeue::new(job(message), seq, Reason::Exhausted, Self::limits(), net.seconds())
            .silent(silent.map(|(_, revision, _)| revision));
        self.sweep = Some((seq, Going::new(step, message.0, None)));
    }
}

fn foreign_silence() -> Millis {
    delivery::foreign_silence(Duration::from_millis(HEARTBEAT)).as_millis() as Millis
}

fn ack(delivery: jetstream::Delivery) -> String {
    let jetstream::Delivery { seq, num, nth } = delivery;
    format!("$JS.ACK.S.C.{num}.{seq}.{nth}.0.0")
}

/// The flow has ended.
fn finish(net: &mut Net, run: usize, attempt: &mut Attempt) {
    attempt.is_executing = false;
    attempt.next_write = net.now;
    attempt.give_up = net.now + STORE_DEADLINE;
    // The last run has more tasks than a message can hold.
    if run + 1 == RUNS {
        for task in 0..TOO_MANY_TASKS {
            attempt.snapshot.tasks.insert(format!("t{task}"), "SUCCEEDED".into());
        }
    }
    // A flow may complete in spite of a cancel.
    let status = match attempt.snapshot.status {
        RunStatus::Cancelling if !net.random.one_in(4) => RunStatus::Cancelled,
        _ => RunStatus::Completed,
    };
    attempt.snapshot.finish(status, None, net.seconds());
}
