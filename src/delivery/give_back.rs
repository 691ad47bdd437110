//! Gives a job back without counting it as the death of a worker.
//!
//! The order: look at the snapshot → say there that the delivery is released, if it names this worker → NAK.
//! Not said means not given back: the next worker would take this one for dead. Not looked at means no NAK:
//! of a job that has come again meanwhile it would rob the worker that executes it. For the same reason a NAK
//! whose answer was missed is not repeated ([`GiveBack::may_be_given_back`]).

use std::time::Duration;

use super::mends::{self, Mend};
use super::requeue::{self, Reason, Requeue};
use super::{
    Answer, Ask, Change, Limits, Newest, Protocol, Step, Stored, Verdict, is_foreign, is_superseded,
    lost_attempts,
};
use crate::model::job::Job;
use crate::model::run::{Delivery, RunSnapshot};

/// When a job comes again that has found no free slot: at once, since it is another worker's then. Each time
/// costs it a delivery, so the next ones take longer, until every pull that was open has ended and it goes to
/// who asks anew. `pulls_last`: the lifetime of a pull.
pub fn no_slot_delay(num_delivered: u64, pulls_last: Duration) -> Duration {
    match num_delivered {
        ..=2 => Duration::ZERO,
        3 => pulls_last / 8,
        4 => pulls_last / 2,
        _ => pulls_last.saturating_add(Duration::from_millis(500)),
    }
}

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
    /// ACK subjects by which the snapshot may name this worker.
    ours: Vec<String>,
    /// Sequence of the message, and which delivery of it this is.
    numbers: (u64, u64),
    delay: Duration,
    limits: Limits,
    now: f64,
    /// Attempts of the run that were lost, as far as its snapshot was seen.
    lost: u64,
    state: State<'a>,
    found: Found,
    may_be_stale: bool,
}

/// What the look has found the run to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    /// Nobody has it: it goes back.
    Free,
    /// Another delivery has it.
    Lost,
    /// It comes again by itself, or a gateway gives it back, so a NAK would hit the next delivery.
    ComesAgain,
    /// A worker of the Python side executes it, perhaps by a later delivery.
    Foreign,
}

#[derive(Debug)]
enum State<'a> {
    Release,
    Requeue(Box<Requeue<'a>>),
    Nak,
    Finished(End),
}

impl<'a> GiveBack<'a> {
    /// The delivery in hand has these numbers; NATS is to wait for `delay`.
    pub fn new(
        job: &'a Job,
        ours: Vec<String>,
        numbers: (u64, u64),
        delay: Duration,
        limits: Limits,
        now: f64,
    ) -> Self {
        let (lost, state, found, may_be_stale) = (0, State::Release, Found::Free, false);
        GiveBack { job, ours, numbers, delay, limits, now, lost, state, found, may_be_stale }
    }

    /// The job was not kept alive for as long as NATS waits, so it may have been delivered again, to a worker
    /// that has not claimed it yet.
    pub fn may_be_stale(self, may_be_stale: bool) -> Self {
        GiveBack { may_be_stale, ..self }
    }

    /// Whether a step that has failed may have given the job back, if the answer to its last request was
    /// missed: another worker may have it, and has not claimed it yet. It is over then. Should NATS not have
    /// got the NAK, the job comes again after `ack_wait`.
    pub fn may_be_given_back(&self) -> bool {
        let may_be = match &self.state {
            State::Nak => true,
            State::Requeue(requeue) => requeue.may_be_settled(),
            State::Release | State::Finished(_) => false,
        };
        may_be && mends::is_in(Mend::OnlyHeldGoesBack)
    }

    fn release(&mut self, snapshot: &RunSnapshot) -> Change {
        self.lost = lost_attempts(self.job, snapshot);
        let held = snapshot.delivery.as_ref().filter(|held| self.ours.contains(&held.ack));
        self.found = self.find(snapshot, held);
        let is_ours = held.is_some_and(|held| !held.released);
        if self.found == Found::Lost || snapshot.status.is_terminal() || !is_ours {
            return Change::Leave;
        }
        let mut snapshot = Box::new(snapshot.clone());
        snapshot.updated_at = Some(self.now);
        if let Some(delivery) = &mut snapshot.delivery {
            delivery.released = true;
        }
        Change::Put(snapshot)
    }

