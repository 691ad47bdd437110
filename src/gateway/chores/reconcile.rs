//! Compares the work queue with the snapshots, so that no run waits for a message that nobody delivers.
//!
//! A message is stuck when it is in the stream and neither waiting for a delivery nor in one. Its job is
//! published anew. A run is lost when its message is not in the stream. It is FAILED. What is asked for and
//! what follows from it is decided in [`crate::delivery::reconcile`].

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::rescue::Absence;
use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Bus, Kv, StoredJob, WorkQueue};
use crate::delivery::reconcile::missing::{self, Missing};
use crate::delivery::reconcile::stuck::{self, Stuck, Walked};
use crate::delivery::requeue::{End, Reason, Requeue};
use crate::delivery::undelivered::Undelivered;
use crate::delivery::{Limits, drive, reconcile};
use crate::gateway::view::runs::{Indexed, RunIndex};
use crate::model::dlq::DlqEntry;
use crate::model::error::Code;
use crate::model::job::Job;
use crate::model::{clock, json};

pub(super) const INTERVAL: Duration = reconcile::INTERVAL;

pub(super) struct Reconciler {
    runs: Kv,
    queue: WorkQueue,
    index: RunIndex,
    absence: Absence,
    limits: Limits,
    /// The moment that times are counted from.
    origin: Instant,
    /// When the last look began.
    began: Option<Instant>,
    /// Parts that NATS has refused something; they go on with the next look.
    paused: Vec<Part>,
    stuck: Stuck,
    missing: Missing,
    /// Runs that have lost their job, to be ended.
    lost: VecDeque<Indexed>,
    /// Whether it was logged that there are too many messages to find lost runs among them.
    told_full: bool,
}

/// What a look does, one request of each in turn, so that none waits for a long one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Stuck,
    Missing,
    Lost,
}

impl Reconciler {
    pub(super) fn new(bus: &Bus, index: RunIndex, absence: Absence) -> Reconciler {
        let (runs, queue) = (bus.runs().with_timeout(TIMEOUT), bus.queue().with_timeout(TIMEOUT));
        let limits = Limits::new(queue.max_deliver(), None);
        Reconciler {
            runs,
            queue,
            index,
            absence,
            limits,
            origin: Instant::now(),
            began: None,
            paused: Vec::new(),
            stuck: Stuck::default(),
            missing: Missing::default(),
            lost: VecDeque::new(),
            told_full: false,
        }
    }

    pub(super) fn look(&mut self, turn: &Turn<'_>) -> Next {
        if self.began.is_none_or(|began| began.elapsed() >= INTERVAL) {
            self.began = Some(Instant::now());
            self.paused.clear();
            if let Err(e) = self.begin() {
                log::debug!(error = e.to_string(); "cannot compare the queue with the runs");
                return Next::InTime;
            }
        }
        loop {
            let mut is_done = true;
            for part in [Part::Stuck, Part::Missing, Part::Lost] {
                is_done &= self.paused.contains(&part) || self.is_done(part);
            }
            if is_done {
                let since = self.began.map_or(Duration::ZERO, |began| began.elapsed());
                return Next::After(INTERVAL.saturating_sub(since));
            }
            if turn.is_over() {
                return Next::Again;
            }
        }
    }

    /// Makes the next request of a part; `true` when it has none.
    fn is_done(&mut self, part: Part) -> bool {
        let done = match part {
            Part::Stuck => self.find_stuck(),
            Part::Missing => self.find_missing(),
            Part::Lost => self.end_lost(),
        };
        done.unwrap_or_else(|e| {
            log::warn!(error = e.to_string(); "cannot compare the queue with the runs yet");
            match part {
                Part::Stuck => self.stuck.failed(),
                Part::Missing => self.missing.failed(),
                // The next look finds it again.
                Part::Lost => {}
            }
            if e.may_pass() {
                self.paused.push(part);
            }
            false
        })
    }

    fn begin(&mut self) -> bus::Result<()> {
        let now = Instant::now();
        let (overdue, live_since) = self.overdue(now);
        let Some(live_since) = live_since else { return Ok(()) };
        // The queue is looked into after the runs were seen: a message that is not there then was not there
        // before, or its run is not what it was any more and the write finds out.
        let contents = self.queue.contents()?;
        let tags: BTreeSet<&str> = overdue.iter().map(|run| run.summary.tag.as_str()).collect();
        self.missing.begin(self.since_origin(now), self.since_origin(live_since), &contents, tags);
        self.stuck.begin(&contents);
        Ok(())
    }

    /// Runs that were overdue at a time, as far as they have not been heard of since; and since when they can
    /// be heard of.
    fn overdue(&self, at: Instant) -> (Vec<Indexed>, Option<Instant>) {
        let (mut unfinished, live_since) = self.index.unfinished();
        if let Some(live_since) = live_since {
            unfinished.retain(|run| reconcile::wants_look(self.absence.facts(run, live_since, at)));
        }
        (unfinished, live_since)
    }

