//! What a delivered job means, given what its snapshot says.

use super::requeue::{self, Reason, Requeue};
use super::{
    Answer, Ask, Change, Limits, Newest, Protocol, Standing, Step, Stored, Verdict, exceeded, is_foreign,
    is_superseded, lost_attempts, standing,
};
use crate::model::job::Job;
use crate::model::run::{Delivery, RunSnapshot, RunStatus};

/// Who has got the job, and by which delivery.
#[derive(Debug, Clone)]
pub struct Claimant<'a> {
    pub worker_id: &'a str,
    pub stream_seq: u64,
    pub num_delivered: u64,
    pub delivery: Delivery,
    pub now: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The run is ours: its snapshot, stored at this revision.
    Execute(Box<RunSnapshot>, u64),
    /// The run has ended by this claim, and the job is acknowledged: it was being cancelled, or has lost too
    /// many workers; then with the error.
    Ended(RunStatus, Option<String>),
    /// The job is acknowledged: its run has ended, was taken back, or has another message.
    Dropped,
    /// The job was published anew.
    Requeued,
    /// A later delivery of the same job is being executed, or is on its way, since a gateway has given this
    /// one back: leave everything alone.
    Superseded,
    /// A worker has it that knows nothing of deliveries, and the snapshot is at this revision. Should it stay
    /// there, that worker is gone; claim with [`Claim::silent`].
    Foreign(u64),
    /// The run has changed in this moment: claim again.
    Changed,
}

/// Claims a run for the delivery of its job.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    job: &'a Job,
    claimant: Claimant<'a>,
    limits: Limits,
    /// A message that the snapshot names and that is not in the queue.
    gone: Option<u64>,
    /// The revision at which a foreign worker has fallen silent.
    silent: Option<u64>,
    state: State<'a>,
    verdict: Found,
}

#[derive(Debug, Clone)]
enum State<'a> {
    Look,
    Other(u64),
    Requeue(Box<Requeue<'a>>),
    Acknowledge(End),
    Finished(End),
}

#[derive(Debug, Clone)]
enum Found {
    Nothing,
    Ours(Box<RunSnapshot>),
    Other(u64),
    Requeue,
    /// Acknowledge, then this.
    Over(End),
    Of(End),
}

impl<'a> Claim<'a> {
    pub fn new(job: &'a Job, claimant: Claimant<'a>, limits: Limits) -> Self {
        let (state, verdict) = (State::Look, Found::Nothing);
        Claim { job, claimant, limits, gone: None, silent: None, state, verdict }
    }

    /// A foreign worker has not written since this revision.
    pub fn silent(self, revision: Option<u64>) -> Self {
        Claim { silent: revision, ..self }
    }

    /// Whether a claim that has failed may have settled its delivery, if the answer to its last request was
    /// missed. It is over then: the message may be gone, so no run can be executed by it. Should NATS not
    /// have got the ACK, the job comes again after `ack_wait`.
    pub fn may_be_settled(&self) -> bool {
        match &self.state {
            State::Acknowledge(_) => true,
            State::Requeue(requeue) => requeue.may_be_settled(),
            State::Look | State::Other(_) | State::Finished(_) => false,
        }
    }

    /// Whether the snapshot may name this delivery, should the claim have failed.
    pub fn may_be_stored(&self) -> bool {
        matches!(self.verdict, Found::Ours(_)) || matches!(self.state, State::Requeue(_))
    }

