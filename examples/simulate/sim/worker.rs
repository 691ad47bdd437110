//! A worker of ours: pulls, claims, executes, records, settles, gives back; it may die, freeze and be cut
//! off.

use std::time::Duration;

use pyoco_server::delivery::claim::{self, Claim, Claimant};
use pyoco_server::delivery::give_back::{self, GiveBack};
use pyoco_server::delivery::owner::{self, Conflict};
use pyoco_server::delivery::requeue::{self, Reason, Requeue};
use pyoco_server::delivery::{Limits, Newest, Stored};
use pyoco_server::model::run::{Delivery, RunSnapshot, RunStatus};

use super::checks::MAX_LOST;
use super::jetstream::{self, Millis};
use super::net::{Going, Net, Progress, TOO_MANY_TASKS, Trouble, Writer, job};

/// Names of workers.
pub const WORKER_IDS: [&str; 3] = ["w0", "w1", "w2"];
const HEARTBEAT: Millis = 1_000;
const RECORD_INTERVAL: Millis = 5_000;
const PROGRESS_INTERVAL: Millis = 10_000;
/// Longest time between two tries to write of a worker that could not.
const MAX_CHECK_PAUSE: Millis = 5_000;
/// How long a job is kept alive while its run cannot be claimed.
const CLAIM_PATIENCE: Millis = 10_000;
/// How long the end of a run is kept while NATS does not take it.
const STORE_DEADLINE: Millis = 600_000;
const TROUBLE_DELAY: Duration = Duration::from_secs(2);
/// Silence after which a worker that is not to go on without NATS ends its runs.
pub const LOST_NATS: Millis = 4_000;
/// A worker that is frozen for this long is taken for dead by somebody.
pub const NOTICED: Millis = 4_000;

pub struct Worker {
    actor: usize,
    index: usize,
    /// Counts its starts.
    instance: u64,
    /// Whether it ends its runs when NATS is silent.
    stops_without_nats: bool,
    slot: Slot,
    sweep: Option<(u64, Going<Requeue<'static>>)>,
    record_due: Millis,
    /// Until when it asks for nothing, and how long the next pause is.
    unwell: Option<(Millis, Millis)>,
    heard_at: Millis,
}

enum Slot {
    Free,
    Claiming {
        delivery: jetstream::Delivery,
        acks: Vec<String>,
        step: Box<Going<Claim<'static>>>,
        give_up: Millis,
        may_be_stored: bool,
        silent: Option<u64>,
        /// Not before.
        at: Millis,
    },
    Attempt(Box<Attempt>),
    GivingBack {
        delivery: jetstream::Delivery,
        /// The deliveries by which the snapshot may name this worker.
        held: Option<Vec<String>>,
        step: Going<GiveBack<'static>>,
        give_up: Millis,
        at: Millis,
    },
}

struct Attempt {
    run: usize,
    delivery: jetstream::Delivery,
    acks: Vec<String>,
    snapshot: RunSnapshot,
    revision: u64,
    /// When the flow ends.
    ends_at: Millis,
    next_write: Millis,
    next_progress: Millis,
    is_executing: bool,
    /// The terminal snapshot is stored; the ACK is not out.
    stored: bool,
    /// A conflict is to be read back.
    conflict: bool,
    give_up: Millis,
}

impl Worker {
    pub fn new(actor: usize, index: usize, stops_without_nats: bool) -> Worker {
        Worker {
            actor,
            index,
            instance: 1,
            stops_without_nats,
            slot: Slot::Free,
            sweep: None,
            record_due: 0,
            unwell: None,
            heard_at: 0,
        }
    }

    /// The run that it has, if it has one.
    pub fn run(&self) -> Option<usize> {
        match &self.slot {
            Slot::Free => None,
            Slot::Claiming { step, .. } => Some(step.run),
            Slot::Attempt(attempt) => Some(attempt.run),
            Slot::GivingBack { step, .. } => Some(step.run),
        }
    }

    /// Whether its run can be taken for lost while it cannot write.
    pub fn is_executing(&self) -> bool {
        matches!(&self.slot, Slot::Attempt(_))
    }

    /// SIGKILL, and a new start.
    pub fn die(&mut self, net: &mut Net) {
        if let Some(run) = self.run() {
            net.checks.disturbed[run] += 1;
            net.checks.ends(run, self.index);
        }
        self.start_anew();
    }

    /// SIGTERM: gives back what it has and ends.
    pub fn drain(&mut self, net: &mut Net) {
        let slot = std::mem::replace(&mut self.slot, Slot::Free);
        self.slot = match slot {
            Slot::Attempt(attempt) if attempt.is_executing => {
                net.checks.ends(attempt.run, self.index);
                self.giving_back(net, attempt.run, attempt.delivery, Some(attempt.acks), Duration::ZERO)
            }
            other => other,
        };
    }

