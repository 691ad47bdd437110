//! The puller: asks for as many jobs as there are free slots, over all tags, without polling.
//!
//! With one tag it keeps one pull open for exactly the free slots. With several it first asks each
//! tag in turn without waiting, so that a backlog is shared fairly; when all are empty it leaves a
//! pull for one job open at each. Two tags may then deliver to one free slot, and a pull outlives the
//! moment at which its worker has become busy: the job that finds no slot is given back. Each time
//! costs it a delivery, so a job that meets only busy workers soon waits until such pulls have ended.
//!
//! What arrives after the worker has stood still for about `ack_wait` may have been delivered to another one
//! by now; a claim or a NAK would take it from there. It is left alone, and comes again if it has to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use super::registry::Registry;
use super::slot::{self, Stops};
use super::{Context, Error};
use crate::bus::{self, Delivered, MANY_WAIT, PullEvent, PullInbox};
use crate::delivery::give_back::no_slot_delay;
use crate::model::clock;
use crate::systemd::{self, Loop, Pulse};
use crate::thread::{self, JoinOnDrop, StopSignal, StopSource};

/// Between two tries to reach the queue when it cannot be asked.
const RETRY: Duration = Duration::from_millis(250);

/// Longest time between two turns of the puller.
const TURN: Duration = Duration::from_secs(1);
/// After [`Context::stale_after`] without one, until all that was on its way has arrived. Nothing is asked
/// for meanwhile.
const STALE_ARRIVALS: Duration = Duration::from_secs(1);
/// For the server to end the pulls of a worker that stops.
const END_PULLS_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until `stop` closes, the one job of `run_once` is done, or the worker's record is taken
/// over; then drains. Returns who has taken over, if anybody.
pub(super) fn run(
    context: &Arc<Context>,
    registry: &Registry,
    stop: &StopSignal,
) -> Result<Option<String>, Error> {
    let slots = Slots::start(context, registry)?;
    let mut puller = Puller {
        context,
        inbox: context.queue.pull_inbox(&context.settings.tags),
        slots,
        ensured: false,
        turn: 0,
        empty_in_a_row: 0,
        taken: 0,
        careful: false,
        refused: None,
        pulse: Pulse::new(Loop::Puller),
        turns: Turns { last: clock::since_boot(), stale_until: Duration::ZERO },
    };
    let taken_over = puller.serve(registry, stop);
    systemd::stopping();
    let refused = puller.refused.take();
    let asked_in_vain = context.settings.run_once.is_some() && !puller.ensured && puller.taken == 0;
    puller.drain();
    if let Some(e) = refused {
        return Err(Error::Refused(e));
    }
    // A script must not take a job that was given back for one that was executed.
    if context.settings.run_once.is_some()
        && taken_over.is_none()
        && !thread::is_stopped(stop)
        && let Some(unavailable) = context.health.unavailable()
    {
        return Err(Error::Unavailable { reason: unavailable.reason });
    }
    // A script must not take a queue that is away for one that is empty.
    if asked_in_vain && taken_over.is_none() && !thread::is_stopped(stop) {
        return Err(Error::NoQueue);
    }
    Ok(taken_over)
}

/// Field order is the shutdown order: `jobs` closes, idle slots end; `soft_stop` closes, those that only wait
/// end; `hard_stop` closes, the others give back what they execute; then all are joined.
struct Slots {
    /// Written by the puller, read by whichever slot is free.
    jobs: Sender<Delivered>,
    /// Written by slots after each job.
    done: Receiver<()>,
    busy: usize,
    count: usize,
    soft_stop: StopSource,
    hard_stop: StopSource,
    threads: Vec<JoinOnDrop>,
}

impl Slots {
    /// As many as the system gives threads for, up to the worker's size.
    fn start(context: &Arc<Context>, registry: &Registry) -> Result<Slots, Error> {
        let wanted = context.slots.load(Ordering::Relaxed);
        // One place per slot: `give` never blocks, because `busy` never exceeds `count`.
        let (jobs, taken) = bounded(wanted);
        let (done_sender, done) = bounded(wanted);
        let (soft_stop, soft) = thread::stop_channel();
        let (hard_stop, hard) = thread::stop_channel();
        let stops = Stops { soft, hard };
        let mut slots = Slots { jobs, done, busy: 0, count: 0, soft_stop, hard_stop, threads: Vec::new() };
        for index in 0..wanted {
            let started = slot::start(
                index,
                context.clone(),
                taken.clone(),
                done_sender.clone(),
                registry.notes.clone(),
                stops.clone(),
            );
            match started {
                Ok(thread) => slots.threads.push(thread),
                // Those that were started are closed by the drop of `slots` before they are joined.
                Err(e) if index == 0 => return Err(Error::Thread(e)),
                Err(e) => {
                    log::warn!(wanted = wanted, slots = index, error = e.to_string();
                        "no more threads; this worker executes fewer runs at once than it was told");
                    break;
                }
            }
        }
        slots.count = slots.threads.len();
        context.slots.store(slots.count, Ordering::Relaxed);
        Ok(slots)
    }

