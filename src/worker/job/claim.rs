//! Takes a run for the delivery of its job, through trouble of NATS if it has to be.

use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};

use super::give_back;
use super::in_flight::InFlightJob;
use super::{settle, tag_of};
use crate::bus::{self, Delivered};
use crate::delivery::claim::{Claim, Claimant, End};
use crate::delivery::drive::Driver;
use crate::delivery::foreign_silence;
use crate::model::clock;
use crate::model::dlq::DlqReason;
use crate::model::job::Job;
use crate::model::run::{Delivery, RunSnapshot, RunStatus};
use crate::thread::StopSignal;
use crate::worker::Context;
use crate::worker::slot::Stops;

/// How long a job is kept alive while its run cannot be claimed; then another worker shall try.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to claim: first and longest pause.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Delay of a job that is given back because of NATS trouble (`docs/contract.md#delivery-of-jobs`).
pub(super) const TROUBLE_DELAY: Duration = Duration::from_secs(2);
/// For NATS to confirm that it knows of a claim that takes long.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a claim that took long is made sure of. Should NATS be so slow each time, it counts.
const MAX_SLOW_CLAIMS: u32 = 3;
/// Before a claim is begun anew because the run has just changed.
const CHANGED_PAUSE: Duration = Duration::from_millis(50);

/// What came of it.
pub(super) enum Claimed {
    /// The snapshot, stored at this revision.
    Ours(Box<RunSnapshot>, u64),
    /// The job needs nothing more; with the status that the run was given here.
    Over(Option<RunStatus>),
}

/// Claims until it is decided, or the worker stops. `delivered` becomes the newest delivery of the job.
pub(super) fn claim(
    context: &Context,
    job: &Job,
    delivered: &mut Delivered,
    in_flight: &InFlightJob<'_>,
    stops: &Stops,
) -> Claimed {
    let run_id = job.run_id.as_str();
    let (mut pause, give_up) = (RETRY_PAUSES.0, Instant::now() + PATIENCE);
    let mut acks = vec![delivered.ack_subject().to_owned()];
    let (mut silent, mut silent_until) = (None, Instant::now());
    let mut may_be_stored = false;
    let foreign_silence = foreign_silence(context.settings.run.heartbeat_interval);
    let mut slow_claims = 0;
    loop {
        let began = clock::since_boot();
        while let Ok(again) = in_flight.redelivered.try_recv() {
            acks.push(again.ack_subject().to_owned());
            *delivered = again;
        }
        if delivered.silence() >= context.stale_after() {
            log::info!(run_id = run_id; "the job was not kept alive for long; it is left to others");
            let held = if may_be_stored { &*acks } else { &[] };
            give_back::give_back(context, job, delivered, held, Duration::ZERO, &stops.hard);
            return Claimed::Over(None);
        }
        // A claim may take long, and the job would come again meanwhile.
        delivered.refresh(context.fresh(), KEEP_ALIVE_TIMEOUT);
        let mut step = Claim::new(job, claimant(context, delivered), context.limits(&delivered.subject));
        step = step.silent(silent.filter(|_| Instant::now() >= silent_until));
        let driven = driver(context, job, delivered).run(&mut step, drop);
        may_be_stored |= step.may_be_stored();
        let end = match driven {
            Ok(end) => end,
            Err(e) if step.may_be_settled() && e.is_outcome_unknown() => {
                log::warn!(run_id = run_id, error = e.to_string();
                    "may not have acknowledged a job; then it comes again after ack_wait");
                return Claimed::Over(None);
            }
            Err(e) => {
                log::warn!(run_id = run_id, error = e.to_string(); "cannot claim the run yet");
                let is_trouble = e.may_pass() || e.is_store_full();
                let is_final = !is_trouble && !matches!(e, bus::Error::Conflict(_));
                context.health.note_refusal(&e);
                if is_final || Instant::now() >= give_up || is_stopped_within(pause, &stops.soft) {
                    let held = if may_be_stored { &*acks } else { &[] };
                    give_back::give_back(context, job, delivered, held, TROUBLE_DELAY, &stops.hard);
                    return Claimed::Over(None);
                }
                pause = (pause * 2).min(RETRY_PAUSES.1);
                continue;
            }
        };
        match end {
            // It may have stood still since the write, and another worker may have the run by now.
            End::Execute(..)
                if clock::elapsed(began) >= context.settings.run.execution_lease
                    && slow_claims < MAX_SLOW_CLAIMS =>
            {
                slow_claims += 1;
                may_be_stored = true;
                log::info!(run_id = run_id; "the claim took long; making sure of it");
            }
            End::Execute(snapshot, revision) => return Claimed::Ours(snapshot, revision),
            End::Ended(status, error) => {
                ended(context, job, delivered, status, error.as_deref());
                return Claimed::Over(Some(status));
            }
            End::Dropped => {
                log::info!(run_id = run_id; "the job is of no use any more; dropping it");
                return Claimed::Over(None);
            }
            End::Requeued => {
                log::info!(run_id = run_id, num_delivered = delivered.num_delivered;
                    "the job was delivered often; it was published anew");
                return Claimed::Over(None);
            }
            End::Superseded => {
                log::debug!(run_id = run_id, num_delivered = delivered.num_delivered;
                    "another delivery of the job is on its way");
                return Claimed::Over(None);
            }
            End::Foreign(revision) => {
                if silent != Some(revision) {
                    (silent, silent_until) = (Some(revision), Instant::now() + foreign_silence);
                }
                // As long as it lives the job is kept here: each delivery would be one less.
                let pause = context.progress_interval().min(foreign_silence);
                if is_stopped_within(pause, &stops.soft) {
                    give_back::give_back(context, job, delivered, &[], Duration::ZERO, &stops.hard);
                    return Claimed::Over(None);
                }
            }
            End::Changed => {
                let _ = is_stopped_within(CHANGED_PAUSE, &stops.hard);
            }
        }
    }
}

fn claimant<'a>(context: &'a Context, delivered: &Delivered) -> Claimant<'a> {
    Claimant {
        worker_id: &context.settings.worker_id,
        stream_seq: delivered.stream_seq,
        num_delivered: delivered.num_delivered,
        delivery: delivery(context, delivered),
        now: clock::now(),
    }
}

pub(super) fn delivery(context: &Context, delivered: &Delivered) -> Delivery {
    let heartbeat_sec = context.settings.run.heartbeat_interval.as_secs_f64();
    Delivery::new(delivered.ack_subject().to_owned(), context.instance_id.clone(), heartbeat_sec)
}

pub(super) fn driver<'a>(context: &'a Context, job: &'a Job, delivered: &'a Delivered) -> Driver<'a> {
    Driver {
        runs: &context.runs,
        queue: &context.queue,
        run_id: &job.run_id,
        message: (tag_of(&delivered.subject), &delivered.payload),
        delivered: Some(delivered),
    }
}

/// The claim has ended the run.
fn ended(context: &Context, job: &Job, delivered: &Delivered, status: RunStatus, error: Option<&str>) {
    match error {
        Some(error) => {
            let message = (delivered.subject.as_str(), delivered.num_delivered);
            settle::publish_dlq(context, job, message, DlqReason::MaxDeliverExceeded, error);
            log::warn!(run_id = job.run_id.as_str(), reason = error; "run ended");
        }
        None => log::info!(run_id = job.run_id.as_str(), status = status.as_str();
            "the run was cancelled before it started"),
    }
}

fn is_stopped_within(pause: Duration, stop: &StopSignal) -> bool {
    select! {
        recv(stop) -> _ => true,
        recv(after(pause)) -> _ => false,
    }
}
