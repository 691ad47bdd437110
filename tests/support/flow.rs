//! Starts flows through the executor seam and collects their events, always with a deadline.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use pyoco_server::flow::{
    CancelToken, Execution, Executor, FlowEvent, FlowJob, NativeExecutor, Outcome, Registry, WorkflowDocument,
};
use pyoco_server::model::run::{TaskRecord, TaskStatus};
use serde_json::{Value, json};

use super::measure;
use super::wait::eventually;

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A flow in flight.
pub struct Run {
    pub cancel: CancelToken,
    pub execution: Box<dyn Execution>,
    events: Receiver<FlowEvent>,
    pub seen: Vec<FlowEvent>,
}

pub fn job(flow_name: &str, yaml: Option<&str>, params: Value) -> FlowJob {
    let Value::Object(params) = params else { panic!("params are an object") };
    FlowJob {
        run_id: "run-1".to_owned(),
        flow_name: flow_name.to_owned(),
        params,
        workflow: yaml.map(WorkflowDocument::parse),
    }
}

pub fn start(executor: &dyn Executor, job: FlowJob) -> Run {
    let cancel = CancelToken::new();
    let (sender, events) = unbounded();
    let execution = executor.start(job, cancel.clone(), sender).expect("the flow starts");
    Run { cancel, execution, events, seen: Vec::new() }
}

/// Runs a document with the built-in tasks to its end.
pub fn run_yaml(yaml: &str) -> Run {
    run_with(Registry::with_builtins(), yaml)
}

/// The same with other tasks.
pub fn run_with(registry: Registry, yaml: &str) -> Run {
    let mut run = start(&NativeExecutor::new(registry), job("main", Some(yaml), json!({})));
    run.finish();
    run
}

/// Tests of native flows take turns, because some of them count the threads of the process.
pub fn turn() -> MutexGuard<'static, ()> {
    let turn = measure::alone();
    wait_for_no_flow_threads();
    turn
}

/// Threads of this process that execute flows.
pub fn flow_threads() -> usize {
    let names = measure::thread_names(measure::own());
    names.iter().filter(|name| matches!(name.as_str(), "flow" | "flow-task")).count()
}

/// A joined thread may be listed for a moment longer.
pub fn wait_for_no_flow_threads() {
    eventually(DEADLINE, "no thread of a flow", || (flow_threads() == 0).then_some(()));
}

impl Run {
    /// Waits for the event that `wanted` accepts.
    pub fn wait_for(&mut self, wanted: impl Fn(&FlowEvent) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let event = match self.events.recv_deadline(deadline) {
                Ok(event) => event,
                Err(error) => panic!("{error}; seen: {:#?}", self.seen),
            };
            let found = wanted(&event);
            self.seen.push(event);
            if found {
                return;
            }
        }
    }

    pub fn wait_for_state(&mut self, task: &str, state: TaskStatus) {
        self.wait_for(
            |event| matches!(event, FlowEvent::Task { name, record } if name == task && record.state == state),
        );
    }

    /// Waits for the end; nothing may come after it.
    pub fn finish(&mut self) -> Outcome {
        self.wait_for(|event| matches!(event, FlowEvent::Finished(_)));
        assert!(self.events.recv_timeout(DEADLINE).is_err(), "an event after the end");
        self.outcome()
    }

    pub fn outcome(&self) -> Outcome {
        match self.seen.last() {
            Some(FlowEvent::Finished(outcome)) => outcome.clone(),
            other => panic!("not finished: {other:?}"),
        }
    }

    /// `task STATE` per task event.
    pub fn story(&self) -> Vec<String> {
        self.seen
            .iter()
            .filter_map(|event| match event {
                FlowEvent::Task { name, record } => Some(format!("{name} {:?}", record.state)),
                _ => None,
            })
            .collect()
    }

    /// Position of an event in the story.
    pub fn at(&self, entry: &str) -> usize {
        let story = self.story();
        story.iter().position(|found| found == entry).unwrap_or_else(|| panic!("no `{entry}` in {story:?}"))
    }

    /// The last record of a task.
    pub fn record(&self, task: &str) -> &TaskRecord {
        self.seen
            .iter()
            .rev()
            .find_map(|event| match event {
                FlowEvent::Task { name, record } if name == task => Some(record),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no record of {task}"))
    }
}