    fn look(&self, newest: &Newest<'_>) -> (Found, Change) {
        let claimant = &self.claimant;
        let leave = |found| (found, Change::Leave);
        let mut snapshot = match newest.stored {
            Stored::Deleted => return leave(Found::Over(End::Dropped)),
            Stored::Run(snapshot) if snapshot.status.is_terminal() => {
                return leave(Found::Over(End::Dropped));
            }
            Stored::Run(snapshot) => Box::new(snapshot.clone()),
            Stored::Missing | Stored::Unreadable => Box::new(self.job.pending_snapshot(claimant.now)),
        };
        let held = snapshot.delivery.as_ref();
        match standing(self.job, claimant.stream_seq, (newest.revision, &snapshot), self.gone) {
            Standing::Other(other) => return leave(Found::Other(other)),
            Standing::Ours if is_superseded(&snapshot, claimant.stream_seq, claimant.num_delivered) => {
                return leave(Found::Of(End::Superseded));
            }
            Standing::Ours | Standing::Unnamed => {}
        }
        if snapshot.status == RunStatus::Cancelling {
            snapshot.worker_id = Some(claimant.worker_id.to_owned());
            snapshot.finish(RunStatus::Cancelled, None, claimant.now);
            return (Found::Over(End::Ended(RunStatus::Cancelled, None)), Change::Put(snapshot));
        }
        let foreign = is_foreign(&snapshot);
        if foreign && self.silent != Some(newest.revision) {
            return leave(Found::Of(End::Foreign(newest.revision)));
        }
        // A claim of this very delivery, whose answer was lost, is ours already, unless a gateway has given
        // it back since: then the job is on its way to the next worker.
        let ours = held.filter(|held| held.ack == claimant.delivery.ack && !held.released);
        if ours.is_some_and(|held| held.rescued) {
            return leave(Found::Of(End::Superseded));
        }
        let is_ours = ours.is_some();
        let has_died = foreign || held.is_some_and(|held| !held.released) && !is_ours;
        let lost = lost_attempts(self.job, &snapshot) + u64::from(has_died);
        if lost > 0 {
            snapshot.lost_attempts = Some(lost);
        }
        if self.limits.is_exceeded(lost) {
            let error = exceeded(lost);
            snapshot.finish(RunStatus::Failed, Some(error.clone()), claimant.now);
            return (Found::Over(End::Ended(RunStatus::Failed, Some(error))), Change::Put(snapshot));
        }
        if self.limits.wants_requeue(claimant.num_delivered, lost) {
            return leave(Found::Requeue);
        }
        if !is_ours {
            // A worker of the Python side keeps no count of its own.
            snapshot.attempt = Some((snapshot.attempt.unwrap_or(0) + 1).max(claimant.num_delivered));
        }
        begin(&mut snapshot, claimant);
        (Found::Ours(snapshot.clone()), Change::Put(snapshot))
    }
}

/// The run is the claimant's from here on, and what an earlier attempt has left is gone: it would be mistaken
/// for this one's.
fn begin(snapshot: &mut RunSnapshot, claimant: &Claimant<'_>) {
    snapshot.worker_id = Some(claimant.worker_id.to_owned());
    snapshot.status = RunStatus::Running;
    snapshot.start_time = Some(claimant.now);
    snapshot.heartbeat_at = Some(claimant.now);
    snapshot.updated_at = Some(claimant.now);
    snapshot.job_seq = Some(claimant.stream_seq);
    snapshot.delivery = Some(claimant.delivery.clone());
    snapshot.tasks.clear();
    snapshot.task_records.clear();
    snapshot.task_records_truncated = false;
    snapshot.task_logs_truncated = false;
    snapshot.wheel_generation = None;
    snapshot.wheels.clear();
    snapshot.error = None;
    snapshot.end_time = None;
}

