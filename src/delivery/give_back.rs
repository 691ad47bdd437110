//! Gives a job back without counting it as the death of a worker.
//!
//! The order: say in the snapshot that the delivery is released → NAK. Not said means not given back: the
//! next worker would take this one for dead.

use std::time::Duration;

use super::requeue::{self, Reason, Requeue};
use super::{Answer, Ask, Change, Limits, Newest, Protocol, Step, Stored, Verdict};
use crate::model::job::Job;
use crate::model::run::RunSnapshot;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// NATS delivers the job again.
    GivenBack,
    /// Another delivery has the run: there is nothing to give back.
    Lost,
    /// The run has changed in this moment: give back again.
    Changed,
}

#[derive(Debug)]
pub struct GiveBack<'a> {
    job: &'a Job,
    /// ACK subjects of the deliveries that this worker has had of the job.
    ours: Vec<String>,
    stream_seq: u64,
    num_delivered: u64,
    delay: Duration,
    limits: Limits,
    now: f64,
    /// Attempts of the run that were lost, as far as its snapshot was seen.
    lost: u64,
    state: State<'a>,
    is_lost: bool,
}

#[derive(Debug)]
enum State<'a> {
    Release,
    Requeue(Box<Requeue<'a>>),
    Nak,
    Finished(End),
}

impl<'a> GiveBack<'a> {
    /// The newest delivery is the last of `ours`, with these numbers; NATS is to wait for `delay`.
    pub fn new(
        job: &'a Job,
        ours: Vec<String>,
        (stream_seq, num_delivered): (u64, u64),
        delay: Duration,
        limits: Limits,
        now: f64,
    ) -> Self {
        let (lost, state, is_lost) = (0, State::Release, false);
        GiveBack { job, ours, stream_seq, num_delivered, delay, limits, now, lost, state, is_lost }
    }

    fn release(&mut self, snapshot: &RunSnapshot) -> Change {
        self.is_lost = false;
        self.lost = snapshot.lost_attempts.unwrap_or(0);
        let Some(held) = &snapshot.delivery else { return Change::Leave };
        if snapshot.status.is_terminal() || held.released {
            return Change::Leave;
        }
        if !self.ours.contains(&held.ack) {
            self.is_lost = true;
            return Change::Leave;
        }
        let mut snapshot = Box::new(snapshot.clone());
        snapshot.updated_at = Some(self.now);
        if let Some(delivery) = &mut snapshot.delivery {
            delivery.released = true;
        }
        Change::Put(snapshot)
    }
}

impl Protocol for GiveBack<'_> {
    type End = End;

    fn next(&mut self) -> Step<End> {
        match &mut self.state {
            State::Release => Step::Ask(Ask::Edit),
            State::Nak => Step::Ask(Ask::Settle(Verdict::Nak(self.delay))),
            State::Requeue(requeue) => match requeue.next() {
                Step::Ask(ask) => Step::Ask(ask),
                Step::End(requeue::End::Changed) => Step::End(End::Changed),
                Step::End(_) => Step::End(End::GivenBack),
            },
            State::Finished(end) => Step::End(*end),
        }
    }

    fn edit(&mut self, newest: &Newest<'_>) -> Change {
        match (&mut self.state, newest.stored) {
            (State::Requeue(requeue), _) => requeue.edit(newest),
            (_, Stored::Run(snapshot)) => self.release(snapshot),
            _ => {
                self.is_lost = false;
                Change::Leave
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        match &mut self.state {
            State::Requeue(requeue) => requeue.answered(answer),
            State::Release if self.is_lost => self.state = State::Finished(End::Lost),
            State::Release if self.limits.wants_requeue(self.num_delivered, self.lost) => {
                let reason = Reason::InHand { num_delivered: self.num_delivered };
                let requeue = Requeue::new(self.job, self.stream_seq, reason, self.limits, self.now);
                self.state = State::Requeue(Box::new(requeue));
            }
            State::Release => self.state = State::Nak,
            State::Nak => self.state = State::Finished(End::GivenBack),
            State::Finished(_) => {}
        }
    }
}
