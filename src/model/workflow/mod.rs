//! `flow.yaml`: how it is read, and why one is refused.
//!
//! [`Workflow::parse`] makes a checked document of bytes, or a [`WorkflowRefusal`] with one of the reasons in
//! `docs/flow.md#flowyaml`. [`yaml`] turns a parser's events into a tree ([`node`]) and resolves scalars as
//! PyYAML's `SafeLoader` does ([`scalar`], [`timestamp`]), so that a document means the same in a Python
//! worker. Depth, aliases and text are bounded. The graph stays text: its syntax is a matter of the engine.

pub mod node;
pub mod scalar;
pub mod spec;
pub mod timestamp;
pub mod yaml;

pub use spec::{TaskSpec, Workflow, WorkflowRefusal};
