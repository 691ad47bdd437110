//! Compares the work queue with the snapshots, so that no run waits for a message that nobody delivers.
//!
//! A message is stuck when it is in the stream and neither waiting for a delivery nor in one: its
//! deliveries were used up, and the advisory about it was lost or could not be stored. Its job is published
//! anew. A run is lost when its message is not in the stream: its gateway died during the submit, or an
//! operator purged the queue. It is FAILED. A look makes one request for all tags, one for each tag that
//! has messages, and reads messages only where the figures say that some are stuck or missing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::rescue::{Absence, is_answered};
use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Bus, Kv, StoredJob, WorkQueue};
use crate::delivery::Limits;
use crate::delivery::drive::{self, Driver};
use crate::delivery::reconcile;
use crate::delivery::requeue::{End, Reason, Requeue};
use crate::gateway::view::runs::{Indexed, RunIndex};
use crate::model::dlq::{DlqEntry, DlqReason};
use crate::model::error::Code;
use crate::model::job::Job;
use crate::model::{clock, json};

pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// Tags whose figures one look asks for, in turn: each costs a request.
const MAX_TAGS_PER_LOOK: usize = 1_000;
/// A tag with as many messages as runs can hide a lost run behind a message of none. From this silence of a
/// run on its message is looked for all the same.
const SEARCH_AFTER: Duration = Duration::from_secs(600);

pub(super) struct Reconciler {
    runs: Kv,
    queue: WorkQueue,
    index: RunIndex,
    absence: Absence,
    limits: Limits,
    /// Tags whose figures have said in their last look that messages are stuck.
    stuck: HashSet<String>,
    /// The tag whose figures were asked for last.
    turn: String,
    /// What the last look has found to do.
    tasks: VecDeque<Task>,
}

#[derive(Debug)]
enum Task {
    /// How many messages of a tag are stuck?
    Figures { tag: String, stored: u64 },
    /// Read the messages of a tag that were delivered before, from a sequence on.
    Walk { tag: String, next: u64, last: u64 },
    /// Look for a run's message where its snapshot says that it is.
    Check { run: Box<Indexed>, seq: u64, stored: u64 },
    /// Look for the messages of these runs among all of their tag, from a sequence on.
    Search { tag: String, stored: u64, missing: HashMap<String, Indexed>, next: u64, last: u64 },
    /// The message of a run is nowhere.
    Lost { run: Box<Indexed>, stored: u64 },
}

impl Reconciler {
    pub(super) fn new(bus: &Bus, index: RunIndex, absence: Absence) -> Reconciler {
        let (runs, queue) = (bus.runs().with_timeout(TIMEOUT), bus.queue().with_timeout(TIMEOUT));
        let limits = Limits::new(queue.max_deliver(), None);
        let (stuck, turn, tasks) = (HashSet::new(), String::new(), VecDeque::new());
        Reconciler { runs, queue, index, absence, limits, stuck, turn, tasks }
    }

    /// Ends when NATS does not answer; the next look begins anew.
    pub(super) fn look(&mut self, turn: &Turn<'_>) -> Next {
        if self.tasks.is_empty()
            && let Err(e) = self.plan()
        {
            log::debug!(error = e.to_string(); "cannot compare the queue with the runs");
            return Next::InTime;
        }
        while let Some(task) = self.tasks.pop_front() {
            match self.carry_out(task) {
                Ok(()) => {}
                Err(e) => {
                    log::warn!(error = e.to_string(); "cannot compare the queue with the runs yet");
                    self.tasks.clear();
                }
            }
            if turn.is_over() && !self.tasks.is_empty() {
                return Next::Again;
            }
        }
        Next::InTime
    }

    fn plan(&mut self) -> bus::Result<()> {
        let now = Instant::now();
        let (unfinished, live_since) = self.index.unfinished();
        let Some(live_since) = live_since else { return Ok(()) };
        // The queue is looked into after the runs were seen: a message that is not there then was not there
        // before, or its run is not what it was any more and the write finds out.
        let queue = self.queue.contents()?;
        let mut waiting: BTreeMap<&str, u64> = BTreeMap::new();
        let mut overdue: BTreeMap<&str, Vec<(&Indexed, Duration)>> = BTreeMap::new();
        for run in &unfinished {
            let tag = run.summary.tag.as_str();
            *waiting.entry(tag).or_default() += 1;
            let facts = self.absence.facts(run, live_since, now);
            if reconcile::wants_look(facts) {
                overdue.entry(tag).or_default().push((run, facts.silence));
            }
        }
        for (tag, runs) in overdue {
            let stored = queue.by_tag.get(tag).copied().unwrap_or(0);
            let has_too_few = stored < waiting.get(tag).copied().unwrap_or(0);
            let mut missing = HashMap::new();
            for (run, silence) in runs {
                let copy = || Box::new(run.clone());
                match reconcile::named(&run.summary) {
                    _ if stored == 0 => self.tasks.push_back(Task::Lost { run: copy(), stored }),
                    Some(seq) => self.tasks.push_back(Task::Check { run: copy(), seq, stored }),
                    None if has_too_few || silence >= SEARCH_AFTER => {
                        missing.insert(run.summary.run_id.clone(), run.clone());
                    }
                    None => {}
                }
            }
            if !missing.is_empty() {
                let (tag, next, last) = (tag.to_owned(), queue.first_seq, queue.last_seq);
                self.tasks.push_back(Task::Search { tag, stored, missing, next, last });
            }
        }
        self.stuck.retain(|tag| queue.by_tag.contains_key(tag));
        let (mut tags, after): (Vec<_>, Vec<_>) =
            queue.by_tag.into_iter().partition(|(tag, _)| *tag <= self.turn);
        tags.splice(0..0, after);
        tags.truncate(MAX_TAGS_PER_LOOK);
        self.turn = tags.last().map(|(tag, _)| tag.clone()).unwrap_or_default();
        self.tasks.extend(tags.into_iter().map(|(tag, stored)| Task::Figures { tag, stored }));
        Ok(())
    }

