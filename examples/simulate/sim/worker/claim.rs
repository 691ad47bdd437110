//! Claims the run of a job.

use std::time::Duration;

use pyoco_server::delivery;
use pyoco_server::delivery::claim::{self, Claim, Claimant};
use pyoco_server::model::run::Delivery;

use super::{
    CHANGED_PAUSE, CLAIM_PATIENCE, Claims, Doing, HEARTBEAT, InHand, LEASE, MAX_SLOW_CLAIMS, Slot,
    TROUBLE_DELAY, WORKER_IDS, Worker, ack,
};
use crate::sim::jetstream::{self, Millis};
use crate::sim::net::{Arrival, Going, Message, Net, Progress, Trouble, job};

impl Worker {
    pub(super) fn begin_claim(&mut self, net: &mut Net, place: usize, arrival: Arrival) {
        let Arrival { message, delivery } = arrival;
        let acks = vec![ack(delivery)];
        let step = self.claiming(net, message, delivery, None);
        let give_up = net.now + CLAIM_PATIENCE;
        let claims =
            Claims { acks, step, give_up, may_be_stored: false, began: net.now, slow: 0, silent: None };
        self.slots[place] = Slot {
            at: net.now + 1 + net.random.within(0..20),
            held: Some(InHand::new(message, delivery, net.now)),
            doing: Doing::Claims(Box::new(claims)),
        };
    }

    pub(super) fn delivery(&self, delivery: jetstream::Delivery) -> Delivery {
        Delivery::new(ack(delivery), format!("w{}-{}", self.index, self.instance), 1.0)
    }

    pub(super) fn claiming(
        &self,
        net: &Net,
        message: Message,
        delivery: jetstream::Delivery,
        silent: Option<u64>,
    ) -> Going<Claim<'static>> {
        let claimant = Claimant {
            worker_id: WORKER_IDS[self.index],
            stream_seq: delivery.seq,
            num_delivered: delivery.num,
            delivery: self.delivery(delivery),
            now: net.seconds(),
        };
        let claim = Claim::new(job(message), claimant, Self::limits()).silent(silent);
        Going::new(claim, message.0, Some(delivery))
    }

    /// Claims anew, for the newest delivery.
    pub(super) fn claim_again(&self, net: &mut Net, held: &mut InHand, claims: &mut Claims) {
        claims.began = net.now;
        while let Some(again) = held.adopt(net.now) {
            claims.acks.push(ack(again));
        }
        if !held.may_be_stale(net.now) {
            self.refresh(net, held);
        }
        claims.step = self.claiming(net, held.message, held.delivery, claims.silent);
    }

    pub(super) fn claim(
        &mut self,
        net: &mut Net,
        place: usize,
        held: &mut InHand,
        mut claims: Box<Claims>,
        at: Millis,
    ) -> Option<(Millis, Doing)> {
        let run = held.message.0;
        let hold = |claims: Claims| if claims.may_be_stored { claims.acks } else { Vec::new() };
        if held.may_be_stale(net.now) {
            net.tell(|| format!("w{} leaves r{run} to others", self.index));
            return Some((at, self.giving_back(net, hold(*claims), Duration::ZERO)));
        }
        let progress = claims.step.step(net, self.actor);
        claims.may_be_stored |= claims.step.protocol.may_be_stored();
        match progress {
            Progress::Going => Some((at, Doing::Claims(claims))),
            Progress::Trouble(Trouble::Unknown) if claims.step.protocol.may_be_settled() => None,
            Progress::Trouble(trouble) => {
                net.tell(|| format!("w{} cannot claim r{run}: {trouble:?}", self.index));
                self.note(net, trouble);
                if net.now >= claims.give_up || self.drain.is_some() {
                    return Some((at, self.giving_back(net, hold(*claims), TROUBLE_DELAY)));
                }
                self.claim_again(net, held, &mut claims);
                let pause = Self::blocked(trouble) + 250 + net.random.within(0..1_750);
                Some((net.now + pause, Doing::Claims(claims)))
            }
            Progress::End(claim::End::Execute(..))
                if net.now >= claims.began + LEASE && claims.slow < MAX_SLOW_CLAIMS =>
            {
                claims.slow += 1;
                claims.may_be_stored = true;
                self.claim_again(net, held, &mut claims);
                Some((net.now + 1, Doing::Claims(claims)))
            }
            Progress::End(claim::End::Execute(snapshot, revision)) => {
                Some((at, self.executing(net, place, run, snapshot, revision)))
            }
            Progress::End(claim::End::Foreign(revision)) => {
                if self.drain.is_some() {
                    return Some((at, self.giving_back(net, Vec::new(), Duration::ZERO)));
                }
                claims.silent = Some(revision);
                self.claim_again(net, held, &mut claims);
                Some((net.now + foreign_silence(), Doing::Claims(claims)))
            }
            Progress::End(claim::End::Changed) => {
                self.claim_again(net, held, &mut claims);
                Some((net.now + CHANGED_PAUSE, Doing::Claims(claims)))
            }
            Progress::End(end) => {
                net.tell(|| format!("w{} is done with r{run}: {end:?}", self.index));
                None
            }
        }
    }
}

pub(super) fn foreign_silence() -> Millis {
    delivery::foreign_silence(Duration::from_millis(HEARTBEAT)).as_millis() as Millis
}