    fn since_origin(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.origin)
    }

    /// Makes one request; `true` when nothing is left to ask.
    fn find_stuck(&mut self) -> bus::Result<bool> {
        match self.stuck.next() {
            None => return Ok(true),
            Some(stuck::Ask::Figures(tag)) => self.stuck.figures(self.queue.deliveries(&tag)?),
            Some(stuck::Ask::Count(tag)) => self.stuck.count(self.queue.count(&tag)?),
            Some(stuck::Ask::Message { tag, from }) => {
                let found = self.queue.next_job(&tag, from)?;
                let walked = self.stuck.message(found.as_ref().map(|(seq, _)| *seq));
                match (walked, found) {
                    (Walked::Examine, Some((seq, message))) if self.unstick(seq, &message)? => {
                        self.stuck.mended();
                    }
                    (Walked::Over { tag, stuck }, _) if stuck > 0 => log::warn!(tag = tag.as_str(),
                        messages = stuck; "jobs are in the queue that NATS does not deliver"),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Whether the message was taken care of.
    fn unstick(&self, seq: u64, message: &StoredJob) -> bus::Result<bool> {
        let undelivered = Undelivered { runs: &self.runs, queue: &self.queue, seq, message };
        let publish = |tag: &str, entry| self.publish_dlq(tag, entry, &message.subject);
        let job = match Job::parse(&message.payload) {
            Ok(job) => job,
            Err(e) => return undelivered.discard(&e, publish).map(|()| true),
        };
        let (run, live_since) = self.index.get(&job.run_id);
        let Some(live_since) = live_since else { return Ok(false) };
        let now = Instant::now();
        let facts = run.as_ref().map(|run| self.absence.facts(run, live_since, now));
        if !reconcile::may_be_stuck(seq, facts) {
            return Ok(false);
        }
        let mut step = Requeue::new(&job, seq, Reason::Stuck, self.limits, clock::now());
        if let Some(run) = &run {
            step = step.decided_on(run.revision);
        }
        let end = undelivered.requeue(&job, step, |entry| self.index.wrote(entry), publish)?;
        if let End::Requeued(_) = end {
            log::warn!(run_id = job.run_id.as_str();
                "NATS does not deliver the job of a run; it was published anew");
        }
        Ok(end != End::Changed)
    }

    fn publish_dlq(&self, tag: &str, entry: DlqEntry, subject: &str) {
        let run_id = entry.run_id.clone().unwrap_or_default();
        let entry = DlqEntry { subject: Some(subject.to_owned()), ..entry };
        let published = json::to_wire(&entry).map_err(bus::Error::from);
        if let Err(e) = published.and_then(|payload| self.queue.publish_dlq(tag, &payload)) {
            log::warn!(run_id = run_id.as_str(), error = e.to_string(); "cannot publish a DLQ entry");
        }
    }

    /// Makes one request; `true` when nothing is left to ask.
    fn find_missing(&mut self) -> bus::Result<bool> {
        match self.missing.next() {
            None => return Ok(true),
            Some(missing::Next::Message { tag, from }) => {
                let found = self.queue.next_job(&tag, from)?;
                let job = found.as_ref().and_then(|(_, message)| Job::parse(&message.payload).ok());
                let run_id = job.as_ref().map(|job| job.run_id.as_str());
                self.missing.message(found.as_ref().map(|(seq, _)| (*seq, run_id)));
            }
            Some(missing::Next::Decide { began }) => {
                let (overdue, _) = self.overdue(self.origin + began);
                let now = self.since_origin(Instant::now());
                self.lost.extend(self.missing.lost(now, overdue, tag_and_id));
                if self.missing.is_full() && !std::mem::replace(&mut self.told_full, true) {
                    log::warn!("too many jobs wait to find runs among them that have lost theirs");
                }
            }
        }
        Ok(false)
    }

    /// Ends one run; `true` when there is none.
    fn end_lost(&mut self) -> bus::Result<bool> {
        let Some(run) = self.lost.pop_front() else { return Ok(true) };
        let code = Code::OrphanRun;
        let deadline = Instant::now() + TIMEOUT;
        let run_id = run.summary.run_id.as_str();
        let written = drive::edit_run(&self.runs, run_id, deadline, |newest| {
            reconcile::end_lost(newest, run.revision, clock::now())
        })?;
        if let Some(entry) = written {
            log::warn!(err_id = code.err_id(), msg_id = code.msg_id(), run_id = run_id,
                tag = run.summary.tag.as_str(); "a run waited for a job that is not in the queue; it has failed");
            self.index.wrote(entry);
        }
        Ok(false)
    }
}

fn tag_and_id(run: &Indexed) -> (&str, &str) {
    (&run.summary.tag, &run.summary.run_id)
}
