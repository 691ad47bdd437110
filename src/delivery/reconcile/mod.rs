//! Which runs and messages have lost each other, and when somebody has to act.
//!
//! The server tells of an exhausted message once, in an advisory that can be lost; it tells of a purge never.
//! So the gateway compares the queue with the snapshots, again and again. [`stuck::Stuck`] finds messages
//! that the server delivers no more, [`missing::Missing`] finds runs that have no message. Both say what to
//! ask NATS for next, one request at a time, and are told the answer.

pub mod missing;
pub mod stuck;

use std::time::Duration;

use super::rescue::{self, Facts};
use super::{Change, Newest, Stored};
use crate::model::run::{RunStatus, RunSummary};

/// Between two looks at what the queue holds.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Silence of a run after which its message is looked for.
pub const MISSING_AFTER: Duration = Duration::from_secs(60);
/// A submit whose job was queued later than this after its snapshot has failed: its gateway has stood still
/// between the two, and another one may have given the run up.
pub const QUEUED_WITHIN: Duration = Duration::from_secs(30);
/// How long a message may lie in the queue without its run being heard of before it is published anew, when
/// the figures of the queue say that some are stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Silence of a run of a worker that knows nothing of deliveries: the `ack_wait` of its side.
const FOREIGN_SILENCE: Duration = Duration::from_secs(30);

/// Whether a message that was delivered before may be one of those that are stuck: no worker is heard of that
/// executes its run. Publishing another one anew does no harm, but puts it behind all others.
pub fn may_be_stuck(seq: u64, run: Option<Facts<'_>>) -> bool {
    // Its run has ended, or there never was one: it is of no use.
    let Some(facts) = run else { return true };
    let names_another = facts.run.job_seq.is_some_and(|named| named != seq);
    names_another || facts.silence >= STUCK_AFTER && !is_executed(facts)
}

fn is_executed(facts: Facts<'_>) -> bool {
    match (&facts.run.delivery, facts.run.status) {
        (_, RunStatus::Pending) => false,
        (Some(delivery), _) if delivery.released => false,
        (Some(delivery), _) => {
            // A live worker may be slow to write. But one that was given up, or could not give a job back,
            // lives on as well, and never writes of that run again.
            let is_held = !facts.worker_is_gone && !delivery.rescued;
            let patience = rescue::patience(delivery.heartbeat_sec);
            facts.silence < if is_held { patience.max(MISSING_AFTER) } else { patience }
        }
        (None, _) => facts.silence < FOREIGN_SILENCE,
    }
}

/// Whether it is time to look for the message of a run. Nobody executes it, and nobody has begun to.
pub fn wants_look(facts: Facts<'_>) -> bool {
    facts.silence >= MISSING_AFTER && !is_executed(facts) && facts.run.status != RunStatus::Cancelling
}

/// Ends a run that has lost its job, if the snapshot still is the one that was decided on.
pub fn end_lost(newest: &Newest<'_>, decided_on: u64, now: f64) -> Change {
    let Stored::Run(snapshot) = newest.stored else { return Change::Leave };
    if newest.revision != decided_on || snapshot.status.is_terminal() {
        return Change::Leave;
    }
    let mut snapshot = Box::new(snapshot.clone());
    let error = "job_lost: the run's job is not in the queue; submit it again";
    snapshot.finish(RunStatus::Failed, Some(error.to_owned()), now);
    Change::Put(snapshot)
}

/// The message that the run's snapshot names.
pub fn named(run: &RunSummary) -> Option<u64> {
    run.job_seq.or_else(|| run.delivery.as_ref().and_then(super::stream_seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::{delivery, held};
    use crate::model::run::RunSnapshot;

    #[test]
    fn a_silent_run_of_a_live_worker_is_executed_for_a_while_only() {
        let may_be_stuck = |snapshot: &RunSnapshot, seconds: u64| {
            let run = &snapshot.summary();
            let silence = Duration::from_secs(seconds);
            super::may_be_stuck(5, Some(Facts { run, silence, worker_is_gone: false }))
        };
        let mut snapshot = held(delivery(5, 1));
        assert!(!may_be_stuck(&snapshot, 59) && may_be_stuck(&snapshot, 60));
        // Its worker stood still meanwhile, and has left the run to others since.
        snapshot.delivery.as_mut().unwrap().rescued = true;
        assert!(!may_be_stuck(&snapshot, 9) && may_be_stuck(&snapshot, 10));
    }
}
