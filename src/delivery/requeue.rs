//! Publishes a job anew, so that its run is not bound to a message that NATS delivers no more, or soon will
//! not.
//!
//! The order: look at the snapshot → publish, with the revision of that look → name the new message in the
//! snapshot, if it still is at this revision → remove the old message. After a crash between two of them both
//! messages may be in the queue; the first one that is claimed is named, and the other one is dropped.

use super::mends::{self, Mend};
use super::{
    Answer, Ask, Change, Limits, Newest, Protocol, Standing, Step, Stored, Verdict, exceeded, is_foreign,
    is_superseded, lost_attempts, num_delivered, standing, stream_seq,
};
use crate::model::job::Job;
use crate::model::run::{RunSnapshot, RunStatus};

/// Why the old message will not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is in hand, and was delivered often; so many times. The snapshot may name this ACK subject.
    InHand { num_delivered: u64 },
    /// NATS has delivered it as often as it may.
    Exhausted,
    /// It is in the queue, and NATS neither keeps it for a worker nor has given it to one.
    Stuck,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The run has a new message, of this sequence.
    Requeued(u64),
    /// The run has ended: it was being cancelled, or has lost too many workers; then with the error.
    Ended(RunStatus, Option<String>),
    /// The message was of no use any more, and is removed.
    Dropped,
    /// The run has moved on: nothing was removed. Look again.
    Changed,
    /// A worker of the Python side has had the run last, by this message or by a later one, and the snapshot
    /// is at this revision. Should it stay there, that worker is gone; requeue with [`Requeue::silent`].
    Foreign(u64),
}

/// The old message, and what is to be known to decide on it.
#[derive(Debug, Clone)]
pub struct Requeue<'a> {
    job: &'a Job,
    seq: u64,
    reason: Reason,
    limits: Limits,
    now: f64,
    /// Only if the snapshot still is at this revision.
    decided_on: Option<u64>,
    /// The revision at which a foreign worker has fallen silent.
    silent: Option<u64>,
    /// A message that the snapshot names and that is not in the queue.
    gone: Option<u64>,
    state: State,
    verdict: Found,
}

#[derive(Debug, Clone)]
enum State {
    Look,
    Other(u64),
    Publish { id: String, revision: u64, lost: u64 },
    IsThere { id: String, seq: u64, revision: u64, lost: u64 },
    Name { seq: u64, revision: u64 },
    Drop(End),
    Finished(End),
}

/// What a look at the snapshot has found.
#[derive(Debug, Clone)]
enum Found {
    Nothing,
    /// Publish anew, as of this revision and with so many lost attempts.
    Due(u64, u64),
    /// Another message stands for the run.
    Other(u64),
    Of(End),
    Changed,
    Foreign(u64),
}

impl<'a> Requeue<'a> {
    pub fn new(job: &'a Job, seq: u64, reason: Reason, limits: Limits, now: f64) -> Self {
        let (gone, state, verdict) = (None, State::Look, Found::Nothing);
        Requeue { job, seq, reason, limits, now, decided_on: None, silent: None, gone, state, verdict }
    }

    /// Acts only on this revision of the snapshot.
    pub fn decided_on(self, revision: u64) -> Self {
        Requeue { decided_on: Some(revision), ..self }
    }

    /// A foreign worker has not written since this revision.
    pub fn silent(self, revision: Option<u64>) -> Self {
        Requeue { silent: revision, ..self }
    }

    /// Whether a step that has failed may have settled the delivery in hand, if the answer to its last
    /// request was missed.
    pub fn may_be_settled(&self) -> bool {
        matches!((&self.state, self.reason), (State::Drop(_), Reason::InHand { .. }))
    }