    fn free(&self) -> usize {
        self.count - self.busy
    }
}

struct Puller<'a> {
    context: &'a Arc<Context>,
    inbox: PullInbox,
    slots: Slots,
    /// Whether the streams and consumers are known to exist.
    ensured: bool,
    /// The tag that is asked next without waiting.
    turn: usize,
    empty_in_a_row: usize,
    /// Jobs taken so far, for `run_once`.
    taken: usize,
    /// The connection was lost and has brought nothing since. Should it be a message that breaks it,
    /// no other job may share its fate: one is asked for at a time.
    careful: bool,
    /// Why no job can ever be taken.
    refused: Option<bus::Error>,
    /// What systemd hears of this loop.
    pulse: Pulse,
    turns: Turns,
}

/// When the puller has had its turns, by a clock that counts suspend.
struct Turns {
    last: Duration,
    stale_until: Duration,
}

impl Turns {
    fn begin(&mut self, stale_after: Duration) {
        let now = clock::since_boot();
        if now.saturating_sub(self.last) >= stale_after {
            self.stale_until = now + STALE_ARRIVALS;
        }
        self.last = now;
    }

    /// Whether what arrives may have been delivered long ago.
    fn is_stale(&mut self, stale_after: Duration) -> bool {
        self.begin(stale_after);
        self.last < self.stale_until
    }
}

