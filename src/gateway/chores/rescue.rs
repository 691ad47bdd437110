//! Brings runs back whose worker is gone, long before the queue's own `ack_wait` would.
//!
//! When both a run and its worker are silent for several heartbeats, the job is given back in the worker's
//! place, by the ACK subject in the snapshot; should the worker live after all, its next write tells it that
//! it has lost the run. A cancel that no worker carries out is completed here. Silence is measured with this
//! gateway's clock, from what the watch has delivered.

use std::time::{Duration, Instant};

use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Bus, Kv, WorkQueue};
use crate::delivery::drive::{self, NAK_WITHIN};
use crate::delivery::rescue::{self, Facts, Remedy};
use crate::delivery::{Change, Stored};
use crate::gateway::view::runs::{Indexed, RunIndex};
use crate::gateway::view::workers::WorkerMirror;
use crate::model::clock;
use crate::model::limits::LEAST_RUN_SILENCE;
use crate::model::run::{RunSnapshot, RunStatus};
use crate::model::worker::WorkerState;

pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// Record intervals that a live worker may miss.
const MISSED_RECORDS: f64 = 1.5;

/// Which workers are gone, as far as their records tell.
#[derive(Clone)]
pub(super) struct Absence {
    workers: WorkerMirror,
    /// Silence of a record after which its worker is gone.
    silence: Duration,
}

impl Absence {
    pub(super) fn new(workers: WorkerMirror, heartbeat: Duration) -> Absence {
        Absence { workers, silence: heartbeat.mul_f64(MISSED_RECORDS).max(LEAST_RUN_SILENCE) }
    }

    /// What is known of a run at `now`; nothing could be heard of it before `since`.
    pub(super) fn facts<'a>(&self, run: &'a Indexed, since: Instant, now: Instant) -> Facts<'a> {
        let run_at = run.seen_at.max(since);
        Facts {
            run: &run.summary,
            silence: now.saturating_duration_since(run_at),
            worker_is_gone: self.is_gone(run, since, now),
        }
    }

    fn is_gone(&self, run: &Indexed, since: Instant, now: Instant) -> bool {
        let worker = run.summary.worker_id.as_deref().and_then(|id| self.workers.get(id));
        let Some(seen) = worker else { return true };
        let is_another =
            run.summary.delivery.as_ref().is_some_and(|d| d.instance_id != seen.record.instance_id);
        is_another
            || seen.record.state == WorkerState::StoppedGraceful
            || now.saturating_duration_since(seen.at.max(since)) >= self.silence
    }
}

pub(crate) struct Rescue {
    runs: Kv,
    queue: WorkQueue,
    index: RunIndex,
    absence: Absence,
    cancel_grace: Duration,
    /// When NATS has refused a write last. What was silent until then may not have been able to write either.
    refused_at: Option<Instant>,
}

impl Rescue {
    pub(crate) fn new(bus: &Bus, index: RunIndex, absence: Absence, cancel_grace: Duration) -> Self {
        let (runs, queue) = (bus.runs(), bus.queue().with_timeout(TIMEOUT));
        Rescue { runs, queue, index, absence, cancel_grace, refused_at: None }
    }

    /// Ends when NATS does not answer: it would not for the next run either.
    pub(super) fn look(&mut self, turn: &Turn<'_>) -> Next {
        let now = Instant::now();
        let (unfinished, live_since) = self.index.unfinished();
        // What was silent while we could not listen may have been loud.
        let Some(live_since) = live_since else { return Next::InTime };
        let since = self.refused_at.map_or(live_since, |refused_at| refused_at.max(live_since));
        for run in unfinished {
            let remedy = rescue::remedy(self.absence.facts(&run, since, now), self.cancel_grace);
            if remedy != Remedy::Nothing && turn.is_over() {
                return Next::Again;
            }
            let done = match remedy {
                Remedy::Nothing => continue,
                Remedy::GiveBack(ack) => self.give_back(&run, &ack),
                Remedy::CompleteCancel => self.complete_cancel(&run),
            };
            if done.is_err() {
                self.refused_at = Some(Instant::now());
            }
            if !is_answered(&run, &done) {
                break;
            }
        }
        Next::InTime
    }

    fn give_back(&self, run: &Indexed, ack: &str) -> bus::Result<()> {
        log::warn!(run_id = run.summary.run_id.as_str(),
            worker_id = run.summary.worker_id.as_deref().unwrap_or_default();
            "the worker of a run is gone; giving its job back");
        let began = clock::since_boot();
        // Not so when another gateway was quicker, or the worker has written after all.
        let is_signed = self.change(run, |snapshot| rescue::sign(snapshot, clock::now()))?;
        if is_signed && clock::elapsed(began) < NAK_WITHIN {
            self.queue.give_back(ack)?;
        }
        Ok(())
    }

    fn complete_cancel(&self, run: &Indexed) -> bus::Result<()> {
        log::info!(run_id = run.summary.run_id.as_str(); "cancelling a run that no worker has");
        let ended = self.change(run, |snapshot| {
            let is_due = snapshot.status == RunStatus::Cancelling;
            if is_due {
                snapshot.finish(RunStatus::Cancelled, None, clock::now());
            }
            is_due
        });
        ended.map(drop)
    }

    /// Changes a snapshot if it still is the version that was decided on; `false`: nothing was written.
    fn change(&self, run: &Indexed, mut change: impl FnMut(&mut RunSnapshot) -> bool) -> bus::Result<bool> {
        let deadline = Instant::now() + TIMEOUT;
        let written = drive::edit_run(&self.runs, &run.summary.run_id, deadline, |newest| {
            let Stored::Run(snapshot) = newest.stored else { return Change::Leave };
            let mut snapshot = Box::new(snapshot.clone());
            match newest.revision == run.revision && change(&mut snapshot) {
                true => Change::Put(snapshot),
                false => Change::Leave,
            }
        })?;
        let is_written = written.is_some();
        written.into_iter().for_each(|entry| self.index.wrote(entry));
        Ok(is_written)
    }
}

/// Whether NATS has answered; the next look tries again what has failed.
pub(super) fn is_answered(run: &Indexed, done: &bus::Result<()>) -> bool {
    let Err(e) = done else { return true };
    log::warn!(run_id = run.summary.run_id.as_str(), error = e.to_string();
        "cannot rescue a run yet");
    !e.may_pass()
}
