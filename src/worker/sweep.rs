//! Ends runs whose deliveries are exhausted: every worker that took them has died.
//!
//! The server tells of such a job once, through an advisory that a stream keeps; the workers share
//! one consumer of it, so each advisory is handled by one of them and comes again if that one dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, at, select};

use super::Context;
use super::job::{claim, settle};
use crate::bus::{self, Delivered, Edit, ExhaustedJob, Operation, PullEvent, PullInbox};
use crate::model::dlq::DlqReason;
use crate::model::job::Job;
use crate::model::run::{RunSnapshot, RunStatus};
use crate::model::{clock, json};
use crate::thread::StopSignal;

/// Between two tries to reach the advisories.
const RETRY: Duration = Duration::from_secs(1);
/// An advisory that could not be handled comes again after this.
const TROUBLE_DELAY: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Arc<Context>, stop: &StopSignal) {
    let mut refused = false;
    loop {
        match context.queue.ensure().and_then(|()| context.queue.exhausted_inbox()) {
            Ok(inbox) => {
                if serve(context, inbox, stop) {
                    return;
                }
            }
            Err(e) if e.is_final() && !refused => {
                refused = true;
                log::warn!(error = e.to_string(); "cannot read advisories; trying again");
            }
            Err(e) => log::debug!(error = e.to_string(); "cannot read advisories yet"),
        }
        select! {
            recv(stop) -> _ => return,
            recv(after(RETRY)) -> _ => {}
        }
    }
}

/// Reads advisories; returns whether the worker stops.
fn serve(context: &Context, mut inbox: PullInbox, stop: &StopSignal) -> bool {
    loop {
        if inbox.outstanding(0) == 0 {
            // Fails while there is no connection; asked again after the pause, or when there is one.
            let _ = inbox.ask(0, 1, true);
        }
        let silence = inbox.next_deadline().unwrap_or_else(|| Instant::now() + RETRY);
        select! {
            recv(stop) -> _ => return true,
            recv(inbox.arrivals()) -> arrival => {
                let Ok(arrival) = arrival else { return false };
                match inbox.take(arrival) {
                    PullEvent::Delivered { message, .. } => handle(context, &message),
                    PullEvent::Missing { .. } | PullEvent::Refused(_) => return false,
                    // The inbox stays: what a pull that is still open brings must find it.
                    PullEvent::Reconnected | PullEvent::Ended { .. } | PullEvent::Quiet => {}
                }
            }
            recv(at(silence)) -> _ => inbox.forget_silent(Instant::now()),
        }
    }
}

fn handle(context: &Context, advisory: &Delivered) {
    let Ok(told) = serde_json::from_slice::<ExhaustedJob>(&advisory.payload) else {
        log::warn!("an advisory cannot be read");
        let _ = advisory.term();
        return;
    };
    let settled = match sweep(context, &told) {
        Ok(()) => advisory.ack(),
        Err(e) => {
            log::warn!(error = e.to_string(); "cannot end a run whose deliveries are exhausted yet");
            advisory.nak(TROUBLE_DELAY)
        }
    };
    if let Err(e) = settled {
        log::debug!(error = e.to_string(); "cannot settle an advisory; it comes again");
    }
}

fn sweep(context: &Context, told: &ExhaustedJob) -> bus::Result<()> {
    let Some(stored) = context.queue.stored_job(told.stream_seq)? else { return Ok(()) };
    let message = (stored.subject.as_str(), told.deliveries);
    match Job::parse(&stored.payload) {
        Err(e) => settle::publish_invalid(context, message, &stored.payload, &e.to_string()),
        Ok(job) => {
            let error = format!(
                "max_deliver_exceeded: the job was delivered {} times and no worker finished it",
                told.deliveries
            );
            if fail(context, &job, &error)? {
                let reason = DlqReason::MaxDeliverExceeded;
                settle::publish_dlq(context, &job, message, reason, &error);
                log::warn!(run_id = job.run_id.as_str(), reason = error.as_str(); "run ended");
            }
        }
    }
    context.queue.remove_job(told.stream_seq)
}

/// Turns the run to FAILED unless it has ended; says whether it did.
fn fail(context: &Context, job: &Job, error: &str) -> bus::Result<bool> {
    let mut without_bulk = false;
    loop {
        let edited = context.runs.edit(&job.run_id, context.runs.deadline(), |newest| {
            let snapshot = newest.map(|entry| json::from_wire::<RunSnapshot>(&entry.value));
            let mut snapshot = match snapshot {
                Some(Ok(snapshot)) => snapshot,
                _ => claim::fresh(job, clock::now()),
            };
            let is_deleted = newest.is_some_and(|entry| entry.operation == Operation::Delete);
            if is_deleted || snapshot.status.is_terminal() {
                return Ok(Edit::Leave(false));
            }
            let status = match snapshot.status {
                RunStatus::Cancelling => RunStatus::Cancelled,
                _ => RunStatus::Failed,
            };
            snapshot.finish(status, Some(error.to_owned()), clock::now());
            if without_bulk {
                snapshot.drop_bulk();
            }
            Ok::<_, bus::Error>(Edit::Put(json::to_wire(&snapshot)?, true))
        });
        match edited {
            Err(bus::Error::TooLarge { .. }) if !without_bulk => without_bulk = true,
            other => return other.map(|edited| edited.result),
        }
    }
}
