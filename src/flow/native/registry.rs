//! Native tasks and flows by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::rust_flow::Flow;
use super::task::{TaskContext, TaskError, TaskFn};

/// The native tasks that a `flow.yaml` may `use`, and the flows that are built in Rust.
///
/// ```
/// use pyoco_server::flow::{Flow, Registry};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut registry = Registry::with_builtins();
/// registry.task("demo/add", |ctx| {
///     let (a, b): (i64, i64) = (ctx.input("a")?, ctx.input("b")?);
///     Ok(json!(a + b))
/// });
/// registry.flow(
///     Flow::builder("sum")
///         .uses("add", "demo/add")
///         .input("add", "a", "$ctx.params.a")
///         .input("add", "b", 2)
///         .task("show", |ctx| Ok(json!(format!("the sum is {}", ctx.inputs["sum"]))))
///         .input("show", "sum", "$node.add.output")
///         .edge("add", "show")
///         .build()?,
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    tasks: BTreeMap<String, TaskFn>,
    flows: BTreeMap<String, Arc<Flow>>,
}

impl Registry {
    /// A registry without any task or flow.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a task; one of the same name is replaced.
    pub fn task(
        &mut self,
        name: impl Into<String>,
        body: impl Fn(&TaskContext) -> Result<Value, TaskError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.tasks.insert(name.into(), Arc::new(body));
        self
    }

    /// Registers a flow under its name; one of the same name is replaced.
    pub fn flow(&mut self, flow: Flow) -> &mut Self {
        self.flows.insert(flow.name().to_owned(), Arc::new(flow));
        self
    }

    /// Whether there is a task of that name.
    pub fn has_task(&self, name: &str) -> bool {
        self.tasks.contains_key(name)
    }

    /// Whether there is a flow of that name.
    pub fn has_flow(&self, name: &str) -> bool {
        self.flows.contains_key(name)
    }

    pub(super) fn find_task(&self, name: &str) -> Option<&TaskFn> {
        self.tasks.get(name)
    }

    pub(super) fn find_flow(&self, name: &str) -> Option<&Arc<Flow>> {
        self.flows.get(name)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("tasks", &self.tasks.keys())
            .field("flows", &self.flows.keys())
            .finish()
    }
}
