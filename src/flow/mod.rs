//! What a run executes: graphs, the engine that walks them, and the executors behind one seam.
//!
//! An [`Executor`] is handed a [`FlowJob`], a [`CancelToken`] and a channel of [`FlowEvent`]s; it
//! starts the flow on threads or processes of its own and reports through the channel. This floor
//! knows `model` alone: it never sees NATS, a snapshot's revision or a worker's slots.
//!
//! The [`NativeExecutor`] finds a flow in a [`Registry`] or reads it from a `flow.yaml`, whose graph
//! is parsed ([`graph`]) and never evaluated, and lets the engine walk it on one thread plus as many
//! as tasks run at the same time. Per task the events are RUNNING, then one of SUCCEEDED, FAILED and
//! CANCELLED; one that never starts has CANCELLED alone. Once `Finished` has come, dropping
//! the execution joins every thread of it. It reads no environment: it is told where to look.
//!
//! The [`python::PythonExecutor`] gives the flow to pyoco's own engine, in a process of its own.

mod executor;
#[doc(hidden)]
pub mod graph;
mod lease;
mod native;
pub mod python;

pub use executor::{
    CancelToken, Execution, Executor, FlowEvent, FlowJob, Outcome, StartError, WorkflowDocument,
};
pub use lease::Lease;
pub use native::{
    Environment, Flow, FlowBuilder, FlowError, NativeExecutor, Registry, TaskContext, TaskError, TaskFn,
};
pub use python::{PythonExecutor, PythonSettings};
