//! Brings runs back whose worker is gone, long before the queue's own `ack_wait` would.
//!
//! When both a run and its worker are silent for several heartbeats, the job is given back in the worker's
//! place, by the ACK subject in the snapshot; should the worker live after all, its next write tells it that
//! it has lost the run. A cancel that no worker carries out is completed here. A run that waits although the
//! queue of its tag is empty has lost its job (its gateway died during the submit, or an operator purged the
//! queue) and is FAILED. Silence is measured with this gateway's clock, from what the watch has delivered.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Bus, Edit, Entry, Kv, WorkQueue};
use crate::gateway::view::runs::{Indexed, RunIndex};
use crate::gateway::view::workers::{Seen, WorkerMirror};
use crate::model::error::Code;
use crate::model::run::{Delivery, RunSnapshot, RunStatus};
use crate::model::worker::WorkerState;
use crate::model::{clock, json};

pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// Run heartbeats that a live worker may miss.
const MISSED_HEARTBEATS: f64 = 5.0;
/// However short the heartbeat, a worker may be busy for this long.
const LEAST_SILENCE: Duration = Duration::from_secs(5);
/// Record intervals that a live worker may miss.
const MISSED_RECORDS: f64 = 1.5;
/// A job that was given back and is not taken up is given back again after this.
const AGAIN: Duration = Duration::from_secs(15);
/// How long a cancelled run that nobody has started is left to a worker.
const UNSTARTED_CANCEL: Duration = Duration::from_secs(2);
/// How long a run may be PENDING before its job is looked for; far longer than a submit takes.
const JOB_MISSING_AFTER: Duration = Duration::from_secs(60);
/// Between two looks into the queue of a tag.
const JOB_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How much longer than its grace period a cancel may take before it is completed here.
const CANCEL_SLACK: Duration = Duration::from_secs(15);

pub(crate) struct Rescue {
    runs: Kv,
    queue: WorkQueue,
    index: RunIndex,
    workers: WorkerMirror,
    record_silence: Duration,
    cancel_grace: Duration,
    /// When each delivery was given back, by its ACK subject.
    given_back: HashMap<String, Instant>,
    /// When the queue of each tag was looked into last.
    looked_into: HashMap<String, Instant>,
    /// Runs whose job was not there, and that are still to be ended.
    lost: VecDeque<Indexed>,
}

#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    Nothing,
    GiveBack(String),
    CompleteCancel,
}

impl Rescue {
    pub(crate) fn new(
        bus: &Bus,
        index: RunIndex,
        workers: WorkerMirror,
        worker_heartbeat: Duration,
        cancel_grace: Duration,
    ) -> Self {
        Rescue {
            runs: bus.runs(),
            queue: bus.queue().with_timeout(TIMEOUT),
            index,
            workers,
            record_silence: worker_heartbeat.mul_f64(MISSED_RECORDS).max(LEAST_SILENCE),
            cancel_grace,
            given_back: HashMap::new(),
            looked_into: HashMap::new(),
            lost: VecDeque::new(),
        }
    }

    /// Ends when NATS does not answer: it would not for the next run either.
    pub(super) fn look(&mut self, turn: &Turn<'_>) -> Next {
        let now = Instant::now();
        self.given_back.retain(|_, at| now - *at < AGAIN);
        let (unfinished, live_since) = self.index.unfinished();
        // What was silent while we could not listen may have been loud.
        let Some(live_since) = live_since else { return Next::InTime };
        self.find_lost(&unfinished, live_since, now, turn);
        while let Some(run) = self.lost.front().cloned() {
            if turn.is_over() {
                return Next::Again;
            }
            if !is_answered(&run, &self.fail_lost(&run)) {
                return Next::InTime;
            }
            self.lost.pop_front();
        }
        for run in unfinished {
            let silence = now.saturating_duration_since(run.seen_at.max(live_since));
            let remedy = self.remedy(&run, silence, live_since, now);
            if remedy != Remedy::Nothing && turn.is_over() {
                return Next::Again;
            }
            let done = match remedy {
                Remedy::Nothing => continue,
                Remedy::GiveBack(ack) => self.give_back(&run, ack, now),
                Remedy::CompleteCancel => self.complete_cancel(&run),
            };
            if !is_answered(&run, &done) {
                break;
            }
        }
        Next::InTime
    }

    /// Looks for runs that wait for a job that is not there any more.
    fn find_lost(&mut self, unfinished: &[Indexed], live_since: Instant, now: Instant, turn: &Turn<'_>) {
        let overdue = unfinished.iter().filter(|run| {
            run.summary.status == RunStatus::Pending
                && now.saturating_duration_since(run.seen_at.max(live_since)) >= JOB_MISSING_AFTER
        });
        let mut by_tag: HashMap<&str, Vec<&Indexed>> = HashMap::new();
        for run in overdue {
            by_tag.entry(&run.summary.tag).or_default().push(run);
        }
        self.looked_into.retain(|_, at| now - *at < JOB_LOOK_INTERVAL);
        for (tag, runs) in by_tag {
            if self.looked_into.contains_key(tag) || turn.is_over() {
                continue;
            }
            self.looked_into.insert(tag.to_owned(), now);
            // The queue is looked into after the runs were seen: a job that is gone then was gone
            // before, or its run is not PENDING any more and the write finds out.
            match self.queue.jobs_of_tag(tag) {
                Ok(0) => self.lost.extend(runs.into_iter().cloned()),
                Ok(_) => {}
                Err(e) => log::debug!(tag = tag, error = e.to_string(); "cannot look for jobs"),
            }
        }
    }

