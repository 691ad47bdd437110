//! What a delivered job means, given what its snapshot says.

use crate::bus::{Entry, Meta, Operation};
use crate::model::job::Job;
use crate::model::json;
use crate::model::run::{Delivery, RunSnapshot, RunStatus};

/// What to do with a delivery. What stores a snapshot goes on only if its compare-and-set succeeds.
#[derive(Debug, PartialEq)]
pub(crate) enum Claim {
    /// Store this snapshot, then execute.
    Execute(Box<RunSnapshot>),
    /// Store this CANCELLED snapshot, then acknowledge.
    Cancelled(Box<RunSnapshot>),
    /// The run has ended before: acknowledge, do not execute.
    AlreadyTerminal,
    /// The submit was taken back: acknowledge, do not execute.
    Withdrawn,
    /// A later delivery of the same job is being executed: leave everything alone.
    Superseded,
    /// Another message in the queue, with this sequence, brought the run to its worker, and brings it
    /// again should that one die: while it is there, this message is one too many.
    Duplicate(u64),
}

#[derive(Debug)]
pub(crate) struct Claimant<'a> {
    pub worker_id: &'a str,
    pub attempt: u64,
    pub stream_seq: u64,
    /// A message of the run that was looked for in the queue and is not there.
    pub gone: Option<u64>,
    pub delivery: Delivery,
    pub now: f64,
}

/// Decides; `newest` is the newest message of the run's key.
pub(crate) fn decide(job: &Job, newest: Option<&Entry>, claimant: Claimant<'_>) -> Claim {
    let read = match newest {
        Some(entry) if entry.operation == Operation::Delete => return Claim::Withdrawn,
        // What cannot be read is replaced: the job itself says all that is needed.
        Some(entry) => json::from_wire::<RunSnapshot>(&entry.value).ok(),
        None => None,
    };
    let mut snapshot = read.unwrap_or_else(|| fresh(job, claimant.now));
    if snapshot.status.is_terminal() {
        return Claim::AlreadyTerminal;
    }
    let held_by = snapshot.delivery.as_ref().and_then(|held| Meta::parse(&held.ack));
    match held_by.map(|meta| meta.stream_seq).filter(|seq| Some(*seq) != claimant.gone) {
        Some(other) if other != claimant.stream_seq => return Claim::Duplicate(other),
        // Attempts of two messages say nothing about each other.
        Some(_) | None if snapshot.attempt > Some(claimant.attempt) && claimant.gone.is_none() => {
            return Claim::Superseded;
        }
        _ => {}
    }
    snapshot.worker_id = Some(claimant.worker_id.to_owned());
    snapshot.attempt = Some(claimant.attempt);
    if snapshot.status == RunStatus::Cancelling {
        snapshot.finish(RunStatus::Cancelled, None, claimant.now);
        return Claim::Cancelled(Box::new(snapshot));
    }
    snapshot.status = RunStatus::Running;
    snapshot.start_time = Some(claimant.now);
    snapshot.heartbeat_at = Some(claimant.now);
    snapshot.updated_at = Some(claimant.now);
    snapshot.delivery = Some(claimant.delivery);
    // What an earlier attempt left would be mistaken for this one's.
    snapshot.tasks.clear();
    snapshot.task_records.clear();
    snapshot.task_records_truncated = false;
    snapshot.task_logs_truncated = false;
    snapshot.wheel_generation = None;
    snapshot.wheels.clear();
    snapshot.error = None;
    snapshot.end_time = None;
    Claim::Execute(Box::new(snapshot))
}

