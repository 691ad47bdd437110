//! The executor of native flows: finds the flow, then gives it to the engine on a thread.
//!
//! [`task`] and [`rust_flow`] are what a program builds, [`registry`] is where it puts them; [`engine`]
//! walks a graph, calls tasks on the threads of [`pool`] and resolves inputs by [`expression`].

mod builtin;
mod engine;
mod expression;
mod pool;
mod registry;
mod rust_flow;
mod task;

pub use expression::Environment;
pub use registry::Registry;
pub use rust_flow::{Flow, FlowBuilder, FlowError};
pub use task::{TaskContext, TaskError, TaskFn};

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::Sender;
use serde_json::{Map, Value};

use crate::flow::executor::{CancelToken, Execution, Executor, FlowEvent, FlowJob, Outcome, StartError};
use crate::flow::graph;
use crate::flow::lease::Lease;
use crate::model::workflow::{TaskSpec, Workflow};
use crate::thread::Service;
use engine::{Plan, Reporter};
use pool::Pool;
use rust_flow::TaskBody;

/// Runs flows whose tasks are all registered in Rust.
#[derive(Debug, Clone)]
pub struct NativeExecutor {
    registry: Arc<Registry>,
    environment: Environment,
}

impl NativeExecutor {
    /// Runs the registry's flows and documents that use its tasks. `$env` finds nothing until
    /// [`NativeExecutor::with_environment`] says where to look.
    pub fn new(registry: Registry) -> Self {
        NativeExecutor { registry: Arc::new(registry), environment: |_| None }
    }

    /// Where `$env.NAME` is looked up, after the flow's `runtime.expose_env` has allowed the name.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    fn plan(&self, job: FlowJob) -> Result<Plan, Outcome> {
        let Some(document) = job.workflow.clone() else { return self.plan_registered(job) };
        let workflow = document
            .workflow()
            .map_err(|refusal| Outcome::Failed { error: format!("invalid workflow yaml: {refusal}") })?;
        self.plan_document(workflow, job)
    }

    fn plan_document(&self, workflow: &Workflow, job: FlowJob) -> Result<Plan, Outcome> {
        let graph =
            graph::parse(&workflow.graph).map_err(|error| Outcome::Failed { error: error.to_string() })?;
        let specs: HashMap<&str, &TaskSpec> =
            workflow.tasks.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let mut bodies = Vec::with_capacity(graph.nodes.len());
        let mut inputs = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let spec = specs.get(node.task.as_str()).copied();
            bodies.push(self.body(&node.task, spec).map_err(|error| Outcome::FlowNotFound { error })?);
            inputs.push(spec.map(|spec| spec.inputs.clone()).unwrap_or_default());
        }
        Ok(Plan {
            run_id: job.run_id.into(),
            flow_name: job.flow_name,
            graph,
            bodies,
            inputs,
            params: Arc::new(merged(workflow.defaults.clone(), job.params)),
            expose_env: workflow.expose_env.clone(),
            environment: self.environment,
        })
    }

    fn plan_registered(&self, job: FlowJob) -> Result<Plan, Outcome> {
        let Some(flow) = self.registry.find_flow(&job.flow_name) else {
            return Err(Outcome::FlowNotFound {
                error: format!(
                    "no flow `{}` is registered on this worker; register it, start the worker with a flow \
                     resolver, or submit a flow.yaml",
                    job.flow_name
                ),
            });
        };
        let bodies = flow
            .bodies
            .iter()
            .zip(&flow.graph.nodes)
            .map(|(body, node)| match body {
                TaskBody::Own(body) => Ok(Arc::clone(body)),
                TaskBody::Named(task) => {
                    self.registry.find_task(task).cloned().ok_or_else(|| not_registered(&node.name, task))
                }
            })
            .collect::<Result<_, _>>()
            .map_err(|error| Outcome::FlowNotFound { error })?;
        Ok(Plan {
            run_id: job.run_id.into(),
            flow_name: flow.name.clone(),
            graph: flow.graph.clone(),
            bodies,
            inputs: flow.inputs.clone(),
            params: Arc::new(merged(flow.defaults.clone(), job.params)),
            expose_env: flow.expose_env.clone(),
            environment: self.environment,
        })
    }

    fn body(&self, name: &str, spec: Option<&TaskSpec>) -> Result<TaskFn, String> {
        if let Some(callable) = spec.and_then(|spec| spec.callable.as_ref()) {
            return Err(format!(
                "task `{name}` is the Python function `{callable}`; run this flow on a worker with Python"
            ));
        }
        let used = spec.and_then(|spec| spec.use_.as_deref()).unwrap_or(name);
        self.registry.find_task(used).cloned().ok_or_else(|| not_registered(name, used))
    }
}