impl Protocol for Claim<'_> {
    type End = End;

    fn next(&mut self) -> Step<End> {
        match &mut self.state {
            State::Look => Step::Ask(Ask::Edit),
            State::Other(seq) => Step::Ask(Ask::Find(*seq)),
            State::Acknowledge(_) => Step::Ask(Ask::Settle(Verdict::Ack)),
            State::Requeue(requeue) => match requeue.next() {
                Step::Ask(ask) => Step::Ask(ask),
                Step::End(end) => Step::End(match end {
                    requeue::End::Requeued(_) => End::Requeued,
                    requeue::End::Ended(status, error) => End::Ended(status, error),
                    requeue::End::Dropped => End::Dropped,
                    requeue::End::Changed => End::Changed,
                    requeue::End::Foreign(revision) => End::Foreign(revision),
                }),
            },
            State::Finished(end) => Step::End(end.clone()),
        }
    }

    fn edit(&mut self, newest: &Newest<'_>) -> Change {
        if let State::Requeue(requeue) = &mut self.state {
            return requeue.edit(newest);
        }
        let (verdict, change) = self.look(newest);
        self.verdict = verdict;
        change
    }

    fn answered(&mut self, answer: Answer) {
        if let State::Requeue(requeue) = &mut self.state {
            return requeue.answered(answer);
        }
        let state = std::mem::replace(&mut self.state, State::Finished(End::Changed));
        self.state = match (state, answer) {
            (State::Look, Answer::Edited(written)) => {
                match std::mem::replace(&mut self.verdict, Found::Nothing) {
                    Found::Ours(snapshot) => State::Finished(End::Execute(snapshot, written.unwrap_or(0))),
                    Found::Other(seq) => State::Other(seq),
                    Found::Requeue => {
                        let Claimant { stream_seq, num_delivered, now, .. } = self.claimant;
                        let reason = Reason::InHand { num_delivered };
                        let requeue = Requeue::new(self.job, stream_seq, reason, self.limits, now);
                        State::Requeue(Box::new(requeue.silent(self.silent)))
                    }
                    Found::Over(end) => State::Acknowledge(end),
                    Found::Of(end) => State::Finished(end),
                    Found::Nothing => State::Finished(End::Changed),
                }
            }
            (State::Other(_), Answer::Found(true)) => State::Acknowledge(End::Dropped),
            (State::Other(seq), _) => {
                self.gone = Some(seq);
                State::Look
            }
            (State::Acknowledge(end), _) => State::Finished(end),
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::{delivery, held, job};
    use crate::model::wheel::{WheelRef, WheelSet};

    fn wheel() -> WheelRef {
        let [wheel_name, package_name, package_version, sha256] = ["w.whl", "w", "1", "0"].map(str::to_owned);
        WheelRef { wheel_name, package_name, package_version, sha256 }
    }

    /// What a claim by this delivery of the message 5 finds, and what it stores.
    fn look(job: &Job, stored: Stored<'_>, num_delivered: u64) -> (Found, Change) {
        claim(job, num_delivered).look(&Newest { revision: 7, stored })
    }

    fn claim(job: &Job, num_delivered: u64) -> Claim<'_> {
        let delivery = delivery(5, num_delivered);
        let claimant = Claimant { worker_id: "w", stream_seq: 5, num_delivered, delivery, now: 100.0 };
        Claim::new(job, claimant, Limits::new(3, Some(20)))
    }

    #[test]
    fn what_an_earlier_attempt_has_left_is_gone() {
        let mut earlier = held(delivery(5, 1));
        earlier.tasks.insert("a".into(), "RUNNING".into());
        earlier.set_wheels(&WheelSet { generation: "g".into(), wheels: [wheel()].into() });
        let (Found::Ours(ours), Change::Put(stored)) = look(&job(), Stored::Run(&earlier), 2) else {
            panic!()
        };
        assert_eq!(ours, stored);
        assert_eq!((ours.worker_id.as_deref(), ours.job_seq), (Some("w"), Some(5)));
        assert_eq!((ours.attempt, ours.lost_attempts, ours.tasks.len()), (Some(2), Some(1), 0));
        assert_eq!((&ours.wheel_generation, &*ours.wheels), (&None, &[][..]));
        assert_eq!((&ours.params["a"], ours.start_time), (&1.into(), Some(100.0)));
    }

    #[test]
    fn a_run_that_has_ended_or_was_taken_back_costs_its_message() {
        let mut ended = held(delivery(5, 1));
        ended.finish(RunStatus::Failed, None, 2.0);
        for stored in [Stored::Run(&ended), Stored::Deleted] {
            let found = look(&job(), stored, 2);
            assert!(matches!(found, (Found::Over(End::Dropped), Change::Leave)), "{found:?}");
        }
        for stored in [Stored::Missing, Stored::Unreadable] {
            assert!(matches!(look(&job(), stored, 1), (Found::Ours(_), Change::Put(_))));
        }
        let mut cancelling = held(delivery(5, 1));
        cancelling.status = RunStatus::Cancelling;
        let (Found::Over(End::Ended(status, None)), Change::Put(stored)) =
            look(&job(), Stored::Run(&cancelling), 2)
        else {
            panic!()
        };
        assert_eq!((status, stored.status, stored.end_time), (RunStatus::Cancelled, status, Some(100.0)));
    }

    #[test]
    fn only_the_death_of_a_worker_counts() {
        let lost = |snapshot: &RunSnapshot, num_delivered| match look(
            &job(),
            Stored::Run(snapshot),
            num_delivered,
        ) {
            (Found::Ours(ours), _) => ours.lost_attempts.unwrap_or(0),
            other => panic!("{other:?}"),
        };
        assert_eq!(lost(&job().pending_snapshot(1.0), 9), 0, "given back before anybody has claimed it");
        assert_eq!(lost(&held(delivery(5, 1)), 2), 1);
        let mut released = held(delivery(5, 1));
        released.delivery.as_mut().unwrap().released = true;
        assert_eq!(lost(&released, 2), 0, "given back");
        assert_eq!(lost(&held(delivery(5, 2)), 2), 0, "a claim whose answer was lost");
        let mut dying = held(delivery(5, 1));
        dying.lost_attempts = Some(2);
        let (Found::Over(End::Ended(RunStatus::Failed, Some(error))), Change::Put(stored)) =
            look(&job(), Stored::Run(&dying), 2)
        else {
            panic!()
        };
        assert!(error.starts_with("max_deliver_exceeded: 3 attempts"), "{error}");
        assert_eq!(stored.lost_attempts, Some(3));
        let often = look(&job(), Stored::Run(&released), 19);
        assert!(matches!(often, (Found::Requeue, Change::Leave)), "{often:?}");
    }

    #[test]
    fn a_claim_that_a_gateway_has_given_back_is_over() {
        let mut rescued = held(delivery(5, 2));
        rescued.delivery.as_mut().unwrap().rescued = true;
        let made_sure_of = look(&job(), Stored::Run(&rescued), 2);
        assert!(matches!(made_sure_of, (Found::Of(End::Superseded), Change::Leave)), "{made_sure_of:?}");
        let (Found::Ours(next), Change::Put(_)) = look(&job(), Stored::Run(&rescued), 3) else { panic!() };
        assert_eq!((next.lost_attempts, next.delivery), (Some(1), Some(delivery(5, 3))));
        // Of a run that is being cancelled nothing is executed any more.
        rescued.status = RunStatus::Cancelling;
        let cancelled = look(&job(), Stored::Run(&rescued), 2);
        assert!(
            matches!(cancelled, (Found::Over(End::Ended(RunStatus::Cancelled, None)), _)),
            "{cancelled:?}"
        );
    }

    #[test]
    fn a_claim_whose_ack_was_not_answered_is_over() {
        let (job, mut ended) = (job(), held(delivery(5, 1)));
        ended.finish(RunStatus::Failed, None, 2.0);
        let mut claim = claim(&job, 2);
        assert!(!claim.may_be_settled());
        claim.edit(&Newest { revision: 7, stored: Stored::Run(&ended) });
        claim.answered(Answer::Edited(None));
        assert!(matches!(claim.next(), Step::Ask(Ask::Settle(Verdict::Ack))) && claim.may_be_settled());
    }

    #[test]
    fn what_a_python_worker_has_forgotten_stands_in_the_job() {
        let requeued = Job { lost_attempts: Some(2), ..job() };
        let mut python = job().pending_snapshot(1.0);
        python.status = RunStatus::Running;
        let newest = Newest { revision: 7, stored: Stored::Run(&python) };
        let mut claim = claim(&requeued, 2).silent(Some(7));
        let Change::Put(stored) = claim.edit(&newest) else { panic!() };
        assert_eq!((stored.status, stored.lost_attempts), (RunStatus::Failed, Some(3)));
    }

    #[test]
    fn one_message_stands_for_a_run() {
        let other = look(&job(), Stored::Run(&held(delivery(4, 3))), 1);
        assert!(matches!(other, (Found::Other(4), Change::Leave)), "{other:?}");
        let job = job();
        let mut gone = claim(&job, 1);
        gone.gone = Some(4);
        let newest = held(delivery(4, 3));
        let newest = Newest { revision: 7, stored: Stored::Run(&newest) };
        assert!(matches!(gone.look(&newest), (Found::Ours(_), _)), "the other one was purged");
        let later = look(&job, Stored::Run(&held(delivery(5, 3))), 2);
        assert!(matches!(later, (Found::Of(End::Superseded), Change::Leave)), "{later:?}");
        let requeued = |revision| Job { requeued_at_revision: Some(revision), ..job.clone() };
        let pending = job.pending_snapshot(1.0);
        assert!(matches!(look(&requeued(7), Stored::Run(&pending), 1), (Found::Ours(_), _)));
        let late = look(&requeued(6), Stored::Run(&held(delivery(4, 3))), 1);
        assert!(matches!(late, (Found::Other(4), Change::Leave)), "{late:?}");
        let mut named = pending.clone();
        named.job_seq = Some(5);
        assert!(matches!(look(&requeued(6), Stored::Run(&named), 1), (Found::Ours(_), _)));
        // It comes before the one who has published it has named it.
        let (Found::Ours(ours), _) = look(&requeued(7), Stored::Run(&held(delivery(4, 3))), 1) else {
            panic!()
        };
        assert_eq!((ours.job_seq, ours.lost_attempts), (Some(5), Some(1)));
    }

    #[test]
    fn a_worker_that_knows_nothing_of_deliveries_is_watched_first() {
        let mut foreign = held(delivery(5, 1));
        foreign.delivery = None;
        let newest = Newest { revision: 7, stored: Stored::Run(&foreign) };
        let job = job();
        let first = claim(&job, 2).look(&newest);
        assert!(matches!(first, (Found::Of(End::Foreign(7)), Change::Leave)), "{first:?}");
        let (Found::Ours(ours), _) = claim(&job, 2).silent(Some(7)).look(&newest) else { panic!() };
        assert_eq!(ours.lost_attempts, Some(1));
    }
}
