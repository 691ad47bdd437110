//! What a run executes: graphs, the engine that walks them, and the executors behind one seam.
//!
//! An [`Executor`] is handed a [`FlowJob`], a [`CancelToken`] and a channel of [`FlowEvent`]s; it
//! starts the flow on threads or processes of its own and reports through the channel. This floor
//! knows `model` alone: it never sees NATS, a snapshot's revision or a worker's slots.

pub mod executor;
pub mod graph;
mod graph_text;

pub use executor::{CancelToken, Execution, Executor, FlowEvent, FlowJob, Outcome};