    fn look(&mut self, newest: &Newest<'_>) -> Change {
        let fresh;
        let snapshot = match newest.stored {
            Stored::Deleted => return self.found(Found::Of(End::Dropped)),
            Stored::Run(snapshot) => snapshot,
            Stored::Missing | Stored::Unreadable => {
                fresh = self.job.pending_snapshot(self.now);
                &fresh
            }
        };
        if snapshot.status.is_terminal() {
            return self.found(Found::Of(End::Dropped));
        }
        match standing(self.job, self.seq, (newest.revision, snapshot), self.gone) {
            Standing::Other(other) => return self.found(Found::Other(other)),
            Standing::Ours if self.is_stale(snapshot) => return self.found(Found::Changed),
            Standing::Ours | Standing::Unnamed => {}
        }
        if self.decided_on.is_some_and(|revision| revision != newest.revision) {
            return self.found(Found::Changed);
        }
        if is_foreign(snapshot)
            // Of a stuck message its gateway has seen how long the run is silent.
            && self.reason != Reason::Stuck
            && self.silent != Some(newest.revision)
            && mends::is_in(Mend::OnlyDeathsCount)
        {
            return self.found(Found::Foreign(newest.revision));
        }
        if snapshot.status == RunStatus::Cancelling {
            return self.end(snapshot, RunStatus::Cancelled, None);
        }
        let lost = self.lost(snapshot);
        // What workers of the Python side have done with it is not known: all deliveries count for them.
        let all_count = is_foreign(snapshot) || !mends::is_in(Mend::OnlyDeathsCount);
        if self.limits.is_exceeded(lost) || all_count && self.reason == Reason::Exhausted {
            return self.end(snapshot, RunStatus::Failed, Some(exceeded(lost.max(1))));
        }
        self.found(Found::Due(newest.revision, lost))
    }

    /// Names the new message, unless the snapshot has changed since the look.
    fn name(&mut self, newest: &Newest<'_>, seq: u64, revision: u64) -> Change {
        if newest.revision != revision {
            return self.found(Found::Changed);
        }
        let mut snapshot = match newest.stored {
            Stored::Run(snapshot) => snapshot.clone(),
            _ => self.job.pending_snapshot(self.now),
        };
        if self.is_held(&snapshot) {
            snapshot.lost_attempts = Some(self.lost(&snapshot));
        }
        if let Some(delivery) = &mut snapshot.delivery {
            delivery.released = true;
        }
        snapshot.job_seq = Some(seq);
        snapshot.updated_at = Some(self.now);
        self.verdict = Found::Of(End::Requeued(seq));
        Change::Put(Box::new(snapshot))
    }

    fn end(&mut self, snapshot: &RunSnapshot, status: RunStatus, error: Option<String>) -> Change {
        let mut snapshot = snapshot.clone();
        snapshot.lost_attempts = match status {
            RunStatus::Failed if self.is_held(&snapshot) => Some(self.lost(&snapshot)),
            _ => snapshot.lost_attempts,
        };
        snapshot.finish(status, error.clone(), self.now);
        self.verdict = Found::Of(End::Ended(status, error));
        Change::Put(Box::new(snapshot))
    }

    fn found(&mut self, found: Found) -> Change {
        self.verdict = found;
        Change::Leave
    }

    /// Attempts that were lost, with the one that holds the snapshot.
    fn lost(&self, snapshot: &RunSnapshot) -> u64 {
        lost_attempts(self.job, snapshot) + u64::from(self.is_held(snapshot))
    }

    /// Whether the snapshot is held by an attempt that has not given the job back: its worker has died, or is
    /// away for longer than the server waits.
    fn is_held(&self, snapshot: &RunSnapshot) -> bool {
        match &snapshot.delivery {
            Some(delivery) if delivery.released => false,
            // The delivery in hand is the newest one.
            Some(delivery) => match self.reason {
                Reason::InHand { num_delivered: ours } => {
                    stream_seq(delivery) != Some(self.seq) || num_delivered(delivery) != Some(ours)
                }
                Reason::Exhausted | Reason::Stuck => true,
            },
            None => is_foreign(snapshot),
        }
    }

    /// Whether a later delivery of this very message has been claimed.
    fn is_stale(&self, snapshot: &RunSnapshot) -> bool {
        let Reason::InHand { num_delivered: ours } = self.reason else { return false };
        is_superseded(snapshot, self.seq, ours)
    }
}

