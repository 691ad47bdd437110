//! What the owner of a run does when its write is refused: another writer was quicker, or no message can
//! hold it.

use super::mends::{self, Mend};
use super::{Newest, Stored, is_foreign};
use crate::model::run::{RunSnapshot, RunStatus};

#[derive(Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Another worker has the run, or it has ended: stop, write nothing more, acknowledge nothing.
    Lost(String),
    /// Our own last write, which was stored after we had stopped waiting for it.
    Stored,
    /// A cancel request, taken over into our snapshot: write again.
    Again,
}

/// Decides on what another writer has stored. `acks` are the deliveries that this attempt has had.
pub fn on_conflict(ours: &mut RunSnapshot, acks: &[String], newest: &Newest<'_>) -> Conflict {
    let theirs = match newest.stored {
        Stored::Run(theirs) => theirs,
        Stored::Unreadable => {
            return Conflict::Lost("the snapshot was overwritten with something unreadable".into());
        }
        Stored::Missing | Stored::Deleted => return Conflict::Lost("the snapshot was deleted".into()),
    };
    let end = |snapshot: &RunSnapshot| (snapshot.status, snapshot.end_time, snapshot.attempt);
    if theirs.status.is_terminal() && end(theirs) == end(ours) && theirs.worker_id == ours.worker_id {
        return Conflict::Stored;
    }
    if theirs.status.is_terminal() {
        return Conflict::Lost(format!("it is {} already", theirs.status.as_str()));
    }
    let is_ours = match &theirs.delivery {
        Some(held) => !held.released && acks.contains(&held.ack),
        // Published anew after a worker of the Python side had it.
        None if theirs.job_seq.is_some_and(|named| Some(named) != ours.job_seq) => false,
        // A gateway of the Python side may drop the field with a cancel request, but it never writes RUNNING.
        None => !is_foreign(theirs),
    };
    if theirs.attempt.is_some_and(|attempt| Some(attempt) > ours.attempt)
        || (theirs.worker_id.is_some() && theirs.worker_id != ours.worker_id)
        || !is_ours
    {
        let who = theirs.worker_id.as_deref().unwrap_or("of the Python side");
        let attempt = theirs.attempt.unwrap_or(0);
        return Conflict::Lost(match &theirs.delivery {
            Some(held) if held.released => "its job was published anew".to_owned(),
            Some(_) => format!("worker {who} has it in attempt {attempt}"),
            None if theirs.job_seq != ours.job_seq => "its job was published anew".to_owned(),
            None => format!("worker {who} has it"),
        });
    }
    if theirs.status == RunStatus::Cancelling || theirs.cancel_requested_at.is_some() {
        if !ours.status.is_terminal() {
            ours.status = RunStatus::Cancelling;
        }
        ours.cancel_requested_at = theirs.cancel_requested_at;
        ours.cancel_requested_by.clone_from(&theirs.cancel_requested_by);
        ours.cancel_reason.clone_from(&theirs.cancel_reason);
    }
    Conflict::Again
}

/// Leaves something out of a snapshot that no message can hold, the most dispensable first; `false` when
/// there is nothing left. The names of tasks go last, and only of a run that has ended: it is FAILED then,
/// since what its tasks did is not recorded.
pub fn shrink(snapshot: &mut RunSnapshot, now: f64) -> bool {
    if snapshot.drop_bulk() {
        return true;
    }
    if !snapshot.status.is_terminal() || snapshot.tasks.is_empty() || !mends::is_in(Mend::TooLargeEnds) {
        return false;
    }
    snapshot.count_tasks(now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_whose_job_was_published_anew_after_a_python_worker_is_lost() {
        let mut ours = RunSnapshot::pending("r".into(), "main".into(), "default".into(), 1.0);
        (ours.status, ours.job_seq, ours.attempt) = (RunStatus::Running, Some(5), Some(1));
        let mut theirs = ours.clone();
        let conflict = |theirs: &RunSnapshot| {
            on_conflict(&mut ours.clone(), &[], &Newest { revision: 9, stored: Stored::Run(theirs) })
        };
        assert_eq!(
            conflict(&theirs),
            Conflict::Again,
            "a gateway of the Python side has dropped the delivery"
        );
        theirs.job_seq = Some(8);
        assert!(matches!(conflict(&theirs), Conflict::Lost(why) if why.contains("published anew")));
    }

    #[test]
    fn a_run_whose_names_fit_no_message_ends_with_their_number() {
        let mut snapshot = RunSnapshot::pending("r".into(), "main".into(), "default".into(), 1.0);
        for task in 0..50 {
            snapshot.tasks.insert(format!("t{task}"), "PENDING".into());
        }
        assert!(!shrink(&mut snapshot, 2.0), "a run that goes on keeps its tasks");
        snapshot.finish(RunStatus::Completed, None, 2.0);
        assert!(shrink(&mut snapshot, 2.0));
        assert_eq!((snapshot.status, snapshot.tasks.len()), (RunStatus::Failed, 0));
        assert!(snapshot.error.as_deref().unwrap().starts_with("too_many_tasks: "), "{snapshot:?}");
        assert_eq!(snapshot.extra["task_counts"]["PENDING"], 50);
        assert!(!shrink(&mut snapshot, 3.0));
    }
}
