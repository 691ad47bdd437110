//! When a run is brought back whose worker is gone, long before the queue's own `ack_wait` would.

use std::time::Duration;

use crate::model::limits::{LEAST_RUN_SILENCE, MISSED_HEARTBEATS};
use crate::model::run::{RunSnapshot, RunStatus, RunSummary};

/// How long a cancelled run that nobody has started is left to a worker.
const UNSTARTED_CANCEL: Duration = Duration::from_secs(2);
/// How much longer than its grace period a cancel may take before it is completed without its worker.
const CANCEL_SLACK: Duration = Duration::from_secs(15);

/// What is known of a run that has not ended.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub run: &'a RunSummary,
    /// Since it was last written, or since it can be heard of.
    pub silence: Duration,
    /// Its worker has stopped, has been started anew, or writes its record no more.
    pub worker_is_gone: bool,
    /// Its job was given back a moment ago.
    pub given_back: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Remedy {
    Nothing,
    /// NAK the delivery of this ACK subject, in the place of the worker.
    GiveBack(String),
    CompleteCancel,
}

pub fn remedy(facts: Facts<'_>, cancel_grace: Duration) -> Remedy {
    let Facts { run, silence, .. } = facts;
    let is_cancelling = run.status == RunStatus::Cancelling;
    // A Python worker drops its id after its first write, so that alone tells nothing.
    if is_cancelling && run.worker_id.is_none() && run.start_time.is_none() {
        return if silence >= UNSTARTED_CANCEL { Remedy::CompleteCancel } else { Remedy::Nothing };
    }
    // A Python worker leaves it so when no task was left to be cancelled, and its heartbeats may go on.
    if is_cancelling && (run.end_time.is_some() || silence >= cancel_grace + CANCEL_SLACK) {
        return Remedy::CompleteCancel;
    }
    let Some(delivery) = &run.delivery else { return Remedy::Nothing };
    if delivery.released {
        // Nobody executes it. With a cancel nobody has to begin; without one it waits in the queue.
        let overdue = is_cancelling && silence >= UNSTARTED_CANCEL;
        return if overdue { Remedy::CompleteCancel } else { Remedy::Nothing };
    }
    if silence < patience(delivery.heartbeat_sec) || !facts.worker_is_gone {
        Remedy::Nothing
    } else if is_cancelling {
        Remedy::CompleteCancel
    } else if facts.given_back {
        Remedy::Nothing
    } else {
        Remedy::GiveBack(delivery.ack.clone())
    }
}

/// Silence of a run after which its worker may be gone.
pub fn patience(heartbeat_sec: f64) -> Duration {
    let heartbeats = Duration::try_from_secs_f64(heartbeat_sec * f64::from(MISSED_HEARTBEATS));
    heartbeats.unwrap_or(Duration::MAX).max(LEAST_RUN_SILENCE)
}

/// Whether a NAK may follow. A second NAK would hit the delivery that the first one has brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// Store the snapshot; then.
    Now,
    /// Signed long ago and silent since: the NAK was lost, and is sent again.
    Before,
    Not,
}

/// Signs the delivery of a silent run, so that only one of several gateways gives it back.
pub fn sign(snapshot: &mut RunSnapshot) -> Signed {
    match &mut snapshot.delivery {
        Some(delivery) if delivery.released => Signed::Not,
        Some(delivery) if delivery.rescued => Signed::Before,
        Some(delivery) => {
            delivery.rescued = true;
            Signed::Now
        }
        None => Signed::Not,
    }
}