impl Protocol for Requeue<'_> {
    type End = End;

    fn next(&mut self) -> Step<End> {
        Step::Ask(match &self.state {
            State::Look | State::Name { .. } => Ask::Edit,
            State::Other(seq) | State::IsThere { seq, .. } => Ask::Find(*seq),
            State::Publish { id, revision, lost } => {
                Ask::Publish { id: id.clone(), revision: *revision, lost: *lost }
            }
            State::Drop(_) => match self.reason {
                Reason::InHand { .. } => Ask::Settle(Verdict::Ack),
                Reason::Exhausted | Reason::Stuck => Ask::Remove(self.seq),
            },
            State::Finished(end) => return Step::End(end.clone()),
        })
    }

    fn edit(&mut self, newest: &Newest<'_>) -> Change {
        match self.state {
            State::Name { seq, revision } => self.name(newest, seq, revision),
            _ => self.look(newest),
        }
    }

    fn answered(&mut self, answer: Answer) {
        let state = std::mem::replace(&mut self.state, State::Finished(End::Changed));
        self.state = match (state, answer) {
            (State::Look | State::Name { .. }, _) => {
                match std::mem::replace(&mut self.verdict, Found::Nothing) {
                    Found::Due(revision, lost) => {
                        State::Publish { id: format!("{}/{revision}", self.job.run_id), revision, lost }
                    }
                    Found::Other(seq) => State::Other(seq),
                    Found::Of(end) => State::Drop(end),
                    Found::Changed | Found::Nothing => State::Finished(End::Changed),
                    Found::Foreign(revision) => State::Finished(End::Foreign(revision)),
                }
            }
            (State::Other(_), Answer::Found(true)) => State::Drop(End::Dropped),
            (State::Other(seq), _) => {
                self.gone = Some(seq);
                State::Look
            }
            // This very message was published at this revision, by one who has not named it: it is no other
            // one.
            (State::Publish { id, revision, lost }, Answer::Published { seq, duplicate: true })
                if seq == self.seq =>
            {
                State::Publish { id: format!("{id}-{seq}"), revision, lost }
            }
            (State::Publish { id, revision, lost }, Answer::Published { seq, duplicate: true }) => {
                State::IsThere { id, seq, revision, lost }
            }
            (State::Publish { revision, .. }, Answer::Published { seq, .. }) => State::Name { seq, revision },
            (State::IsThere { seq, revision, .. }, Answer::Found(true)) => State::Name { seq, revision },
            // Somebody has taken it out by hand: the id is used up.
            (State::IsThere { id, seq, revision, lost }, _) => {
                State::Publish { id: format!("{id}-{seq}"), revision, lost }
            }
            (State::Drop(end), _) => State::Finished(end),
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::{delivery, held, job};

    /// Answers what is asked until the snapshot is written; what was published, and where that ended.
    fn requeue(job: &Job, seq: u64, stored: &RunSnapshot, published: &[Answer]) -> (Vec<String>, End) {
        let mut step = Requeue::new(job, seq, Reason::Stuck, Limits::new(20, Some(20)), 100.0);
        let (mut ids, mut answers) = (Vec::new(), published.iter());
        loop {
            let answer = match step.next() {
                Step::End(end) => return (ids, end),
                Step::Ask(Ask::Edit) => {
                    step.edit(&Newest { revision: 7, stored: Stored::Run(stored) });
                    Answer::Edited(None)
                }
                Step::Ask(Ask::Publish { id, .. }) => {
                    ids.push(id);
                    *answers.next().unwrap()
                }
                Step::Ask(Ask::Find(_)) => Answer::Found(true),
                Step::Ask(Ask::Remove(removed)) => {
                    assert_eq!(removed, seq);
                    Answer::Done
                }
                Step::Ask(ask) => panic!("{ask:?}"),
            };
            step.answered(answer);
        }
    }

    #[test]
    fn a_message_that_was_published_anew_and_is_stuck_is_not_its_own_successor() {
        let unnamed = Job { requeued_at_revision: Some(7), ..job() };
        let duplicate = Answer::Published { seq: 5, duplicate: true };
        let (ids, end) = requeue(
            &unnamed,
            5,
            &held(delivery(3, 1)),
            &[duplicate, Answer::Published { seq: 6, duplicate: false }],
        );
        assert_eq!((ids, end), (vec!["r/7".to_owned(), "r/7-5".to_owned()], End::Requeued(6)));
        // Of an older message the one that is there already is the successor.
        let (ids, end) = requeue(&job(), 3, &held(delivery(3, 1)), &[duplicate]);
        assert_eq!((ids, end), (vec!["r/7".to_owned()], End::Requeued(5)));
    }

    #[test]
    fn a_job_in_hand_is_not_taken_from_a_python_worker_that_has_just_written() {
        let (job, mut python) = (job(), job().pending_snapshot(1.0));
        python.status = RunStatus::Running;
        let requeue = |silent: Option<u64>| {
            let reason = Reason::InHand { num_delivered: 19 };
            let mut step = Requeue::new(&job, 5, reason, Limits::new(20, Some(20)), 100.0).silent(silent);
            step.edit(&Newest { revision: 7, stored: Stored::Run(&python) });
            step.answered(Answer::Edited(None));
            step.next()
        };
        assert!(matches!(requeue(None), Step::End(End::Foreign(7))));
        assert!(matches!(requeue(Some(7)), Step::Ask(Ask::Publish { lost: 1, .. })));
    }
}
