//! Executes a run, records it, and stores how it ends.

use std::time::Duration;

use pyoco_server::delivery::owner::{self, Conflict};
use pyoco_server::delivery::{Newest, Stored};
use pyoco_server::model::run::{RunSnapshot, RunStatus};

use super::{
    Attempt, CANCEL_GRACE, Doing, HEARTBEAT, InHand, LOST_NATS, PROGRESS_INTERVAL, PROGRESS_RETRY,
    STORE_DEADLINE, STORE_RETRY, TROUBLE_DELAY, Worker, ack,
};
use crate::sim::jetstream::Millis;
use crate::sim::net::{Net, RUNS, TOO_MANY_TASKS, Trouble, Writer};

impl Worker {
    pub(super) fn executing(
        &self,
        net: &mut Net,
        place: usize,
        run: usize,
        snapshot: Box<RunSnapshot>,
        revision: u64,
    ) -> Doing {
        net.tell(|| format!("w{} executes r{run} in attempt {:?}", self.index, snapshot.attempt));
        let newest = net.runs.newest(run).and_then(|(_, snapshot)| snapshot.as_ref());
        let is_owner = newest.is_some_and(|newest| newest.delivery == snapshot.delivery);
        // What had arrived before it stood still may be a later delivery than that of whoever has begun
        // since; that one finds out with its next heartbeat.
        let takes_over = is_owner && net.now >= self.stale_until;
        net.checks.begins(net.now, run, (self.index, place), takes_over);
        let is_long = net.has_long_run && run == 0;
        let ends_at = net.now + net.random.within(if is_long { 250_000..300_000 } else { 100..8_000 });
        Doing::Executes(Box::new(Attempt {
            acks: snapshot.delivery.iter().map(|delivery| delivery.ack.clone()).collect(),
            snapshot: *snapshot,
            revision,
            ends_at,
            next_write: net.now + HEARTBEAT,
            next_progress: net.now,
            last_contact: net.now,
            is_executing: true,
            lapses_at: None,
            is_interrupted: false,
            is_cancelled: false,
            stored: false,
            conflict: false,
            give_up: Millis::MAX,
        }))
    }

    pub(super) fn attempt(
        &mut self,
        net: &mut Net,
        place: usize,
        held: &mut InHand,
        mut attempt: Box<Attempt>,
        at: Millis,
    ) -> Option<(Millis, Doing)> {
        let run = held.message.0;
        while let Some(again) = held.adopt(net.now) {
            attempt.next_progress = net.now;
            attempt.acks.push(ack(again));
            if !attempt.snapshot.status.is_terminal() {
                attempt.snapshot.attempt = Some(attempt.snapshot.attempt.unwrap_or(0) + 1);
                attempt.snapshot.delivery = Some(self.delivery(again));
                attempt.next_write = net.now;
            }
        }
        if attempt.is_executing {
            let is_silent = net.now >= attempt.last_contact + LOST_NATS && self.kind.stops_without_nats;
            let (why, delay) = match () {
                () if attempt.is_interrupted => ("was interrupted", Duration::ZERO),
                () if self.is_hard_stop(net.now) => ("is stopped", Duration::ZERO),
                () if is_silent => ("has lost NATS", TROUBLE_DELAY),
                () => ("", Duration::ZERO),
            };
            if !why.is_empty() {
                net.tell(|| format!("w{} {why} and ends r{run}", self.index));
                net.checks.ends(run, (self.index, place));
                return Some((at, self.giving_back(net, attempt.acks, delay)));
            }
            if attempt.snapshot.status == RunStatus::Cancelling && !attempt.is_cancelled {
                attempt.is_cancelled = true;
                let takes = if net.random.one_in(8) { CANCEL_GRACE } else { net.random.within(10..3_000) };
                attempt.ends_at = attempt.ends_at.min(net.now + takes);
            }
        }
        if !attempt.is_executing && !attempt.stored {
            self.refresh(net, held);
        } else if net.now >= attempt.next_progress {
            let is_confirmed = self.keep_alive(net, held);
            attempt.next_progress = net.now + if is_confirmed { PROGRESS_INTERVAL } else { PROGRESS_RETRY };
        }
        if attempt.is_executing && net.now >= attempt.ends_at {
            net.checks.ends(run, (self.index, place));
            finish(net, run, &mut attempt);
        }
        if attempt.stored {
            // Lost: the job comes once more, finds its run ended and is acknowledged then.
            let _ = net.ask(self.actor, false, |net| net.queue.ack(net.now, held.delivery.seq));
            net.tell(|| format!("w{} has ended r{run}", self.index));
            return None;
        }
        let now = net.now;
        let due = |attempt: &Attempt| match attempt.is_executing {
            true => attempt.next_write.min(attempt.ends_at).max(now + 1),
            false => attempt.next_write.max(now + 1),
        };
        if net.now < attempt.next_write {
            return Some((due(&attempt), Doing::Executes(attempt)));
        }
        let is_free_at = self.record(net, place, held, &mut attempt)?;
        if !attempt.is_executing && !attempt.stored && net.now >= attempt.give_up
            || self.is_late(net, &attempt)
        {
            let is_stopping = self.is_hard_stop(net.now);
            if !is_stopping {
                // It costs an attempt: this end may be one that can be stored nowhere.
                net.checks.all_go(&attempt.acks);
            }
            let acks = if is_stopping { attempt.acks } else { Vec::new() };
            return Some((at, self.giving_back(net, acks, TROUBLE_DELAY)));
        }
        let due = due(&attempt).max(is_free_at);
        Some((due, Doing::Executes(attempt)))
    }