    /// After the look.
    fn go_on(&self) -> State<'a> {
        let (stream_seq, num_delivered) = self.numbers;
        match self.found {
            Found::Lost => State::Finished(End::Lost),
            Found::ComesAgain => State::Finished(End::GivenBack),
            Found::Free | Found::Foreign if !self.limits.wants_requeue(num_delivered, self.lost) => {
                State::Nak
            }
            // It would take the message from a worker that may be well.
            Found::Foreign => State::Finished(End::Lost),
            Found::Free => {
                let reason = Reason::InHand { num_delivered };
                let requeue = Requeue::new(self.job, stream_seq, reason, self.limits, self.now);
                State::Requeue(Box::new(requeue))
            }
        }
    }

    /// `held`: the delivery of this worker that the snapshot names.
    fn find(&self, snapshot: &RunSnapshot, held: Option<&Delivery>) -> Found {
        let is_foreign = is_foreign(snapshot);
        // A snapshot that has named this worker was written over by one of the Python side.
        let is_taken = is_foreign && !self.ours.is_empty();
        let is_superseded = is_superseded(snapshot, self.numbers.0, self.numbers.1);
        match held {
            _ if (is_taken || is_superseded) && mends::is_in(Mend::OnlyHeldGoesBack) => Found::Lost,
            None if self.may_be_stale => Found::Lost,
            Some(held) if held.rescued || self.may_be_stale => Found::ComesAgain,
            _ if is_foreign => Found::Foreign,
            _ => Found::Free,
        }
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
                self.found = if self.may_be_stale { Found::Lost } else { Found::Free };
                Change::Leave
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        match &mut self.state {
            State::Requeue(requeue) => requeue.answered(answer),
            State::Release => self.state = self.go_on(),
            State::Nak => self.state = State::Finished(End::GivenBack),
            State::Finished(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::{delivery, held, job};

    /// What becomes of the snapshot when delivery 2 of message 5 is given back, and how that ends.
    fn give_back(stored: Stored<'_>) -> (Option<RunSnapshot>, End) {
        let job = job();
        let ours = vec![delivery(5, 2).ack];
        let mut step = GiveBack::new(&job, ours, (5, 2), Duration::ZERO, Limits::new(20, Some(20)), 100.0);
        assert!(matches!(step.next(), Step::Ask(Ask::Edit)));
        let written = match step.edit(&Newest { revision: 7, stored }) {
            Change::Put(snapshot) => Some(*snapshot),
            _ => None,
        };
        step.answered(Answer::Edited(written.as_ref().map(|_| 8)));
        if let Step::Ask(Ask::Settle(Verdict::Nak(_))) = step.next() {
            step.answered(Answer::Done);
        }
        match step.next() {
            Step::End(end) => (written, end),
            Step::Ask(ask) => panic!("{ask:?}"),
        }
    }

    #[test]
    fn only_a_delivery_that_nobody_has_taken_over_is_given_back() {
        let (written, end) = give_back(Stored::Run(&held(delivery(5, 2))));
        assert_eq!(end, End::GivenBack);
        assert!(written.unwrap().delivery.unwrap().released, "it is this worker's");
        // Of a worker that is dead: the next claim counts that.
        assert_eq!(give_back(Stored::Run(&held(delivery(5, 1)))), (None, End::GivenBack));
        assert_eq!(give_back(Stored::Missing), (None, End::GivenBack));
        assert_eq!(give_back(Stored::Run(&job().pending_snapshot(1.0))), (None, End::GivenBack));
        assert_eq!(give_back(Stored::Run(&held(delivery(5, 3)))), (None, End::Lost), "a NAK would rob it");
        let mut python = job().pending_snapshot(1.0);
        python.status = crate::model::run::RunStatus::Running;
        assert_eq!(give_back(Stored::Run(&python)), (None, End::Lost), "a Python worker has a later one");
        let mut released = held(delivery(5, 3));
        released.delivery.as_mut().unwrap().released = true;
        assert_eq!(give_back(Stored::Run(&released)), (None, End::Lost));
    }
}
