//! What must hold in every history.

use std::collections::{HashMap, HashSet};

use pyoco_server::bus::Meta;
use pyoco_server::model::run::{RunSnapshot, RunStatus};

use super::jetstream::Millis;
use super::net::{RUNS, Writer};
use super::worker::LOST_NATS;

/// How many workers have to die during a run before it may fail of it.
pub const MAX_LOST: i64 = 3;

/// A worker that has not written for so long may have lost its run.
const SILENCE: Millis = 5_000;
/// How long two workers may execute a run where none may lose NATS and go on: one may have been frozen
/// between its claim and the start, or its native tasks with it, and finds out with its first heartbeats.
const MAX_OVERLAP: Millis = 2_500;
/// The same where a NAK may have hit the delivery of a worker that was not silent, or was kept from writing,
/// and that loses NATS or stands still then: it goes on for as long as it may without.
const MAX_TAKEN_OVERLAP: Millis = MAX_OVERLAP + LOST_NATS;

/// A delivery of a message: its sequence, and which one of its deliveries.
type Numbers = (u64, u64);

/// An execution of a run: the worker, and the slot of that.
pub type Place = (usize, usize);

#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// The first thing that went wrong.
    pub violation: Option<String>,
    /// Runs that were ended because their job was nowhere.
    pub lost: [bool; RUNS],
    /// Runs that clients have asked to cancel.
    pub cancels: [bool; RUNS],
    /// Deliveries that a death or a silence has taken from their worker.
    gone: HashSet<Numbers>,
    /// Those of them that were counted as an attempt.
    counted: HashSet<Numbers>,
    /// How often a NAK may have taken another delivery than it was for.
    excused: [u64; RUNS],
    /// Whether that was ever so.
    may_be_taken: [bool; RUNS],
    /// How often a worker of the Python side has left each run without its end.
    foreign_gone: [u64; RUNS],
    /// When each run was written last.
    written_at: [Millis; RUNS],
    /// Which worker process has written each attempt of each run.
    writers: HashMap<(usize, u64), String>,
    /// No run may be executed by two workers for longer than a moment.
    pub never_two: bool,
    /// A run may be taken from a worker only when that executes it no more.
    pub never_beside: bool,
    /// Since when each run is executed by two.
    overlap_from: [Option<Millis>; RUNS],
    /// Who executes each run at the moment, and since when.
    executing: [Vec<(Place, Millis)>; RUNS],
}

impl Checks {
    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// A snapshot, or a tombstone, is stored over another one.
    pub fn written(
        &mut self,
        now: Millis,
        run: usize,
        before: Option<&RunSnapshot>,
        after: Option<&RunSnapshot>,
        by: Writer<'_>,
    ) {
        if let Some(before) = before {
            self.follows(run, before, after, by);
            self.counts(now, run, before, after);
        }
        self.written_at[run] = now;
        if let Writer::Foreign = by {
            // It keeps no count of attempts.
            self.writers.retain(|(of, _), _| *of != run);
        }
        let Some(after) = after else { return };
        if let (Some(delivery), Some(attempt)) = (&after.delivery, after.attempt)
            && !delivery.released
        {
            let writer = self.writers.entry((run, attempt)).or_insert_with(|| delivery.instance_id.clone());
            if *writer != delivery.instance_id {
                let (first, second) = (writer.clone(), delivery.instance_id.clone());
                self.fail(|| format!("{first} and {second} have both written attempt {attempt} of r{run}"));
            }
        }
    }

    /// Whether this state may follow that one.
    fn follows(&mut self, run: usize, before: &RunSnapshot, after: Option<&RunSnapshot>, by: Writer<'_>) {
        let status = after.map(|after| after.status);
        if before.status.is_terminal() {
            self.fail(|| format!("r{run} was {} and was written again", before.status.as_str()));
        }
        // A cancel by a gateway of the Python side may have dropped who has the run.
        let is_open = before.delivery.is_none() && before.status == RunStatus::Cancelling;
        if let Writer::Owner(acks) = by
            && !is_open
        {
            let held = before.delivery.as_ref().filter(|held| !held.released);
            if held.is_none_or(|held| !acks.contains(&held.ack)) {
                self.fail(|| format!("a worker wrote r{run}, which it had lost"));
            }
        }
        let may_follow = match (before.status, status) {
            (RunStatus::Cancelling, Some(RunStatus::Cancelling | RunStatus::Cancelled)) => true,
            // The flow ended in spite of it.
            (RunStatus::Cancelling, Some(status)) => status.is_terminal() && !matches!(by, Writer::Step),
            (RunStatus::Cancelling, None) => false,
            _ => true,
        };
        if !may_follow {
            self.fail(|| format!("r{run} was being cancelled, and then it was {status:?}"));
        }
        let is_cancel = matches!(status, Some(RunStatus::Cancelling | RunStatus::Cancelled));
        if is_cancel && !self.cancels[run] {
            self.fail(|| format!("r{run} is {status:?}, and nobody asked for that"));
        }
    }