    /// Whether the worker has no time left to store an end.
    pub(super) fn is_late(&self, net: &Net, attempt: &Attempt) -> bool {
        !attempt.is_executing && !attempt.stored && !attempt.conflict && self.is_hard_stop(net.now)
    }

    /// Writes the snapshot of an attempt: a heartbeat, or how it ended. When the slot may go on; `None`: the
    /// run is lost.
    pub(super) fn record(
        &mut self,
        net: &mut Net,
        place: usize,
        held: &InHand,
        attempt: &mut Attempt,
    ) -> Option<Millis> {
        let (run, now, seconds) = (held.message.0, net.now, net.seconds());
        let is_end = !attempt.is_executing;
        let failed = |worker: &mut Worker, net: &mut Net, attempt: &mut Attempt, trouble: Trouble| {
            net.tell(|| format!("w{} cannot write r{run}: {trouble:?}", worker.index));
            worker.note(net, trouble);
            attempt.next_write = now + STORE_RETRY;
            Some(now + Self::blocked(trouble))
        };
        if attempt.conflict {
            let newest = match net.read(self.actor, run) {
                Ok(newest) => newest,
                Err(trouble) => return failed(self, net, attempt, trouble),
            };
            let revision = newest.as_ref().map_or(0, |(revision, _)| *revision);
            let stored = match &newest {
                None => Stored::Missing,
                Some((_, None)) => Stored::Deleted,
                Some((_, Some(snapshot))) => Stored::Run(snapshot),
            };
            let newest = Newest { revision, stored };
            match owner::on_conflict(&mut attempt.snapshot, &attempt.acks, &newest) {
                Conflict::Lost(why) => {
                    net.tell(|| format!("w{} has lost r{run}: {why}", self.index));
                    net.checks.ends(run, (self.index, place));
                    return None;
                }
                Conflict::Stored => attempt.stored = is_end,
                Conflict::Again => {}
            }
            attempt.revision = revision;
            attempt.conflict = false;
            return Some(now);
        }
        if is_end {
            while attempt.snapshot.tasks.len() >= TOO_MANY_TASKS
                && owner::shrink(&mut attempt.snapshot, seconds)
            {}
        } else {
            attempt.snapshot.heartbeat_at = Some(seconds);
        }
        // What no message can hold is refused each time.
        let fits = attempt.snapshot.tasks.len() < TOO_MANY_TASKS;
        let snapshot = attempt.snapshot.clone();
        let written = match fits {
            true => {
                net.write(self.actor, run, attempt.revision, Some(snapshot), Writer::Owner(&attempt.acks))
            }
            false => Err(Trouble::Full),
        };
        match written {
            Ok(Some(revision)) => {
                (attempt.revision, attempt.last_contact) = (revision, now);
                attempt.next_write = now + HEARTBEAT;
                if is_end {
                    (attempt.stored, attempt.next_write) = (true, now);
                }
                Some(now)
            }
            Ok(None) => {
                attempt.conflict = true;
                Some(now)
            }
            Err(trouble) => {
                // An unknown outcome is read back before the next try.
                attempt.conflict = !trouble.is_answer();
                failed(self, net, attempt, trouble)
            }
        }
    }
}

/// The flow has ended.
pub(super) fn finish(net: &mut Net, run: usize, attempt: &mut Attempt) {
    attempt.is_executing = false;
    attempt.next_write = net.now;
    attempt.give_up = net.now + STORE_DEADLINE;
    // The last run has more tasks than a message can hold.
    if run + 1 == RUNS {
        for task in 0..TOO_MANY_TASKS {
            attempt.snapshot.tasks.insert(format!("t{task}"), "SUCCEEDED".into());
        }
    }
    // A flow may complete in spite of a cancel.
    let status = match attempt.snapshot.status {
        RunStatus::Cancelling if !net.random.one_in(4) => RunStatus::Cancelled,
        _ => RunStatus::Completed,
    };
    attempt.snapshot.finish(status, None, net.seconds());
}
