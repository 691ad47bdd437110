//! The newest record of each task that the slot has not been given yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};

use super::capture::Capture;
use crate::flow::executor::FlowEvent;
use crate::flow::python::message::TaskMessage;
use crate::model::clock;
use crate::model::run::{TaskRecord, TaskStatus};
use crate::model::wheel::WheelSet;

/// From a change until the slot gets it, so that a short run needs few writes.
const FIRST_TELL: Duration = Duration::from_millis(5);
/// From the end of a task's time until its process must have said so, else it is stuck: in code that holds
/// Python's lock, for example.
const LIMIT_SLACK: Duration = Duration::from_secs(2);

/// Coalesces: however often a task changes, one record of it waits.
#[derive(Default)]
pub(super) struct Tasks {
    names: Vec<String>,
    /// Goes out before all else.
    wheels: Option<FlowEvent>,
    /// Goes out before any record.
    started: Option<FlowEvent>,
    waiting: BTreeMap<usize, TaskRecord>,
    /// Until when what waits may wait.
    tell_at: Option<Instant>,
    /// As last told, so that new output can be shown with them.
    running: BTreeMap<usize, TaskRecord>,
    /// Of running tasks with a limit.
    limits: BTreeMap<usize, Limit>,
}

struct Limit {
    seconds: f64,
    due: Instant,
    /// Each round of a loop has the limit anew.
    started_at: Option<f64>,
}

/// The slot does not read any more: the run was killed, or is lost.
pub(super) struct Deaf;

impl Tasks {
    /// Of a run that was forked with these wheels.
    pub(super) fn new(wheels: Option<WheelSet>) -> Self {
        Tasks { wheels: wheels.map(FlowEvent::Wheels), ..Tasks::default() }
    }

    pub(super) fn begin(&mut self, flow_name: String, tasks: Vec<String>) {
        self.names.clone_from(&tasks);
        self.started = Some(FlowEvent::Started { flow_name, tasks });
    }

    /// Takes a change; `false` when the task is none of this flow.
    pub(super) fn change(&mut self, message: TaskMessage, capture: &mut Capture) -> bool {
        let number = message.task;
        if number >= self.names.len() {
            return false;
        }
        let mut record = message.record;
        record.logs = capture.logs(number);
        if record.state == TaskStatus::Running {
            self.limit(number, message.limit_sec, record.started_at);
            self.running.insert(number, record.clone());
        } else {
            self.limits.remove(&number);
            self.running.remove(&number);
            capture.end(number);
        }
        self.waiting.insert(number, record);
        self.tell_at.get_or_insert_with(|| Instant::now() + FIRST_TELL);
        true
    }

    fn limit(&mut self, number: usize, seconds: Option<f64>, started_at: Option<f64>) {
        let is_known = self.limits.get(&number).is_some_and(|limit| limit.started_at == started_at);
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let due = time.and_then(|time| Instant::now().checked_add(time.saturating_add(LIMIT_SLACK)));
        match (seconds, due) {
            (Some(seconds), Some(due)) if !is_known => {
                self.limits.insert(number, Limit { seconds, due, started_at });
            }
            (Some(_), Some(_)) => {}
            _ => drop(self.limits.remove(&number)),
        }
    }

    /// When a task is stuck, or what waits has to be told.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let stuck = self.limits.values().map(|limit| limit.due).min();
        stuck.into_iter().chain(self.tell_at).min()
    }

    /// Fails the task whose limit has passed without a word of its process; with the error.
    pub(super) fn fail_stuck(&mut self, now: Instant) -> Option<String> {
        let (&number, limit) = self.limits.iter().find(|(_, limit)| limit.due <= now)?;
        let (name, seconds) = (&self.names[number], limit.seconds);
        let error = format!("Task '{name}' exceeded timeout of {seconds}s and did not let go of its process");
        let mut record = self.running.remove(&number).unwrap_or_else(|| TaskRecord::new(TaskStatus::Running));
        let ended_at = clock::now();
        record.state = TaskStatus::Failed;
        record.ended_at = Some(ended_at);
        record.duration_ms = record.started_at.map(|started_at| (ended_at - started_at) * 1000.0);
        record.error = Some(error.clone());
        self.limits.remove(&number);
        self.waiting.insert(number, record);
        Some(error)
    }

    pub(super) fn add_output(&mut self, capture: &mut Capture) {
        for number in capture.fresh() {
            if let Some(record) = self.running.get_mut(&number) {
                record.logs = capture.logs(number);
                self.waiting.insert(number, record.clone());
            }
        }
    }

    /// After the death of the process: tasks that it was executing and had no time to tell of.
    pub(super) fn add_untold(&mut self, capture: &mut Capture) {
        for number in capture.known() {
            if number < self.names.len() && !self.running.contains_key(&number) {
                let mut record = TaskRecord::new(TaskStatus::Running);
                record.logs = capture.logs(number);
                self.waiting.entry(number).or_insert(record);
            }
        }
    }

    /// Gives the slot what it takes without waiting; whether all of it went that is due.
    pub(super) fn pass_on(&mut self, events: &Sender<FlowEvent>) -> Result<bool, Deaf> {
        let deliver = |event| match events.try_send(event) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(event)) => Ok(Some(event)),
            Err(TrySendError::Disconnected(_)) => Err(Deaf),
        };
        for early in [&mut self.wheels, &mut self.started] {
            if let Some(event) = early.take() {
                *early = deliver(event)?;
                if early.is_some() {
                    return Ok(false);
                }
            }
        }
        if self.tell_at.is_some_and(|at| at > Instant::now()) {
            return Ok(true);
        }
        self.tell_at = None;
        while let Some((number, record)) = self.waiting.pop_first() {
            let event = FlowEvent::Task { name: self.names[number].clone(), record };
            if let Some(FlowEvent::Task { record, .. }) = deliver(event)? {
                self.waiting.insert(number, record);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All that waits, in the order in which it has to go.
    pub(super) fn take_all(&mut self) -> Vec<FlowEvent> {
        let records = std::mem::take(&mut self.waiting).into_iter();
        let names = &self.names;
        let changes = records.map(|(number, record)| FlowEvent::Task { name: names[number].clone(), record });
        self.wheels.take().into_iter().chain(self.started.take()).chain(changes).collect()
    }
}
