//! Takes care of jobs whose deliveries are exhausted: a run whose workers have died so often has FAILED, the
//! job of any other is published anew.
//!
//! The server tells of such a job once, through an advisory that a stream keeps; the workers share
//! one consumer of it, so each advisory is handled by one of them and comes again if that one dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, at, select};

use super::Context;
use super::job::settle;
use crate::bus::{self, Delivered, ExhaustedJob, PullEvent, PullInbox};
use crate::delivery::foreign_silence;
use crate::delivery::requeue::{End, Reason, Requeue};
use crate::delivery::undelivered::Undelivered;
use crate::model::clock;
use crate::model::job::Job;
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
    let mut watched = None;
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
                    PullEvent::Delivered { message, .. } => handle(context, &message, &mut watched),
                    PullEvent::Missing { .. } | PullEvent::Refused(_) => return false,
                    // The inbox stays: what a pull that is still open brings must find it.
                    PullEvent::Reconnected | PullEvent::Ended { .. } | PullEvent::Quiet => {}
                }
            }
            recv(at(silence)) -> _ => inbox.forget_silent(Instant::now()),
        }
    }
}

/// A run that a worker of the Python side has had last: its message, the revision of its snapshot, and since
/// when that is the newest one. One at a time is enough, for the advisory of each comes again and again.
type Watched = Option<(u64, u64, Instant)>;

fn handle(context: &Context, advisory: &Delivered, watched: &mut Watched) {
    let Ok(told) = serde_json::from_slice::<ExhaustedJob>(&advisory.payload) else {
        log::warn!("an advisory cannot be read");
        let _ = advisory.term();
        return;
    };
    let settled = match sweep(context, &told, watched) {
        Ok(()) => advisory.ack(),
        // The run is changed by somebody, or may be executed.
        Err(bus::Error::Conflict(_)) => advisory.nak(TROUBLE_DELAY),
        Err(e) => {
            log::warn!(error = e.to_string(); "cannot end a run whose deliveries are exhausted yet");
            advisory.nak(TROUBLE_DELAY)
        }
    };
    if let Err(e) = settled {
        log::debug!(error = e.to_string(); "cannot settle an advisory; it comes again");
    }
}

fn sweep(context: &Context, told: &ExhaustedJob, watched: &mut Watched) -> bus::Result<()> {
    let seq = told.stream_seq;
    let Some(message) = context.queue.stored_job(seq)? else { return Ok(()) };
    let undelivered = Undelivered { runs: &context.runs, queue: &context.queue, seq, message: &message };
    let publish = |tag: &str, entry| {
        settle::publish(context, tag, entry, (message.subject.as_str(), told.deliveries));
    };
    let job = match Job::parse(&message.payload) {
        Ok(job) => job,
        Err(e) => return undelivered.discard(&e, publish),
    };
    let patience = foreign_silence(context.settings.run.heartbeat_interval);
    let silent = watched.filter(|(of, _, since)| *of == seq && since.elapsed() >= patience);
    let step = Requeue::new(&job, seq, Reason::Exhausted, context.limits(&message.subject), clock::now())
        .silent(silent.map(|(_, revision, _)| revision));
    match undelivered.requeue(&job, step, drop, publish)? {
        End::Requeued(_) => log::info!(run_id = job.run_id.as_str(), deliveries = told.deliveries;
            "NATS delivers the job no more; it was published anew"),
        End::Ended(..) | End::Dropped => {}
        End::Changed => return Err(bus::Error::Conflict(job.run_id)),
        End::Foreign(revision) => {
            if watched.is_none_or(|(of, at, _)| (of, at) != (seq, revision)) {
                *watched = Some((seq, revision, Instant::now()));
            }
            return Err(bus::Error::Conflict(job.run_id));
        }
    }
    Ok(())
}