    fn start_anew(&mut self) {
        let (actor, index, stops) = (self.actor, self.index, self.stops_without_nats);
        *self = Worker { instance: self.instance + 1, ..Worker::new(actor, index, stops) };
    }

    /// The process does not run, but the supervisor of its run does, and ends that.
    pub fn is_frozen_for(&mut self, net: &mut Net, time: Millis) {
        if let Some(run) = self.run()
            && time > NOTICED
        {
            net.checks.disturbed[run] += 1;
            self.drain(net);
        }
    }

    /// One step; the time until the next one.
    pub fn step(&mut self, net: &mut Net) -> Millis {
        if !net.is_cut(self.actor) {
            self.heard_at = net.now;
        }
        if net.now >= self.record_due {
            let (now, instance) = (net.now, self.instance);
            let index = self.index;
            if net.ask(self.actor, true, |net| net.records[index] = (now, Some(instance))).is_ok() {
                self.record_due = net.now + RECORD_INTERVAL;
            }
        }
        let slot = std::mem::replace(&mut self.slot, Slot::Free);
        self.slot = match slot {
            Slot::Free => {
                self.sweep(net);
                self.pull(net)
            }
            slot @ Slot::Claiming { .. } => self.claim(net, slot),
            Slot::Attempt(attempt) => self.attempt(net, attempt),
            slot @ Slot::GivingBack { .. } => self.give_back(net, slot),
        };
        match &self.slot {
            Slot::Free if self.sweep.is_none() => 200 + net.random.within(0..800),
            Slot::Attempt(attempt) if attempt.is_executing => {
                let due = attempt.next_write.min(attempt.ends_at);
                due.saturating_sub(net.now).max(1)
            }
            Slot::Claiming { at, .. } | Slot::GivingBack { at, .. } if *at > net.now => *at - net.now,
            _ => 1 + net.random.within(0..20),
        }
    }

    fn limits() -> Limits {
        Limits::new(MAX_LOST, Some(4))
    }

    fn is_unwell(&mut self, net: &mut Net) {
        let pause = self.unwell.map_or(1_000, |(_, pause)| (pause * 2).min(MAX_CHECK_PAUSE));
        self.unwell = Some((net.now + pause, pause));
    }

    fn pull(&mut self, net: &mut Net) -> Slot {
        if let Some((until, pause)) = self.unwell {
            if net.now < until {
                return Slot::Free;
            }
            if !net.test_write(self.actor) {
                self.unwell = Some((net.now + pause, (pause * 2).min(MAX_CHECK_PAUSE)));
                return Slot::Free;
            }
            self.unwell = None;
        }
        let fetched = net.ask(self.actor, false, |net| {
            let delivery = net.queue.fetch(net.now)?;
            let message = *net.queue.get(delivery.seq)?;
            Some((delivery, message))
        });
        // What is lost on its way comes again after ack_wait.
        let Ok(Some((delivery, message))) = fetched else { return Slot::Free };
        net.tell(|| format!("w{} gets r{} by {delivery:?}", self.index, message.0));
        let acks = vec![self.ack(net, delivery)];
        let (at, give_up) = (net.now, net.now + CLAIM_PATIENCE);
        let step = self.claiming(net, message, delivery, None);
        Slot::Claiming { delivery, acks, step, give_up, may_be_stored: false, silent: None, at }
    }

    fn ack(&self, _: &Net, delivery: jetstream::Delivery) -> String {
        let jetstream::Delivery { seq, num, nth } = delivery;
        format!("$JS.ACK.S.C.{num}.{seq}.{nth}.0.0")
    }

    fn claiming(
        &self,
        net: &Net,
        message: super::net::Message,
        delivery: jetstream::Delivery,
        silent: Option<u64>,
    ) -> Box<Going<Claim<'static>>> {
        let instance_id = format!("w{}-{}", self.index, self.instance);
        let claimant = Claimant {
            worker_id: WORKER_IDS[self.index],
            stream_seq: delivery.seq,
            num_delivered: delivery.num,
            delivery: Delivery::new(self.ack(net, delivery), instance_id, 1.0),
            now: net.seconds(),
        };
        let claim = Claim::new(job(message), claimant, Self::limits()).silent(silent);
        Box::new(Going::new(claim, message.0, Some(delivery)))
    }