/// The snapshot that the gateway would have written.
pub(crate) fn fresh(job: &Job, now: f64) -> RunSnapshot {
    let mut snapshot = RunSnapshot::pending(job.run_id.clone(), job.flow_name.clone(), job.tag.clone(), now);
    snapshot.tags.clone_from(&job.tags);
    snapshot.params.clone_from(&job.params);
    snapshot.tenant_id.clone_from(&job.tenant_id);
    snapshot.api_key_id.clone_from(&job.api_key_id);
    snapshot.workflow_yaml_sha256.clone_from(&job.workflow_yaml_sha256);
    snapshot.workflow_yaml_bytes = job.workflow_yaml_bytes;
    snapshot.submitted_at = job.submitted_at;
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wheel::{WheelRef, WheelSet};

    fn job() -> Job {
        Job::parse(br#"{"run_id":"r","flow_name":"main","params":{"a":1}}"#).unwrap()
    }

    fn wheel() -> WheelRef {
        let [wheel_name, package_name, package_version, sha256] = ["w.whl", "w", "1", "0"].map(str::to_owned);
        WheelRef { wheel_name, package_name, package_version, sha256 }
    }

    fn delivery(ack: &str) -> Delivery {
        Delivery { ack: ack.into(), instance_id: "i".into(), heartbeat_sec: 1.0, rescued: false }
    }

    fn claimant(attempt: u64) -> Claimant<'static> {
        let delivery = delivery("$JS.ACK.x");
        Claimant { worker_id: "w", attempt, stream_seq: 5, gone: None, delivery, now: 100.0 }
    }

    fn entry(edit: impl FnOnce(&mut RunSnapshot)) -> Entry {
        let mut snapshot = fresh(&job(), 1.0);
        edit(&mut snapshot);
        let value = json::to_wire(&snapshot).unwrap();
        Entry::put("r", value, 7)
    }

    #[test]
    fn every_state_of_the_snapshot_has_its_answer() {
        let decided = |edit: fn(&mut RunSnapshot)| decide(&job(), Some(&entry(edit)), claimant(2));
        for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled] {
            let ended = entry(|s| s.status = status);
            assert_eq!(decide(&job(), Some(&ended), claimant(2)), Claim::AlreadyTerminal);
        }
        assert_eq!(decided(|s| s.attempt = Some(3)), Claim::Superseded);
        match decided(|s| s.status = RunStatus::Cancelling) {
            Claim::Cancelled(snapshot) => {
                assert_eq!(snapshot.status, RunStatus::Cancelled);
                assert_eq!(snapshot.end_time, Some(100.0));
            }
            other => panic!("{other:?}"),
        }
        let earlier_attempt = |s: &mut RunSnapshot| {
            s.status = RunStatus::Running;
            s.attempt = Some(1);
            s.worker_id = Some("dead".into());
            s.tasks.insert("a".into(), "RUNNING".into());
            s.set_wheels(&WheelSet { generation: "g".into(), wheels: [wheel()].into() });
        };
        match decided(earlier_attempt) {
            Claim::Execute(snapshot) => {
                assert_eq!(snapshot.worker_id.as_deref(), Some("w"));
                assert_eq!((snapshot.attempt, snapshot.tasks.len()), (Some(2), 0));
                assert_eq!((snapshot.wheel_generation, snapshot.wheels), (None, vec![]));
                assert_eq!(snapshot.params["a"], 1);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_message_of_a_run_is_left_as_long_as_the_first_is_there() {
        let held = entry(|s| {
            s.status = RunStatus::Running;
            s.attempt = Some(3);
            let ack = "$JS.ACK.PYOCO_WORK.pyoco_workers_default.3.4.9.1700000000000000000.0";
            s.delivery = Some(delivery(ack));
        });
        assert_eq!(decide(&job(), Some(&held), claimant(1)), Claim::Duplicate(4));
        let first_is_gone = Claimant { gone: Some(4), ..claimant(1) };
        assert!(matches!(decide(&job(), Some(&held), first_is_gone), Claim::Execute(_)));
        let same = |attempt| Claimant { stream_seq: 4, ..claimant(attempt) };
        assert_eq!(decide(&job(), Some(&held), same(2)), Claim::Superseded);
        assert!(matches!(decide(&job(), Some(&held), same(4)), Claim::Execute(_)));
    }

    #[test]
    fn a_deleted_snapshot_is_a_withdrawn_submit_and_a_missing_one_is_not() {
        let mut tombstone = entry(|_| {});
        tombstone.operation = Operation::Delete;
        assert_eq!(decide(&job(), Some(&tombstone), claimant(1)), Claim::Withdrawn);
        assert!(matches!(decide(&job(), None, claimant(1)), Claim::Execute(_)));
        let mut garbage = entry(|_| {});
        garbage.value = b"{".to_vec();
        assert!(matches!(decide(&job(), Some(&garbage), claimant(1)), Claim::Execute(_)));
    }
}
