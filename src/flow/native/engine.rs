//! Walks a graph: starts what is ready, reports each change, ends at the first failure or cancel.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Sender, never, select};
use serde_json::{Map, Value};

use super::expression::{self, Budget, Environment, Scope};
use super::pool::{Call, Pool, Return};
use super::task::{TaskContext, TaskFn};
use crate::flow::executor::{CancelToken, FlowEvent, Outcome};
use crate::flow::graph::{Graph, Join, Source};
use crate::flow::lease::Lease;
use crate::model::clock;
use crate::model::limits::{MAX_ERROR_BYTES, MAX_PARALLEL_TASKS};
use crate::model::run::{TaskRecord, TaskStatus, truncated};
use crate::thread::{self, StopSignal};

/// Between two looks at a lease that has lapsed.
const LEASE_LOOK: Duration = Duration::from_millis(20);

pub(super) struct Plan {
    pub run_id: Arc<str>,
    pub flow_name: String,
    pub graph: Graph,
    pub bodies: Vec<TaskFn>,
    /// Per node; expressions are not resolved.
    pub inputs: Vec<Map<String, Value>>,
    pub params: Arc<Map<String, Value>>,
    pub expose_env: Vec<String>,
    pub environment: Environment,
}

pub(super) struct Reporter {
    /// Written by the engine's thread alone, read by the worker's slot.
    pub events: Sender<FlowEvent>,
    /// Closed when the execution was killed: a full channel then holds nobody up.
    pub killed: StopSignal,
    /// Of the worker, if it has given one.
    pub lease: Arc<OnceLock<Lease>>,
}

/// The execution was killed, or its events have no reader.
pub(super) struct Gone;

impl Reporter {
    fn may_begin(&self) -> bool {
        self.lease.get().is_none_or(Lease::holds)
    }

    pub fn send(&self, event: FlowEvent) -> Result<(), Gone> {
        if thread::is_stopped(&self.killed) {
            return Err(Gone);
        }
        select! {
            send(self.events, event) -> sent => sent.map_err(|_| Gone),
            recv(self.killed) -> _ => Err(Gone),
        }
    }
}

/// Runs the plan to its end: this thread decides and reports, as many others as tasks run at the same
/// time call them, at most [`MAX_PARALLEL_TASKS`]; a sequence uses one. Of the tasks that are ready the
/// first in graph order starts first.
///
/// There is no deadline here: a task may take as long as it likes, and one that ignores a cancel keeps
/// this waiting until the execution is killed. After [`Gone`], threads with running tasks are abandoned.
///
/// Returns the outcome, and the pool with its threads, all of them free: joining them can wait until
/// the outcome is reported.
pub(super) fn run(
    plan: Plan,
    pool: Pool,
    cancel: CancelToken,
    reporter: &Reporter,
) -> Result<(Outcome, Pool), Gone> {
    let mut engine = Engine::new(plan, pool, cancel, reporter);
    match engine.walk() {
        Ok(()) => {
            let outcome = match engine.cause {
                None => Outcome::Completed,
                Some(Cause::Cancelled) => Outcome::Cancelled,
                Some(Cause::Failed(error)) => Outcome::Failed { error },
            };
            Ok((outcome, engine.pool))
        }
        Err(Gone) => {
            engine.stop.cancel();
            engine.pool.abandon();
            Err(Gone)
        }
    }
}

/// What ended the flow early; the first cause stays.
enum Cause {
    Cancelled,
    Failed(String),
}

struct Engine<'a> {
    plan: Plan,
    reporter: &'a Reporter,
    cancel: CancelToken,
    /// What tasks see: cancelled with the run, and by a failure.
    stop: CancelToken,
    pool: Pool,
    progress: Progress,
    states: Vec<TaskStatus>,
    started_at: Vec<Option<f64>>,
    outputs: HashMap<String, Value>,
    budget: Budget,
    cause: Option<Cause>,
}

impl<'a> Engine<'a> {
    fn new(plan: Plan, pool: Pool, cancel: CancelToken, reporter: &'a Reporter) -> Self {
        let count = plan.graph.nodes.len();
        Engine {
            progress: Progress::new(&plan.graph),
            plan,
            reporter,
            cancel,
            stop: CancelToken::new(),
            pool,
            states: vec![TaskStatus::Pending; count],
            started_at: vec![None; count],
            outputs: HashMap::new(),
            budget: Budget::new(),
            cause: None,
        }
    }