    fn claim(&mut self, net: &mut Net, slot: Slot) -> Slot {
        let Slot::Claiming { delivery, acks, mut step, give_up, mut may_be_stored, silent, at } = slot else {
            return slot;
        };
        if net.now < at {
            return Slot::Claiming { delivery, acks, step, give_up, may_be_stored, silent, at };
        }
        let run = step.run;
        let progress = step.step(net, self.actor);
        may_be_stored |= step.protocol.may_be_stored();
        let message = |net: &Net| net.queue.get(delivery.seq).copied().unwrap_or((run, None));
        match progress {
            Progress::Going => Slot::Claiming { delivery, acks, step, give_up, may_be_stored, silent, at },
            Progress::Trouble(trouble) => {
                net.tell(|| format!("w{} cannot claim r{run}: {trouble:?}", self.index));
                self.is_unwell(net);
                let _ = net.ask(self.actor, false, |net| net.queue.in_progress(net.now, delivery.seq));
                if net.now >= give_up {
                    let held = may_be_stored.then_some(acks);
                    return self.giving_back(net, run, delivery, held, TROUBLE_DELAY);
                }
                let step = self.claiming(net, message(net), delivery, silent);
                let at = net.now + 250 + net.random.within(0..1_750);
                Slot::Claiming { delivery, acks, step, give_up, may_be_stored, silent, at }
            }
            Progress::End(claim::End::Execute(snapshot, revision)) => {
                net.tell(|| format!("w{} executes r{run} in attempt {:?}", self.index, snapshot.attempt));
                net.checks.begins(run, self.index);
                let is_long = net.has_long_run && run == 0;
                let lasts = if is_long { 250_000..300_000 } else { 100..8_000 };
                let ends_at = net.now + net.random.within(lasts);
                Slot::Attempt(Box::new(Attempt {
                    run,
                    delivery,
                    acks,
                    snapshot: *snapshot,
                    revision,
                    ends_at,
                    next_write: net.now + HEARTBEAT,
                    next_progress: net.now,
                    is_executing: true,
                    stored: false,
                    conflict: false,
                    give_up: ends_at + STORE_DEADLINE,
                }))
            }
            Progress::End(claim::End::Foreign(revision)) => {
                let _ = net.ask(self.actor, false, |net| net.queue.in_progress(net.now, delivery.seq));
                let step = self.claiming(net, message(net), delivery, Some(revision));
                let at = net.now + 6_000;
                Slot::Claiming { delivery, acks, step, give_up, may_be_stored, silent: Some(revision), at }
            }
            Progress::End(claim::End::Changed) => {
                let step = self.claiming(net, message(net), delivery, silent);
                Slot::Claiming { delivery, acks, step, give_up, may_be_stored, silent, at }
            }
            Progress::End(end) => {
                net.tell(|| format!("w{} is done with r{run}: {end:?}", self.index));
                Slot::Free
            }
        }
    }

    fn attempt(&mut self, net: &mut Net, mut attempt: Box<Attempt>) -> Slot {
        let is_silent = self.stops_without_nats && net.now >= self.heard_at + LOST_NATS;
        if attempt.is_executing && is_silent {
            net.tell(|| format!("w{} has lost NATS and ends r{}", self.index, attempt.run));
            net.checks.ends(attempt.run, self.index);
            let (run, delivery) = (attempt.run, attempt.delivery);
            return self.giving_back(net, run, delivery, Some(attempt.acks), TROUBLE_DELAY);
        }
        if net.now >= attempt.next_progress {
            let seq = attempt.delivery.seq;
            let _ = net.ask(self.actor, false, |net| net.queue.in_progress(net.now, seq));
            attempt.next_progress = net.now + PROGRESS_INTERVAL;
        }
        if attempt.is_executing && net.now >= attempt.ends_at {
            net.checks.ends(attempt.run, self.index);
            attempt.is_executing = false;
            attempt.next_write = net.now;
            // The last run has more tasks than a message can hold.
            if attempt.run + 1 == super::net::RUNS {
                for task in 0..TOO_MANY_TASKS {
                    attempt.snapshot.tasks.insert(format!("t{task}"), "SUCCEEDED".into());
                }
            }
            let status = match attempt.snapshot.status {
                RunStatus::Cancelling => RunStatus::Cancelled,
                _ => RunStatus::Completed,
            };
            attempt.snapshot.finish(status, None, net.seconds());
        }
        if attempt.stored {
            let seq = attempt.delivery.seq;
            // Lost: the job comes once more, finds its run ended and is acknowledged then.
            let _ = net.ask(self.actor, false, |net| net.queue.ack(net.now, seq));
            net.tell(|| format!("w{} has ended r{}", self.index, attempt.run));
            return Slot::Free;
        }
        if net.now < attempt.next_write {
            return Slot::Attempt(attempt);
        }
        self.record(net, attempt)
    }

