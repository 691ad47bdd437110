//! When a run is brought back whose worker is gone, long before the queue's own `ack_wait` would.

use std::time::Duration;

use super::mends::{self, Mend};
use crate::model::limits::{LEAST_RUN_SILENCE, MISSED_HEARTBEATS};
use crate::model::run::{RunSnapshot, RunStatus, RunSummary};

/// How long a cancelled run that nobody has started is left to a worker.
const UNSTARTED_CANCEL: Duration = Duration::from_secs(2);
/// How much longer than its grace period a cancel may take before it is completed without its worker.
const CANCEL_SLACK: Duration = Duration::from_secs(15);
/// A job that was given back, by whichever gateway, and is not taken up is given back again after this.
const AGAIN: Duration = Duration::from_secs(15);

/// What is known of a run that has not ended.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub run: &'a RunSummary,
    /// Since it was last written, or since it can be heard of.
    pub silence: Duration,
    /// Its worker has stopped, has been started anew, or writes its record no more.
    pub worker_is_gone: bool,
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
    } else if delivery.rescued && silence < AGAIN && mends::is_in(Mend::OneRescue) {
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

/// Signs the delivery of a silent run, before the NAK; `false`: nobody executes it. The snapshot is to be
/// stored by compare-and-set at the revision that was decided on, again for each NAK: so one of several
/// gateways gives the job back, once, and a NAK never hits the delivery that an earlier one has brought
/// about. The time makes what is stored each gateway's own.
pub fn sign(snapshot: &mut RunSnapshot, now: f64) -> bool {
    let Some(delivery) = snapshot.delivery.as_mut().filter(|delivery| !delivery.released) else {
        return false;
    };
    delivery.rescued = true;
    snapshot.updated_at = Some(now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::{delivery, held};

    #[test]
    fn each_nak_is_signed_anew_and_the_next_one_waits() {
        let grace = Duration::from_secs(30);
        let mut snapshot = held(delivery(5, 1));
        let remedy = |snapshot: &RunSnapshot, silence: u64| {
            let run = &snapshot.summary();
            remedy(Facts { run, silence: Duration::from_secs(silence), worker_is_gone: true }, grace)
        };
        let give_back = Remedy::GiveBack(delivery(5, 1).ack);
        assert_eq!([remedy(&snapshot, 4), remedy(&snapshot, 5)], [Remedy::Nothing, give_back]);
        assert!(sign(&mut snapshot, 10.0));
        let first = snapshot.clone();
        // Silence counts from that write, for every gateway.
        assert_eq!(remedy(&snapshot, 14), Remedy::Nothing);
        assert!(matches!(remedy(&snapshot, 15), Remedy::GiveBack(_)));
        assert!(sign(&mut snapshot, 25.0));
        assert_ne!(snapshot, first, "two gateways never write the same");
        snapshot.delivery.as_mut().unwrap().released = true;
        assert!(!sign(&mut snapshot, 40.0));
    }
}