    fn walk(&mut self) -> Result<(), Gone> {
        let tasks = self.plan.graph.nodes.iter().map(|node| node.name.clone()).collect();
        let flow_name = self.plan.flow_name.clone();
        self.reporter.send(FlowEvent::Started { flow_name, tasks })?;
        loop {
            self.notice_cancel()?;
            self.start_ready()?;
            if self.pool.in_flight() > 0 {
                self.wait()?;
            } else if self.progress.ready.is_empty() {
                return Ok(());
            }
        }
    }

    fn start_ready(&mut self) -> Result<(), Gone> {
        while self.pool.in_flight() < MAX_PARALLEL_TASKS
            && let Some(&node) = self.progress.ready.first()
        {
            self.wait_for_lease()?;
            if self.cause.is_some() {
                return Ok(());
            }
            let pooled = self.pool.has_room();
            if !pooled && self.pool.in_flight() > 0 {
                // No thread to be had; one of the running ones will be free.
                return Ok(());
            }
            self.progress.ready.remove(&node);
            // Without any thread the task is called right here, where only the run's own token can reach it.
            let token = if pooled { &self.stop } else { &self.cancel }.clone();
            let Some(call) = self.prepare(node, token)? else { continue };
            if pooled {
                self.pool.start(call);
            } else {
                self.finish(call.run())?;
                self.notice_cancel()?;
            }
        }
        Ok(())
    }

    /// After a pause of the process another worker may have the run. Then this waits until the worker has
    /// found out that it still has it, until the run is cancelled, or until it is killed since it is lost.
    fn wait_for_lease(&mut self) -> Result<(), Gone> {
        while self.cause.is_none() && !self.reporter.may_begin() {
            select! {
                recv(self.reporter.killed) -> _ => return Err(Gone),
                default(LEASE_LOOK) => self.notice_cancel()?,
            }
        }
        Ok(())
    }

    /// Resolves the inputs and reports the start; `None` when that already failed.
    fn prepare(&mut self, node: usize, token: CancelToken) -> Result<Option<Call>, Gone> {
        let started_at = clock::now();
        self.started_at[node] = Some(started_at);
        let graph = &self.plan.graph;
        let scope = Scope {
            outputs: &self.outputs,
            has_node: &|name| graph.nodes.iter().any(|node| node.name == name),
            params: &self.plan.params,
            expose_env: &self.plan.expose_env,
            environment: self.plan.environment,
        };
        let resolved = expression::resolve_inputs(&self.plan.inputs[node], &scope, &mut self.budget);
        let mut record = TaskRecord::new(TaskStatus::Running);
        record.started_at = Some(started_at);
        match resolved {
            Ok(inputs) => {
                record.inputs = Value::Object(inputs.clone());
                self.report(node, record)?;
                let context = TaskContext {
                    run_id: Arc::clone(&self.plan.run_id),
                    node: self.plan.graph.nodes[node].name.clone(),
                    params: Arc::clone(&self.plan.params),
                    inputs,
                    cancel: token,
                };
                Ok(Some(Call { node, body: Arc::clone(&self.plan.bodies[node]), context }))
            }
            Err(problem) => {
                self.report(node, record.clone())?;
                record.ended_at = Some(clock::now());
                record.duration_ms = Some(0.0);
                let name = &self.plan.graph.nodes[node].name;
                self.fail(node, record, format!("task `{name}`: {problem}"))?;
                Ok(None)
            }
        }
    }

    /// Control before data: a cancel counts before a task that returned at the same time.
    fn wait(&mut self) -> Result<(), Gone> {
        let unwanted = never();
        let cancelled = if self.cause.is_none() { self.cancel.signal() } else { &unwanted };
        let returned = select! {
            recv(self.reporter.killed) -> _ => return Err(Gone),
            recv(cancelled) -> _ => None,
            recv(self.pool.returns()) -> returned => returned.ok(),
        };
        self.notice_cancel()?;
        if let Some(returned) = returned {
            self.pool.settle();
            self.finish(returned)?;
        }
        Ok(())
    }