    /// Writes the snapshot of an attempt: a heartbeat, or how it ended.
    fn record(&mut self, net: &mut Net, mut attempt: Box<Attempt>) -> Slot {
        let is_end = !attempt.is_executing;
        if attempt.conflict {
            let Ok(newest) = net.read(self.actor, attempt.run) else {
                attempt.next_write = net.now + 500;
                return Slot::Attempt(attempt);
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
                    net.tell(|| format!("w{} has lost r{}: {why}", self.index, attempt.run));
                    net.checks.ends(attempt.run, self.index);
                    return Slot::Free;
                }
                Conflict::Stored => attempt.stored = is_end,
                Conflict::Again => {}
            }
            attempt.revision = revision;
            attempt.conflict = false;
            return Slot::Attempt(attempt);
        }
        let now = net.seconds();
        if is_end {
            while attempt.snapshot.tasks.len() >= TOO_MANY_TASKS && owner::shrink(&mut attempt.snapshot, now)
            {
            }
        } else {
            attempt.snapshot.heartbeat_at = Some(now);
        }
        // What no message can hold is refused each time.
        let fits = attempt.snapshot.tasks.len() < TOO_MANY_TASKS;
        let snapshot = attempt.snapshot.clone();
        let written = match fits {
            true => {
                let by = Writer::Owner(&attempt.acks);
                net.write(self.actor, attempt.run, attempt.revision, Some(snapshot), by)
            }
            false => Err(Trouble::Full),
        };
        match written {
            Ok(Some(revision)) => {
                attempt.revision = revision;
                attempt.next_write = net.now + HEARTBEAT;
                if is_end {
                    attempt.stored = true;
                    attempt.next_write = net.now;
                }
            }
            Ok(None) => attempt.conflict = true,
            Err(trouble) => {
                self.is_unwell(net);
                // An unknown outcome is read back before the next try.
                attempt.conflict = trouble == Trouble::Unknown && fits;
                attempt.next_write = net.now + 500;
                if is_end && net.now >= attempt.give_up {
                    let Attempt { run, delivery, .. } = *attempt;
                    // It costs an attempt: this end may be one that can be stored nowhere.
                    net.checks.disturbed[run] += 1;
                    return self.giving_back(net, run, delivery, None, TROUBLE_DELAY);
                }
            }
        }
        Slot::Attempt(attempt)
    }

    fn giving_back(
        &self,
        net: &Net,
        run: usize,
        delivery: jetstream::Delivery,
        held: Option<Vec<String>>,
        delay: Duration,
    ) -> Slot {
        let message = net.queue.get(delivery.seq).copied().unwrap_or((run, None));
        let numbers = (delivery.seq, delivery.num);
        let acks = held.clone().unwrap_or_default();
        let step = GiveBack::new(job(message), acks, numbers, delay, Self::limits(), net.seconds());
        let step = Going::new(step, run, Some(delivery));
        Slot::GivingBack { delivery, held, step, give_up: net.now + STORE_DEADLINE, at: net.now }
    }

    fn give_back(&mut self, net: &mut Net, slot: Slot) -> Slot {
        let Slot::GivingBack { delivery, held, mut step, give_up, at } = slot else { return slot };
        let run = step.run;
        if held.is_none() {
            let delay = u64::try_from(TROUBLE_DELAY.as_millis()).unwrap_or(0);
            let _ = net.ask(self.actor, false, |net| net.queue.nak(net.now, delivery.seq, delay));
            return Slot::Free;
        }
        match step.step(net, self.actor) {
            Progress::Going => Slot::GivingBack { delivery, held, step, give_up, at },
            Progress::End(give_back::End::Changed) => {
                self.giving_back(net, run, delivery, held, TROUBLE_DELAY)
            }
            Progress::End(end) => {
                net.tell(|| format!("w{} has given r{run} back: {end:?}", self.index));
                Slot::Free
            }
            Progress::Trouble(_) if net.now >= give_up => {
                let delay = u64::try_from(TROUBLE_DELAY.as_millis()).unwrap_or(0);
                let _ = net.ask(self.actor, false, |net| net.queue.nak(net.now, delivery.seq, delay));
                net.checks.disturbed[run] += 1;
                Slot::Free
            }
            Progress::Trouble(_) => {
                let _ = net.ask(self.actor, false, |net| net.queue.in_progress(net.now, delivery.seq));
                let Slot::GivingBack { step, .. } =
                    self.giving_back(net, run, delivery, held.clone(), TROUBLE_DELAY)
                else {
                    return Slot::Free;
                };
                Slot::GivingBack { delivery, held, step, give_up, at: net.now + 1_000 }
            }
        }
    }

    /// Takes care of messages that are delivered no more, as far as advisories tell of them.
    fn sweep(&mut self, net: &mut Net) {
        if let Some((seq, mut step)) = self.sweep.take() {
            match step.step(net, self.actor) {
                Progress::Going => self.sweep = Some((seq, step)),
                Progress::End(end) => {
                    net.tell(|| format!("w{} swept the message {seq}: {end:?}", self.index));
                    if end == requeue::End::Changed {
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
        let step = Requeue::new(job(message), seq, Reason::Exhausted, Self::limits(), net.seconds());
        self.sweep = Some((seq, Going::new(step, message.0, None)));
    }
}