    fn fail_lost(&self, run: &Indexed) -> bus::Result<()> {
        let code = Code::OrphanRun;
        log::warn!(err_id = code.err_id(), msg_id = code.msg_id(),
            run_id = run.summary.run_id.as_str(), tag = run.summary.tag.as_str();
            "a run waits for a job that is not in the queue");
        let error = "job_lost: the run's job is not in the queue; submit it again".to_owned();
        self.end(run, RunStatus::Pending, RunStatus::Failed, Some(error))
    }

    fn remedy(&self, run: &Indexed, silence: Duration, since: Instant, now: Instant) -> Remedy {
        let cancelling = run.summary.status == RunStatus::Cancelling;
        // A Python worker drops its id after its first write, so that alone tells nothing.
        if cancelling && run.summary.worker_id.is_none() && run.summary.start_time.is_none() {
            let overdue = silence >= UNSTARTED_CANCEL;
            return if overdue { Remedy::CompleteCancel } else { Remedy::Nothing };
        }
        // A Python worker leaves it so when no task was left to be cancelled, and its heartbeats may
        // go on.
        if cancelling && run.summary.end_time.is_some() {
            return Remedy::CompleteCancel;
        }
        if cancelling && silence >= self.cancel_grace + CANCEL_SLACK {
            return Remedy::CompleteCancel;
        }
        let Some(delivery) = &run.summary.delivery else { return Remedy::Nothing };
        let heartbeats = Duration::try_from_secs_f64(delivery.heartbeat_sec * MISSED_HEARTBEATS);
        let patience = heartbeats.unwrap_or(Duration::MAX).max(LEAST_SILENCE);
        let worker = run.summary.worker_id.as_deref().and_then(|id| self.workers.get(id));
        if silence < patience || !self.is_gone(worker.as_ref(), delivery, since, now) {
            Remedy::Nothing
        } else if cancelling {
            // Nobody executes it any more, and nobody has to begin.
            Remedy::CompleteCancel
        } else if self.given_back.contains_key(&delivery.ack) {
            Remedy::Nothing
        } else {
            Remedy::GiveBack(delivery.ack.clone())
        }
    }

    fn is_gone(&self, worker: Option<&Seen>, delivery: &Delivery, since: Instant, now: Instant) -> bool {
        let Some(seen) = worker else { return true };
        seen.record.instance_id != delivery.instance_id
            || seen.record.state == WorkerState::StoppedGraceful
            || now.saturating_duration_since(seen.at.max(since)) >= self.record_silence
    }

    fn give_back(&mut self, run: &Indexed, ack: String, now: Instant) -> bus::Result<()> {
        log::warn!(run_id = run.summary.run_id.as_str(),
            worker_id = run.summary.worker_id.as_deref().unwrap_or_default();
            "the worker of a run is gone; giving its job back");
        if self.sign(run)? {
            self.queue.give_back(&ack)?;
        }
        self.given_back.insert(ack, now);
        Ok(())
    }

    /// `false` when another gateway was quicker, or the worker has written after all. A second NAK would hit
    /// the delivery that the first one has brought about.
    fn sign(&self, run: &Indexed) -> bus::Result<bool> {
        let mut was_signed = false;
        let is_written = self.change(run, |snapshot| match &mut snapshot.delivery {
            // Signed long ago and silent since: the NAK was lost, and is sent again.
            Some(delivery) if delivery.rescued => {
                was_signed = true;
                false
            }
            Some(delivery) => {
                delivery.rescued = true;
                true
            }
            None => false,
        })?;
        Ok(was_signed || is_written)
    }

    fn complete_cancel(&self, run: &Indexed) -> bus::Result<()> {
        log::info!(run_id = run.summary.run_id.as_str(); "cancelling a run that no worker has");
        self.end(run, RunStatus::Cancelling, RunStatus::Cancelled, None)
    }

    /// Turns a run that still is in `from` to a terminal state, in the place of a worker.
    fn end(&self, run: &Indexed, from: RunStatus, to: RunStatus, error: Option<String>) -> bus::Result<()> {
        let ended = self.change(run, |snapshot| {
            let is_due = snapshot.status == from;
            if is_due {
                snapshot.finish(to, error.clone(), clock::now());
            }
            is_due
        });
        ended.map(drop)
    }

    /// Changes a snapshot if it still is the version that was decided on; `false`: nothing was written.
    fn change(&self, run: &Indexed, mut change: impl FnMut(&mut RunSnapshot) -> bool) -> bus::Result<bool> {
        let deadline = Instant::now() + TIMEOUT;
        let edited = self.runs.edit(&run.summary.run_id, deadline, |newest| {
            let decided_on = newest.filter(|entry| entry.revision == run.revision);
            let read = decided_on.and_then(Entry::live_value).map(json::from_wire::<RunSnapshot>);
            let Some(Ok(mut snapshot)) = read else { return Ok(Edit::Leave(())) };
            Ok::<_, bus::Error>(match change(&mut snapshot) {
                true => Edit::Put(json::to_wire(&snapshot)?, ()),
                false => Edit::Leave(()),
            })
        })?;
        let Some(entry) = edited.written else { return Ok(false) };
        self.index.wrote(entry);
        Ok(true)
    }
}

/// Whether NATS has answered; the next look tries again what has failed.
fn is_answered(run: &Indexed, done: &bus::Result<()>) -> bool {
    let Err(e) = done else { return true };
    log::warn!(run_id = run.summary.run_id.as_str(), error = e.to_string();
        "cannot rescue a run yet");
    !(e.is_transient() || e.is_outcome_unknown())
}