    fn finish(&mut self, returned: Return) -> Result<(), Gone> {
        let Return { node, inputs, result, ended_at, duration_ms } = returned;
        self.notice_cancel()?;
        let mut record = TaskRecord::new(TaskStatus::Succeeded);
        record.started_at = self.started_at[node];
        record.ended_at = Some(ended_at);
        record.duration_ms = Some(duration_ms);
        record.inputs = Value::Object(inputs);
        match result {
            Ok(output) => {
                record.output = output.clone();
                self.outputs.insert(self.plan.graph.nodes[node].name.clone(), output);
                self.report(node, record)?;
                if self.cause.is_none() {
                    self.progress.complete(node, &self.plan.graph);
                }
                Ok(())
            }
            Err(error) if error.is_cancelled() && self.cause.is_some() => {
                record.state = TaskStatus::Cancelled;
                self.report(node, record)
            }
            Err(error) => self.fail(node, record, error.into_text()),
        }
    }

    fn fail(&mut self, node: usize, mut record: TaskRecord, error: String) -> Result<(), Gone> {
        let error = truncated(error, MAX_ERROR_BYTES);
        record.state = TaskStatus::Failed;
        record.error = Some(error.clone());
        self.report(node, record)?;
        self.end_early(Cause::Failed(error))
    }

    fn notice_cancel(&mut self) -> Result<(), Gone> {
        if self.cause.is_none() && self.cancel.is_cancelled() {
            return self.end_early(Cause::Cancelled);
        }
        Ok(())
    }

    /// Nothing new starts, what runs is told, the rest is cancelled.
    fn end_early(&mut self, cause: Cause) -> Result<(), Gone> {
        if self.cause.is_some() {
            return Ok(());
        }
        self.cause = Some(cause);
        self.stop.cancel();
        self.progress.ready.clear();
        for node in 0..self.states.len() {
            if self.states[node] == TaskStatus::Pending && self.started_at[node].is_none() {
                self.report(node, TaskRecord::new(TaskStatus::Cancelled))?;
            }
        }
        Ok(())
    }

    fn report(&mut self, node: usize, record: TaskRecord) -> Result<(), Gone> {
        self.states[node] = record.state;
        let name = self.plan.graph.nodes[node].name.clone();
        self.reporter.send(FlowEvent::Task { name, record })
    }
}

struct Progress {
    /// Nodes that may start, in graph order.
    ready: BTreeSet<usize>,
    /// Per node, then per join: sources that are still open.
    open: Vec<usize>,
    /// Per node, then per join: who waits for it.
    followers: Vec<Vec<Source>>,
    nodes: usize,
}

impl Progress {
    fn new(graph: &Graph) -> Self {
        let nodes = graph.nodes.len();
        let all = (0..nodes).map(Source::Node).chain((0..graph.joins.len()).map(Source::Join));
        let mut progress = Progress {
            ready: BTreeSet::new(),
            open: Vec::new(),
            followers: vec![Vec::new(); nodes + graph.joins.len()],
            nodes,
        };
        for follower in all {
            let needs = graph.needs(follower);
            progress.open.push(needs.len());
            for &need in needs {
                let slot = progress.slot(need);
                progress.followers[slot].push(follower);
            }
            if let (Source::Node(node), []) = (follower, needs) {
                progress.ready.insert(node);
            }
        }
        progress
    }

    fn slot(&self, source: Source) -> usize {
        match source {
            Source::Node(index) => index,
            Source::Join(index) => self.nodes + index,
        }
    }

    /// A node has succeeded: whatever waited for it alone is ready or reached.
    fn complete(&mut self, node: usize, graph: &Graph) {
        let mut reached = vec![Source::Node(node)];
        while let Some(source) = reached.pop() {
            let slot = self.slot(source);
            // Each source is reached once, so its followers are not needed again.
            for follower in std::mem::take(&mut self.followers[slot]) {
                let slot = self.slot(follower);
                if self.open[slot] == 0 {
                    continue; // An `any` that was reached before.
                }
                let any = matches!(follower, Source::Join(join) if graph.joins[join].join == Join::Any);
                self.open[slot] = if any { 0 } else { self.open[slot] - 1 };
                if self.open[slot] == 0 {
                    match follower {
                        Source::Node(node) => {
                            self.ready.insert(node);
                        }
                        Source::Join(_) => reached.push(follower),
                    }
                }
            }
        }
    }
}