fn not_registered(name: &str, used: &str) -> String {
    format!(
        "task `{name}` uses `{used}`, which is not registered on this worker; \
         start a worker that registers it"
    )
}

fn merged(mut defaults: Map<String, Value>, params: Map<String, Value>) -> Map<String, Value> {
    defaults.extend(params);
    defaults
}

impl Executor for NativeExecutor {
    /// A document is native when every entry of its `tasks` is, and every node of its graph; when
    /// the graph cannot be read, its tasks alone decide, so that the run can tell what is wrong.
    fn accepts(&self, job: &FlowJob) -> bool {
        let Some(document) = &job.workflow else { return self.registry.has_flow(&job.flow_name) };
        let Ok(workflow) = document.workflow() else { return false };
        if !workflow.tasks.iter().all(|spec| self.body(&spec.name, Some(spec)).is_ok()) {
            return false;
        }
        match graph::parse(&workflow.graph) {
            Ok(graph) => {
                let listed: HashSet<&str> = workflow.tasks.iter().map(|spec| spec.name.as_str()).collect();
                graph
                    .nodes
                    .iter()
                    .all(|node| listed.contains(node.task.as_str()) || self.registry.has_task(&node.task))
            }
            Err(_) => !workflow.tasks.is_empty(),
        }
    }

    fn start(
        &self,
        job: FlowJob,
        cancel: CancelToken,
        events: Sender<FlowEvent>,
    ) -> Result<Box<dyn Execution>, StartError> {
        let finished = Arc::new(AtomicBool::new(false));
        let lease = Arc::new(OnceLock::new());
        let heeded = Arc::clone(&lease);
        let (executor, token, done) = (self.clone(), cancel.clone(), Arc::clone(&finished));
        let thread = Service::start("flow", move |killed| {
            let reporter = Reporter { events, killed: killed.clone(), lease: heeded };
            let mut pool = Pool::new();
            // The first thread comes up while the flow is being read.
            pool.has_room();
            let ended = match executor.plan(job) {
                Ok(plan) => engine::run(plan, pool, token, &reporter),
                Err(outcome) => Ok((outcome, pool)),
            };
            if let Ok((outcome, pool)) = ended {
                // Before the event: whoever has read it may join this thread.
                done.store(true, Ordering::SeqCst);
                let _ = reporter.send(FlowEvent::Finished(outcome));
                drop(reporter);
                pool.join();
            }
        })
        .map_err(|error| StartError::Host(format!("cannot start a thread for the flow: {error}")))?;
        Ok(Box::new(NativeExecution { cancel, finished, lease, thread: Some(thread) }))
    }
}

/// A native flow in flight. Dropping it before its end is the same as killing it.
struct NativeExecution {
    cancel: CancelToken,
    /// Set by the thread when nothing but its last event remains to be done.
    finished: Arc<AtomicBool>,
    lease: Arc<OnceLock<Lease>>,
    thread: Option<Service>,
}

impl Execution for NativeExecution {
    fn heed(&mut self, lease: &Lease) {
        // It has one lease in its life.
        let _ = self.lease.set(lease.clone());
    }

    /// A thread cannot be ended from outside, so there is nothing to wait for.
    fn kill(&mut self, _term_grace: Duration) {
        let Some(thread) = self.thread.take() else { return };
        if self.finished.load(Ordering::SeqCst) {
            thread.stop();
        } else {
            self.cancel.cancel();
            // It ends at once, unless no thread could be had and it is inside of a task itself.
            thread.abandon();
        }
    }
}

impl Drop for NativeExecution {
    fn drop(&mut self) {
        self.kill(Duration::ZERO);
    }
}
