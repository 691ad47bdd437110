//! A worker of the Python side, as far as the protocol meets it: it knows nothing of deliveries, writes a
//! snapshot of its own making, and gives a job back after two seconds when NATS is in trouble.

use std::time::Duration;

use pyoco_server::model::run::{RunSnapshot, RunStatus};

use super::jetstream::{Delivery, Millis};
use super::net::{Arrival, Net, RUN_IDS, Writer};

const HEARTBEAT: Millis = 1_000;
const PROGRESS_INTERVAL: Millis = 10_000;
const TROUBLE_DELAY: Duration = Duration::from_secs(2);
const WAIT: Millis = 5_000;

pub struct Foreign {
    actor: usize,
    index: usize,
    job: Option<Held>,
}

struct Held {
    run: usize,
    delivery: Delivery,
    /// The snapshot as this worker has written it last, and its revision; `None`: it has not begun.
    written: Option<(u64, RunSnapshot)>,
    ends_at: Millis,
    next_progress: Millis,
    stored: bool,
}

impl Foreign {
    pub fn new(actor: usize, index: usize) -> Foreign {
        Foreign { actor, index, job: None }
    }

    pub fn die(&mut self, net: &mut Net, with_machine: bool) {
        if let Some(held) = self.job.take() {
            net.checks.foreign_goes(held.run);
            net.checks.ends(held.run, (self.index, 0));
        }
        net.disconnect(self.index, with_machine);
    }

    pub fn step(&mut self, net: &mut Net) -> Millis {
        let Some(mut held) = self.job.take() else { return self.pull(net) };
        if net.now >= held.next_progress {
            let _ = net.in_progress(self.actor, held.delivery.seq);
            held.next_progress = net.now + PROGRESS_INTERVAL;
        }
        if self.advance(net, &mut held).is_none() {
            net.checks.ends(held.run, (self.index, 0));
            return 1;
        }
        let pause = if held.stored { 1 } else { HEARTBEAT.min(held.ends_at.saturating_sub(net.now)).max(1) };
        self.job = Some(held);
        pause
    }

    fn pull(&mut self, net: &mut Net) -> Millis {
        let me = (self.index, net.connections[self.index]);
        if let Some(Arrival { delivery, message: (run, _), .. }) = net.inboxes[self.index].pop_front() {
            net.tell(|| format!("the Python worker gets r{run} by {delivery:?}"));
            let (now, written) = (net.now, None);
            self.job = Some(Held { run, delivery, written, ends_at: now, next_progress: now, stored: false });
            return 1 + net.random.within(0..20);
        }
        if net.queue.asked_by(me) == 0 {
            let _ = net.ask(self.actor, false, |net| net.queue.pull(me, 1, net.now + WAIT));
        }
        200 + net.random.within(0..800)
    }

    /// `None`: it is done with the job.
    fn advance(&mut self, net: &mut Net, held: &mut Held) -> Option<()> {
        let (run, seq) = (held.run, held.delivery.seq);
        if held.stored {
            let _ = net.ask(self.actor, false, |net| net.queue.ack(net.now, seq));
            return None;
        }
        let newest = match net.read(self.actor, run) {
            Ok(newest) => newest,
            Err(_) => return self.give_back(net, held),
        };
        let (revision, snapshot) = newest.unwrap_or((0, None));
        let is_over = snapshot.as_ref().is_none_or(|snapshot| snapshot.status.is_terminal());
        let is_lost = held.written.is_some()
            && snapshot.as_ref().is_none_or(|theirs| theirs.delivery.is_some() || theirs.job_seq.is_some());
        if is_lost {
            return None;
        }
        if is_over {
            held.stored = true;
            return Some(());
        }
        let now = net.seconds();
        let mut next = RunSnapshot::pending(RUN_IDS[run].into(), "main".into(), "default".into(), now);
        // Later ones have none.
        let is_first = held.written.is_none();
        next.worker_id = is_first.then(|| super::worker::WORKER_IDS[self.index].to_owned());
        next.status = RunStatus::Running;
        let is_cancelled = snapshot.is_some_and(|theirs| theirs.status == RunStatus::Cancelling);
        let ends = is_cancelled || held.written.is_some() && net.now >= held.ends_at;
        if ends {
            let status = if is_cancelled { RunStatus::Cancelled } else { RunStatus::Completed };
            next.finish(status, None, now);
        }
        match net.write(self.actor, run, revision, Some(next.clone()), Writer::Foreign) {
            Ok(Some(revision)) => {
                if held.written.is_none() && !ends {
                    net.tell(|| format!("the Python worker executes r{run}"));
                    net.checks.begins(net.now, run, (self.index, 0), true);
                    held.ends_at = net.now + net.random.within(100..8_000);
                }
                held.stored = ends;
                held.written = Some((revision, next));
                Some(())
            }
            Ok(None) => Some(()),
            Err(_) => self.give_back(net, held),
        }
    }

    /// It does not say so in the snapshot.
    fn give_back(&mut self, net: &mut Net, held: &Held) -> Option<()> {
        net.checks.foreign_goes(held.run);
        let _ = net.nak(self.actor, held.delivery.seq, TROUBLE_DELAY);
        None
    }
}
