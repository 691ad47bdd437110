//! `flow.yaml`: how it is read, and why one is refused.
//!
//! [`Workflow::parse`] is the way in: bytes to a checked document, or a [`WorkflowRefusal`] whose text is one
//! of the reasons in `docs/flow.md#flowyaml`. Below it, [`yaml`] turns the events of a YAML parser
//! into a tree ([`node`]) and resolves scalars as PyYAML's `SafeLoader` does ([`scalar`],
//! [`timestamp`]), so that a document means the same here and in a Python worker. Depth, aliases and
//! text are bounded: a small document cannot become a large one. The graph stays text here; which
//! syntax it may have is a matter of the engine that runs it.

pub mod node;
pub mod scalar;
pub mod spec;
pub mod timestamp;
pub mod yaml;

pub use spec::{TaskSpec, Workflow, WorkflowRefusal};