impl Puller<'_> {
    fn serve(&mut self, registry: &Registry, stop: &StopSignal) -> Option<String> {
        let give_up = match self.context.settings.run_once {
            Some(patience) => after(patience),
            None => never(),
        };
        loop {
            self.turns.begin(self.context.stale_after());
            let retry = self.ask();
            if self.refused.is_some() {
                return None;
            }
            if self.pulse.beat() {
                systemd::status(Loop::Puller, self.status());
            }
            let silence = self.inbox.next_deadline().unwrap_or_else(|| Instant::now() + RETRY);
            // Twice at least before a pause would be taken for a standstill.
            let turn = Instant::now() + TURN.min(self.context.stale_after() / 2);
            let next_look = if retry { Instant::now() + RETRY } else { silence.min(turn) };
            select! {
                recv(stop) -> _ => return None,
                recv(registry.taken_over) -> by => return by.ok(),
                // Jobs are asked for again, at first one: a fault that is still there costs no more.
                recv(self.context.health.recovered()) -> _ => self.careful = true,
                recv(self.slots.done) -> _ => {
                    self.slots.busy -= 1;
                    if self.context.settings.run_once.is_some() {
                        return None;
                    }
                }
                recv(give_up) -> _ => {
                    if self.taken == 0 {
                        return None;
                    }
                }
                recv(self.inbox.arrivals()) -> arrival => {
                    let Ok(arrival) = arrival else { continue };
                    let event = self.inbox.take(arrival);
                    self.take(event);
                }
                recv(self.pulse.next()) -> _ => {}
                recv(crossbeam_channel::at(next_look)) -> _ => {
                    self.inbox.forget_silent(Instant::now());
                }
            }
        }
    }

    /// Asks for what the free slots can take; says whether it could not and has to try again.
    fn ask(&mut self) -> bool {
        let free = self.slots.free() as u64;
        if self.turns.is_stale(self.context.stale_after()) {
            return true;
        }
        if free == 0
            || !self.context.health.is_well()
            || (self.context.settings.run_once.is_some() && self.taken > 0)
        {
            return false;
        }
        if !self.ensured {
            if let Err(e) = self.ensure() {
                if e.is_final() {
                    self.refused = Some(e);
                    return false;
                }
                // While NATS is away it is the connection's business to say so.
                if !matches!(e, bus::Error::Disconnected) {
                    log::warn!(error = e.to_string(); "cannot prepare the work queue; trying again");
                }
                return true;
            }
            self.ensured = true;
            systemd::ready(Loop::Puller);
        }
        let tags = self.context.settings.tags.len();
        if tags == 1 {
            let room = if self.careful { 1 } else { free };
            let more = room.saturating_sub(self.inbox.outstanding(0));
            return more > 0 && self.inbox.ask(0, more, true).is_err();
        }
        while self.inbox.is_held(self.turn) && self.empty_in_a_row < tags {
            self.turn = (self.turn + 1) % tags;
            self.empty_in_a_row += 1;
        }
        let waiting = (0..tags).any(|tag| self.inbox.is_waiting(tag));
        if waiting || self.empty_in_a_row >= tags {
            return (0..tags)
                .any(|tag| self.inbox.outstanding(tag) == 0 && self.inbox.ask(tag, 1, true).is_err());
        }
        let asked = (0..tags).any(|tag| self.inbox.outstanding(tag) > 0);
        let room = if self.careful { 1 } else { free };
        !asked && self.inbox.ask(self.turn, room, false).is_err()
    }

    /// What it is at, in words for an operator.
    fn status(&self) -> String {
        if let Some(unavailable) = self.context.health.unavailable() {
            return format!("worker: cannot execute runs: {}", unavailable.reason);
        }
        match self.ensured {
            true => format!("worker: executes {} of {} runs", self.slots.busy, self.slots.count),
            false => "worker: waits for NATS".to_owned(),
        }
    }

    fn ensure(&self) -> bus::Result<()> {
        self.context.queue.ensure()?;
        self.context.queue.check_runs()?;
        for tag in &self.context.settings.tags {
            let settings = self.context.queue.ensure_consumer(tag)?;
            self.context.respect_ack_wait(settings.ack_wait);
            self.context.max_deliver.write().insert(tag.clone(), settings.max_deliver);
        }
        Ok(())
    }

    fn take(&mut self, event: PullEvent) {
        match event {
            PullEvent::Delivered { source, message } => {
                self.careful = false;
                self.empty_in_a_row = 0;
                self.turn = (source + 1) % self.context.settings.tags.len();
                self.hand_over(message);
            }
            PullEvent::Ended { source } => {
                self.empty_in_a_row += 1;
                self.turn = (source + 1) % self.context.settings.tags.len();
            }
            PullEvent::Missing { .. } => self.ensured = false,
            PullEvent::Refused(e) => self.refused = Some(e),
            PullEvent::Reconnected => {
                self.ensured = false;
                self.careful = true;
                self.empty_in_a_row = 0;
            }
            PullEvent::Quiet => {}
        }
    }

    fn hand_over(&mut self, message: Delivered) {
        let is_stale = self.turns.is_stale(self.context.stale_after());
        let once = self.context.settings.run_once.is_some() && self.taken > 0;
        if is_stale || self.slots.free() == 0 || once || !self.context.health.is_well() {
            return give_back(self.context, &mut self.turns, &message);
        }
        match self.slots.jobs.try_send(message) {
            Ok(()) => {
                self.slots.busy += 1;
                self.taken += 1;
            }
            Err(refused) => give_back(self.context, &mut self.turns, &refused.into_inner()),
        }
    }

    /// Finishes what runs, for as long as the drain time lasts, and gives back what arrives.
    fn drain(self) {
        let Puller { context, mut inbox, slots, mut pulse, mut turns, .. } = self;
        let Slots { jobs, done, mut busy, soft_stop, hard_stop, threads, .. } = slots;
        // Before anything is given back: it would come into the pulls that are still open, and what comes
        // when the process ends is nobody's until ack_wait.
        if (0..context.settings.tags.len()).any(|tag| inbox.outstanding(tag) > 0) {
            inbox.end_pulls(END_PULLS_TIMEOUT);
        }
        drop(jobs);
        drop(soft_stop);
        let timeout = after(context.settings.drain_timeout);
        if busy > 0 {
            log::info!(runs = busy; "stopping: waiting for what runs");
        }
        while busy > 0 {
            pulse.beat();
            turns.begin(context.stale_after());
            select! {
                recv(done) -> ended => {
                    if ended.is_err() {
                        break;
                    }
                    busy -= 1;
                }
                recv(inbox.arrivals()) -> arrival => {
                    if let Ok(arrival) = arrival
                        && let PullEvent::Delivered { message, .. } = inbox.take(arrival)
                    {
                        give_back(context, &mut turns, &message);
                    }
                }
                recv(pulse.next()) -> _ => {}
                recv(after(TURN.min(context.stale_after() / 2))) -> _ => {}
                recv(timeout) -> _ => break,
            }
        }
        drop(hard_stop);
        drop(threads);
        while let Ok(arrival) = inbox.arrivals().try_recv() {
            if let PullEvent::Delivered { message, .. } = inbox.take(arrival) {
                give_back(context, &mut turns, &message);
            }
        }
    }
}

/// A run that is executed here keeps its job, and what may have gone to another worker is left alone.
fn give_back(context: &Context, turns: &mut Turns, message: &Delivered) {
    if turns.is_stale(context.stale_after()) {
        return log::info!(subject = message.subject.as_str();
            "this worker has stood still; a job that has come meanwhile is left to others");
    }
    if context.in_flight.adopt(message) {
        return;
    }
    let delay = no_slot_delay(message.num_delivered, MANY_WAIT);
    log::debug!(stream_seq = message.stream_seq, num_delivered = message.num_delivered;
        "there is no slot for a job that has come; giving it back");
    if let Err(e) = message.nak(delay) {
        log::warn!(error = e.to_string(); "cannot give a job back; it comes again after ack_wait");
    }
}