    /// Only an attempt that a death or a long silence has ended counts, and once.
    fn counts(&mut self, now: Millis, run: usize, before: &RunSnapshot, after: Option<&RunSnapshot>) {
        let is_silent = now >= self.written_at[run] + SILENCE;
        let held = before.delivery.as_ref().and_then(|delivery| numbers(&delivery.ack));
        if let Some(held) = held
            && is_silent
        {
            self.gone.insert(held);
        }
        let Some(after) = after else { return };
        let lost = |snapshot: &RunSnapshot| snapshot.lost_attempts.unwrap_or(0);
        let is_foreign = before.delivery.is_none() && before.job_seq.is_none();
        let error = after.error.as_deref().unwrap_or_default();
        if error.starts_with("max_deliver_exceeded") {
            // What a worker of the Python side has done with the deliveries of a message is not known.
            let is_right = if is_foreign {
                self.foreign_gone[run] > 0 || is_silent
            } else {
                lost(after) >= MAX_LOST as u64
            };
            if !is_right {
                self.fail(|| format!("r{run} has failed: {error}; it has lost {} attempts", lost(after)));
            }
        }
        if lost(after) > lost(before) {
            let is_right = match held {
                Some(held) if self.gone.contains(&held) => self.counted.insert(held),
                None => is_foreign && (is_silent || self.foreign_gone[run] > 0),
                Some(held) => {
                    let is_excused = self.excused[run] > 0;
                    self.excused[run] = self.excused[run].saturating_sub(1);
                    is_excused && self.counted.insert(held)
                }
            };
            if !is_right || lost(after) > lost(before) + 1 {
                self.fail(|| {
                    format!("r{run} counts {held:?} as an attempt that has lost its worker; it has not")
                });
            }
        }
    }

    /// This delivery is taken from its worker by a death or a silence, and so is what had come before it.
    pub fn goes(&mut self, seq: u64, num: u64) {
        self.gone.extend((1..=num).map(|num| (seq, num)));
    }

    /// The same, by the ACK subjects of an attempt.
    pub fn all_go<'a>(&mut self, acks: impl IntoIterator<Item = &'a String>) {
        self.gone.extend(acks.into_iter().filter_map(|ack| numbers(ack)));
    }

    pub fn foreign_goes(&mut self, run: usize) {
        self.foreign_gone[run] += 1;
    }

    /// A NAK for a delivery may have taken the next one.
    pub fn excuse(&mut self, run: usize) {
        self.excused[run] += 1;
        self.may_be_taken[run] = true;
    }

    /// Its job is given back. Who executes it all the same was silent for another reason than a standstill: a
    /// full store has refused its writes.
    pub fn taken(&mut self, run: usize) {
        self.may_be_taken[run] |= !self.executing[run].is_empty();
    }

    /// `is_owner`: the newest snapshot names it, so the run was taken from whoever else executes it.
    pub fn begins(&mut self, now: Millis, run: usize, place: Place, is_owner: bool) {
        // One that stood still and has just begun, or gone on, finds out in a moment.
        let other = self.executing[run].iter().find(|(_, since)| since + MAX_OVERLAP <= now).copied();
        if let Some((other, since)) = other
            && is_owner
            && self.never_beside
            && !self.may_be_taken[run]
        {
            self.fail(|| format!("{place:?} executes r{run} beside {other:?}, which began at {since}"));
        }
        self.executing[run].push((place, now));
    }

    /// It has ended, or stands still.
    pub fn ends(&mut self, run: usize, place: Place) {
        self.executing[run].retain(|(other, _)| *other != place);
    }

    /// It stood still, and goes on; `is_rescued`: its job was given back meanwhile, and may go to another
    /// worker at any time.
    pub fn goes_on(&mut self, now: Millis, run: usize, place: Place, is_rescued: bool) {
        self.may_be_taken[run] |= is_rescued;
        self.executing[run].push((place, now));
    }

    /// Looks for runs that two workers execute, at a moment of virtual time.
    pub fn look(&mut self, now: Millis) {
        if !self.never_two {
            return;
        }
        for run in 0..RUNS {
            if self.executing[run].len() < 2 {
                self.overlap_from[run] = None;
                continue;
            }
            let may_last = if self.may_be_taken[run] { MAX_TAKEN_OVERLAP } else { MAX_OVERLAP };
            if now > *self.overlap_from[run].get_or_insert(now) + may_last {
                let places = self.executing[run].clone();
                self.fail(|| format!("{places:?} have executed r{run} side by side for too long"));
            }
        }
    }
}

fn numbers(ack: &str) -> Option<Numbers> {
    Meta::parse(ack).map(|meta| (meta.stream_seq, meta.num_delivered))
}