    fn carry_out(&mut self, task: Task) -> bus::Result<()> {
        match task {
            Task::Figures { tag, stored } => self.compare(tag, stored)?,
            Task::Walk { tag, next, last } => {
                if let Some((seq, job)) = self.queue.next_job(&tag, next)?.filter(|(seq, _)| *seq <= last) {
                    self.unstick(seq, &tag, &job)?;
                    self.tasks.push_front(Task::Walk { tag, next: seq + 1, last });
                }
            }
            Task::Check { run, seq, stored } => {
                if !drive::is_queued(&self.queue, seq, &run.summary.run_id)? {
                    self.tasks.push_front(Task::Lost { run, stored });
                }
            }
            Task::Search { tag, stored, mut missing, next, last } => {
                let found = match next <= last && !missing.is_empty() {
                    true => self.queue.next_job(&tag, next)?.filter(|(seq, _)| *seq <= last),
                    false => None,
                };
                match found {
                    Some((seq, job)) => {
                        if let Ok(job) = Job::parse(&job.payload) {
                            missing.remove(&job.run_id);
                        }
                        self.tasks.push_front(Task::Search { tag, stored, missing, next: seq + 1, last });
                    }
                    None => {
                        let lost = missing.into_values().map(|run| Task::Lost { run: Box::new(run), stored });
                        lost.for_each(|task| self.tasks.push_front(task));
                    }
                }
            }
            Task::Lost { run, stored } => {
                if reconcile::is_lost(stored) {
                    let done = self.end_lost(&run);
                    if !is_answered(&run, &done) {
                        return done;
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins a walk over the messages of a tag when its figures say twice that some are stuck.
    fn compare(&mut self, tag: String, stored: u64) -> bus::Result<()> {
        // Without a consumer nothing was ever delivered.
        let Some(figures) = self.queue.deliveries(&tag)? else { return Ok(()) };
        let stuck = reconcile::stuck_messages(stored, figures.pending, figures.ack_pending);
        if stuck == 0 {
            self.stuck.remove(&tag);
            return Ok(());
        }
        let is_news = self.stuck.insert(tag.clone());
        if !is_news {
            log::warn!(tag = tag.as_str(), messages = stuck; "jobs are in the queue that NATS does not deliver");
            self.tasks.push_back(Task::Walk { tag, next: 0, last: figures.delivered_to });
        }
        Ok(())
    }

    fn unstick(&self, seq: u64, tag: &str, message: &StoredJob) -> bus::Result<()> {
        let Ok(job) = Job::parse(&message.payload) else { return Ok(()) };
        let (run, live_since) = self.index.get(&job.run_id);
        let Some(live_since) = live_since else { return Ok(()) };
        let now = Instant::now();
        let facts = run.as_ref().map(|run| self.absence.facts(run, live_since, now));
        if !reconcile::may_be_stuck(seq, facts) {
            return Ok(());
        }
        let driver = Driver {
            runs: &self.runs,
            queue: &self.queue,
            run_id: &job.run_id,
            message: (tag, &message.payload),
            delivered: None,
        };
        let mut step = Requeue::new(&job, seq, Reason::Stuck, self.limits, clock::now());
        if let Some(run) = &run {
            step = step.decided_on(run.revision);
        }
        match driver.run(&mut step, |entry| self.index.wrote(entry))? {
            End::Requeued(_) => log::warn!(run_id = job.run_id.as_str();
                "NATS does not deliver the job of a run; it was published anew"),
            End::Ended(status, Some(error)) => {
                log::warn!(run_id = job.run_id.as_str(), status = status.as_str(), reason = error.as_str();
                    "run ended");
                let entry = DlqEntry::of_job(&job, DlqReason::MaxDeliverExceeded, &error, clock::now());
                let payload = json::to_wire(&entry)?;
                if let Err(e) = self.queue.publish_dlq(tag, &payload) {
                    log::warn!(run_id = job.run_id.as_str(), error = e.to_string();
                        "cannot publish a DLQ entry");
                }
            }
            End::Ended(..) | End::Dropped | End::Changed => {}
        }
        Ok(())
    }

    fn end_lost(&self, run: &Indexed) -> bus::Result<()> {
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
        Ok(())
    }
}
