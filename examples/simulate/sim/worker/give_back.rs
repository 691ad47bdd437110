//! Gives a job back.

use std::time::Duration;

use pyoco_server::delivery::give_back::{self, GiveBack};

use super::{Doing, GivesBack, InHand, STORE_DEADLINE, Worker};
use crate::sim::jetstream::Millis;
use crate::sim::net::{Going, Net, Progress, Trouble, job};

impl Worker {
    /// `acks`: the deliveries by which the snapshot may name this worker. Without any, trouble is not waited
    /// out.
    pub(super) fn giving_back(&self, net: &Net, acks: Vec<String>, delay: Duration) -> Doing {
        let give_up = net.now + STORE_DEADLINE;
        Doing::GivesBack(Box::new(GivesBack { acks, delay, step: None, give_up }))
    }

    fn release(net: &Net, held: &InHand, acks: &[String], delay: Duration) -> Going<GiveBack<'static>> {
        let InHand { message, delivery, .. } = held;
        let numbers = (delivery.seq, delivery.num);
        let acks = acks.to_vec();
        let step = GiveBack::new(job(*message), acks, numbers, delay, Self::limits(), net.seconds());
        Going::new(step.may_be_stale(held.may_be_stale(net.now)), message.0, Some(*delivery))
    }

    pub(super) fn give_back(
        &mut self,
        net: &mut Net,
        held: &mut InHand,
        mut gives: Box<GivesBack>,
        at: Millis,
    ) -> Option<(Millis, Doing)> {
        let run = held.message.0;
        let begun = gives.step.take();
        let mut step = begun.unwrap_or_else(|| Self::release(net, held, &gives.acks, gives.delay));
        match step.step(net, self.actor) {
            Progress::Going => {
                gives.step = Some(step);
                Some((at, Doing::GivesBack(gives)))
            }
            Progress::End(give_back::End::Changed) => Some((at, Doing::GivesBack(gives))),
            Progress::End(end) => {
                net.tell(|| format!("w{} has given r{run} back: {end:?}", self.index));
                None
            }
            Progress::Trouble(Trouble::Unknown) if step.protocol.may_be_given_back() => None,
            Progress::Trouble(_) if gives.acks.is_empty() => None,
            Progress::Trouble(_) if net.now >= gives.give_up || self.is_hard_stop(net.now) => {
                net.checks.all_go(&gives.acks);
                None
            }
            Progress::Trouble(trouble) => {
                self.keep_alive(net, held);
                Some((net.now + Self::blocked(trouble) + 1_000, Doing::GivesBack(gives)))
            }
        }
    }
}
