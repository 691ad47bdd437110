//! Flows that are built in Rust.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::task::{TaskContext, TaskError, TaskFn};
use crate::flow::graph::{Graph, GraphError, GraphNode, Join, JoinPoint, Source};
use crate::model::limits::MAX_GRAPH_NODES;

/// A checked flow; make one with [`Flow::builder`] and register it.
///
/// ```
/// use pyoco_server::flow::{Flow, FlowError, Registry};
/// use serde_json::json;
///
/// # fn main() -> Result<(), FlowError> {
/// let flow = Flow::builder("greet")
///     .default("name", "world")
///     .task("compose", |ctx| Ok(json!(format!("hello {}", ctx.params["name"]))))
///     .uses("show", "builtin/echo")
///     .input("show", "text", "$node.compose.output")
///     .edge("compose", "show")
///     .build()?;
/// assert_eq!(flow.tasks().collect::<Vec<_>>(), ["compose", "show"]);
/// let mut registry = Registry::with_builtins();
/// registry.flow(flow);
/// assert!(registry.has_flow("greet"));
///
/// let wrong = Flow::builder("circle").uses("a", "builtin/echo").edge("a", "b").build();
/// assert!(matches!(wrong, Err(FlowError::UnknownTask { .. })));
/// # Ok(())
/// # }
/// ```
pub struct Flow {
    pub(super) name: String,
    pub(super) graph: Graph,
    /// Per node of the graph.
    pub(super) bodies: Vec<TaskBody>,
    /// Per node of the graph.
    pub(super) inputs: Vec<Map<String, Value>>,
    pub(super) defaults: Map<String, Value>,
    pub(super) expose_env: Vec<String>,
}

pub(super) enum TaskBody {
    Own(TaskFn),
    Named(String),
}

/// Why a flow cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// Two tasks have one name.
    #[error("flow `{flow}` has two tasks named `{task}`")]
    DuplicateTask {
        /// Name of the flow.
        flow: String,
        /// Name of the task.
        task: String,
    },
    /// An edge or input names a task that the flow does not have.
    #[error("flow `{flow}` has no task `{task}`; add it before its edges and inputs")]
    UnknownTask {
        /// Name of the flow.
        flow: String,
        /// Name of the task.
        task: String,
    },
    /// Nothing to run, too much, or a cycle.
    #[error("flow `{flow}`: {source}")]
    Graph {
        /// Name of the flow.
        flow: String,
        /// What is wrong with the graph.
        source: GraphError,
    },
}

/// Collects a flow; problems are reported by [`FlowBuilder::build`].
pub struct FlowBuilder {
    flow: Flow,
    places: HashMap<String, usize>,
    problem: Option<FlowError>,
}

impl Flow {
    /// Begins a flow of that name.
    pub fn builder(name: impl Into<String>) -> FlowBuilder {
        FlowBuilder {
            flow: Flow {
                name: name.into(),
                graph: Graph::default(),
                bodies: Vec::new(),
                inputs: Vec::new(),
                defaults: Map::new(),
                expose_env: Vec::new(),
            },
            places: HashMap::new(),
            problem: None,
        }
    }

    /// The name that a job asks for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Task names in the order in which they were added.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.graph.nodes.iter().map(|node| node.name.as_str())
    }
}

impl FlowBuilder {
    /// Adds a task that runs a closure.
    pub fn task(
        self,
        name: &str,
        body: impl Fn(&TaskContext) -> Result<Value, TaskError> + Send + Sync + 'static,
    ) -> Self {
        self.add(name, TaskBody::Own(Arc::new(body)), name)
    }

    /// Adds a task that runs a registered one.
    pub fn uses(self, name: &str, task: &str) -> Self {
        self.add(name, TaskBody::Named(task.to_owned()), task)
    }

    /// Sets an input of a task; text that begins with `$` is an expression.
    pub fn input(mut self, task: &str, name: &str, value: impl Into<Value>) -> Self {
        if let Some(index) = self.find(task) {
            self.flow.inputs[index].insert(name.to_owned(), value.into());
        }
        self
    }

    /// `to` starts after `from`.
    pub fn edge(mut self, from: &str, to: &str) -> Self {
        if let (Some(from), Some(to)) = (self.find(from), self.find(to)) {
            self.need(to, Source::Node(from));
        }
        self
    }

    /// `to` starts after the first of `from`.
    pub fn any_of(mut self, from: &[&str], to: &str) -> Self {
        let mut needs = Vec::new();
        for name in from {
            if let Some(index) = self.find(name)
                && !needs.contains(&Source::Node(index))
            {
                needs.push(Source::Node(index));
            }
        }
        if let Some(to) = self.find(to)
            && !needs.is_empty()
        {
            self.flow.graph.joins.push(JoinPoint { join: Join::Any, needs });
            self.need(to, Source::Join(self.flow.graph.joins.len() - 1));
        }
        self
    }

    /// Sets a default of a parameter.
    pub fn default(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.flow.defaults.insert(name.to_owned(), value.into());
        self
    }

    /// Lets expressions read an environment variable.
    pub fn expose_env(mut self, name: &str) -> Self {
        self.flow.expose_env.push(name.to_owned());
        self
    }

    /// Checks the flow.
    ///
    /// # Errors
    /// The first problem in the order of the calls, then a graph that is empty, too large or cyclic.
    pub fn build(self) -> Result<Flow, FlowError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let count = self.flow.graph.nodes.len();
        let checked = if count == 0 {
            Err(crate::flow::graph::whole("it names no task".to_owned()))
        } else if count > MAX_GRAPH_NODES {
            Err(crate::flow::graph::whole(format!("more than {MAX_GRAPH_NODES} tasks")))
        } else {
            self.flow.graph.check_cycles()
        };
        match checked {
            Ok(()) => Ok(self.flow),
            Err(source) => Err(FlowError::Graph { flow: self.flow.name, source }),
        }
    }

    fn add(mut self, name: &str, body: TaskBody, task: &str) -> Self {
        let index = self.flow.graph.nodes.len();
        if self.places.insert(name.to_owned(), index).is_some() {
            self.report(FlowError::DuplicateTask { flow: self.flow.name.clone(), task: name.to_owned() });
        }
        let node = GraphNode { name: name.to_owned(), task: task.to_owned(), needs: Vec::new() };
        self.flow.graph.nodes.push(node);
        self.flow.bodies.push(body);
        self.flow.inputs.push(Map::new());
        self
    }

    fn need(&mut self, node: usize, source: Source) {
        let needs = &mut self.flow.graph.nodes[node].needs;
        if !needs.contains(&source) {
            needs.push(source);
        }
    }

    fn find(&mut self, task: &str) -> Option<usize> {
        let found = self.places.get(task).copied();
        if found.is_none() {
            let flow = self.flow.name.clone();
            self.report(FlowError::UnknownTask { flow, task: task.to_owned() });
        }
        found
    }

    fn report(&mut self, problem: FlowError) {
        self.problem.get_or_insert(problem);
    }
}
