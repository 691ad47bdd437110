//! The newest record of each task that the slot has not been given yet.

use std::collections::BTreeMap;

use crossbeam_channel::{Sender, TrySendError};

use super::capture::Capture;
use crate::flow::executor::FlowEvent;
use crate::flow::python::message::TaskMessage;
use crate::model::run::{TaskRecord, TaskStatus};
use crate::model::wheel::WheelSet;

/// Coalesces: however often a task changes, one record of it waits.
#[derive(Default)]
pub(super) struct Tasks {
    names: Vec<String>,
    /// Goes out before all else.
    wheels: Option<FlowEvent>,
    /// Goes out before any record.
    started: Option<FlowEvent>,
    waiting: BTreeMap<usize, TaskRecord>,
    /// As last told, so that new output can be shown with them.
    running: BTreeMap<usize, TaskRecord>,
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
            self.running.insert(number, record.clone());
        } else {
            self.running.remove(&number);
            capture.end(number);
        }
        self.waiting.insert(number, record);
        true
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

    /// Gives the slot what it takes without waiting; whether all of it went.
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
