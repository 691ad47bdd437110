//! Asks for jobs, and takes or refuses what has come; takes care of what NATS delivers no more.

use std::time::Duration;

use pyoco_server::delivery::give_back::no_slot_delay;
use pyoco_server::delivery::requeue::{self, Reason, Requeue};

use super::claim::foreign_silence;
use super::{MANY_WAIT, MAX_CHECK_PAUSE, Slot, WAIT, Worker};
use crate::sim::net::{Arrival, Going, Net, Progress, job};

impl Worker {
    pub(super) fn pull(&mut self, net: &mut Net) {
        self.pull_at = net.now + 100 + net.random.within(0..900);
        if let Some(arrival) = net.inboxes[self.index].pop_front() {
            self.pull_at = net.now + 1 + net.random.within(0..20);
            return self.take(net, arrival);
        }
        self.sweep(net);
        if self.drain.is_some() {
            return;
        }
        if let Some((until, pause)) = self.unwell {
            if net.now < until {
                return;
            }
            if !net.test_write(self.actor) {
                self.unwell = Some((net.now + pause, (pause * 2).min(MAX_CHECK_PAUSE)));
                return;
            }
            self.unwell = None;
        }
        if net.now < self.stale_until {
            return;
        }
        let free = self.slots.iter().filter(|slot| slot.held.is_none()).count();
        let me = (self.index, net.connections[self.index]);
        let wanted = if free > 0 && self.kind.has_tags { free + 1 } else { free };
        let more = wanted.saturating_sub(net.queue.asked_by(me));
        if more > 0 {
            let wait = if self.kind.has_tags { MANY_WAIT } else { WAIT };
            let until = net.now + wait;
            let _ = net.ask(self.actor, false, |net| net.queue.pull(me, more, until));
        }
    }

    /// Takes a job that has come.
    pub(super) fn take(&mut self, net: &mut Net, arrival: Arrival) {
        if net.now < self.stale_until {
            return self.refuse(net, arrival);
        }
        let Arrival { message, delivery } = arrival;
        let is_mine = |slot: &Slot| {
            let held = slot.held.as_ref();
            held.is_some_and(|held| held.message.0 == message.0 && held.delivery.seq == delivery.seq)
        };
        let mine = self.slots.iter().position(is_mine);
        let free = self.slots.iter().position(|slot| slot.held.is_none());
        let place = free.filter(|_| self.unwell.is_none() && self.drain.is_none());
        let place = mine.or(place);
        let Some(place) = place else { return self.refuse(net, arrival) };
        let slot = &mut self.slots[place];
        if let Some(held) = &mut slot.held {
            net.tell(|| format!("w{} has r{} already", self.index, message.0));
            held.again.push_back(arrival);
            slot.at = slot.at.min(net.now + 1);
            return;
        }
        self.begin_claim(net, place, arrival);
    }

    /// Gives back what it has no room for.
    pub(super) fn refuse(&mut self, net: &mut Net, Arrival { message, delivery }: Arrival) {
        if net.now < self.stale_until {
            return net.tell(|| format!("w{} stood still and leaves r{}", self.index, message.0));
        }
        net.tell(|| format!("w{} has no room for r{}", self.index, message.0));
        let delay = no_slot_delay(delivery.num, Duration::from_millis(MANY_WAIT));
        let _ = net.nak(self.actor, delivery.seq, delay);
    }

    /// Takes care of messages that are delivered no more, as far as advisories tell of them.
    pub(super) fn sweep(&mut self, net: &mut Net) {
        if let Some((seq, mut step)) = self.sweep.take() {
            self.pull_at = net.now + 1 + net.random.within(0..20);
            match step.step(net, self.actor) {
                Progress::Going => self.sweep = Some((seq, step)),
                Progress::End(end) => {
                    net.tell(|| format!("w{} swept the message {seq}: {end:?}", self.index));
                    if let requeue::End::Foreign(revision) = end
                        && self.watched.is_none_or(|(of, at, _)| (of, at) != (seq, revision))
                    {
                        self.watched = Some((seq, revision, net.now));
                    }
                    if matches!(end, requeue::End::Changed | requeue::End::Foreign(_)) {
                        net.advise(seq);
                    }
                }
                // It comes again.
                Progress::Trouble(_) => net.advise(seq),
            }
            return;
        }
        let Some(seq) = net.advisory(self.actor) else { return };
        let Some(message) = net.queue.get(seq).copied() else { return };
        let silent = self.watched.filter(|(of, _, since)| *of == seq && net.now >= since + foreign_silence());
        let step = Requeue::new(job(message), seq, Reason::Exhausted, Self::limits(), net.seconds())
            .silent(silent.map(|(_, revision, _)| revision));
        self.sweep = Some((seq, Going::new(step, message.0, None)));
    }
}
