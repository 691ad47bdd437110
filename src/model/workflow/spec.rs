//! What a `flow.yaml` may say, and the reason given when it says something else.

use std::fmt;

use serde_json::{Map, Value};

use super::node::{self, Node};
use super::yaml;
use crate::model::limits::MAX_ERROR_BYTES;
use crate::model::run::truncated;

/// A `flow.yaml` that has passed every check of `docs/flow.md#flowyaml`. Its graph is text: whether
/// it can be run is known to the engine alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// The document's format, when it names one; nothing depends on it yet.
    pub version: Option<i64>,
    pub graph: String,
    /// `flow.defaults`: the parameters of a run that brings none, in the document's order.
    pub defaults: Map<String, Value>,
    /// `tasks`, in the document's order; names are unique.
    pub tasks: Vec<TaskSpec>,
    pub pipes: Vec<(String, String)>,
    /// `runtime.expose_env`: environment variables that expressions may read.
    pub expose_env: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    pub name: String,
    /// `callable`: `module:function`, for Python workers.
    pub callable: Option<String>,
    /// `use`: the name of a registered task.
    pub use_: Option<String>,
    /// `inputs`: values and expressions.
    pub inputs: Map<String, Value>,
    pub outputs: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRefusal {
    reason: String,
    detail: Option<String>,
}

impl WorkflowRefusal {
    /// One of the reasons in `docs/flow.md#flowyaml`, as exact text.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Where in the text and what, for `invalid_yaml` and `invalid_utf8`.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for WorkflowRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for WorkflowRefusal {}

impl Workflow {
    /// Reads and checks a document. The checks come in the order of the Python gateway: the top
    /// level, `flow`, `tasks` in the document's order, `pipes`, `runtime`, `version`; the first one
    /// that fails gives the reason. As there, an empty or false value stands for a missing one.
    pub fn parse(bytes: &[u8]) -> Result<Workflow, WorkflowRefusal> {
        let text = std::str::from_utf8(bytes).map_err(|error| WorkflowRefusal {
            reason: "invalid_utf8".to_owned(),
            detail: Some(format!("byte {}", error.valid_up_to() + 1)),
        })?;
        let root = yaml::parse(text).map_err(|error| WorkflowRefusal {
            reason: "invalid_yaml".to_owned(),
            detail: Some(error.to_string()),
        })?;
        let Node::Map(fields) = &root else { return refuse("invalid_yaml_root") };
        for (key, reason) in [("flows", "unsupported_key_flows"), ("discovery", "unsupported_key_discovery")]
        {
            if root.get(key).is_some() {
                return refuse(reason);
            }
        }
        only_keys(fields, &["version", "flow", "tasks", "pipes", "runtime"], || {
            "unknown_top_level_keys".to_owned()
        })?;
        let (graph, defaults) = flow(root.get("flow"))?;
        Ok(Workflow {
            graph,
            defaults,
            tasks: tasks(root.get("tasks"))?,
            pipes: pipes(root.get("pipes"))?,
            expose_env: runtime(root.get("runtime"))?,
            version: version(root.get("version"))?,
        })
    }

    pub fn task(&self, name: &str) -> Option<&TaskSpec> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, WorkflowRefusal> {
    Err(WorkflowRefusal { reason: truncated(reason.into(), MAX_ERROR_BYTES), detail: None })
}

fn only_keys(
    pairs: &[(Node, Node)],
    known: &[&str],
    reason: impl FnOnce() -> String,
) -> Result<(), WorkflowRefusal> {
    let unknown = |key: &&Node| !matches!(key, Node::Str(key) if known.contains(&key.as_str()));
    let unknown: Vec<&Node> = pairs.iter().map(|(key, _)| key).filter(unknown).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    refuse(format!("{}: {}", reason(), node::repr_sorted(unknown)))
}

/// The value unless it is missing or counts as missing.
fn present(value: Option<&Node>) -> Option<&Node> {
    value.filter(|value| !value.is_falsy())
}

fn texts(value: &Node) -> Option<Vec<String>> {
    let Node::Seq(items) = value else { return None };
    items
        .iter()
        .map(|item| match item {
            Node::Str(text) => Some(text.clone()),
            _ => None,
        })
        .collect()
}

fn flow(flow: Option<&Node>) -> Result<(String, Map<String, Value>), WorkflowRefusal> {
    let flow = match flow {
        None | Some(Node::Null) => return refuse("missing_flow"),
        Some(flow) => flow,
    };
    let Node::Map(fields) = flow else { return refuse("invalid_flow") };
    only_keys(fields, &["graph", "defaults"], || "unknown_flow_keys".to_owned())?;
    let graph = match flow.get("graph") {
        Some(Node::Str(graph)) if !graph.trim().is_empty() => graph.clone(),
        _ => return refuse("missing_flow_graph"),
    };
    let defaults = match present(flow.get("defaults")) {
        None => Map::new(),
        Some(Node::Map(pairs)) => node::into_object(pairs.clone()),
        Some(_) => return refuse("invalid_flow_defaults"),
    };
    Ok((graph, defaults))
}

fn tasks(tasks: Option<&Node>) -> Result<Vec<TaskSpec>, WorkflowRefusal> {
    match present(tasks) {
        None => Ok(Vec::new()),
        Some(Node::Map(entries)) => entries.iter().map(|(name, config)| task(name, config)).collect(),
        Some(_) => refuse("invalid_tasks"),
    }
}

fn task(name: &Node, config: &Node) -> Result<TaskSpec, WorkflowRefusal> {
    let Node::Str(name) = name else { return refuse("invalid_task_name") };
    if name.trim().is_empty() {
        return refuse("invalid_task_name");
    }
    let Node::Map(fields) = config else { return refuse(format!("invalid_task_config: {name}")) };
    only_keys(fields, &["callable", "use", "inputs", "outputs"], || format!("unknown_task_keys: {name}"))?;
    let callable = match config.get("callable") {
        None | Some(Node::Null) => None,
        Some(Node::Str(callable)) if callable.contains(':') => Some(callable.clone()),
        Some(_) => return refuse(format!("invalid_task_callable: {name}")),
    };
    let use_ = match present(config.get("use")) {
        None => None,
        // Two sources of one task contradict each other.
        Some(Node::Str(used)) if !used.trim().is_empty() && callable.is_none() => Some(used.clone()),
        Some(_) => return refuse(format!("invalid_task_use: {name}")),
    };
    let inputs = match present(config.get("inputs")) {
        None => Map::new(),
        Some(Node::Map(pairs)) => node::into_object(pairs.clone()),
        Some(_) => return refuse(format!("invalid_task_inputs: {name}")),
    };
    let outputs = match present(config.get("outputs")) {
        None => Vec::new(),
        Some(list) => match texts(list) {
            Some(outputs) => outputs,
            None => return refuse(format!("invalid_task_outputs: {name}")),
        },
    };
    Ok(TaskSpec { name: name.clone(), callable, use_, inputs, outputs })
}

fn pipes(pipes: Option<&Node>) -> Result<Vec<(String, String)>, WorkflowRefusal> {
    let Some(pipes) = present(pipes) else { return Ok(Vec::new()) };
    let Node::Map(entries) = pipes else { return refuse("invalid_pipes") };
    entries
        .iter()
        .map(|(name, graph)| match (name, graph) {
            (Node::Str(name), Node::Str(graph)) if !name.trim().is_empty() => {
                Ok((name.clone(), graph.clone()))
            }
            (Node::Str(name), _) if !name.trim().is_empty() => refuse(format!("invalid_pipes: {name}")),
            _ => refuse("invalid_pipes"),
        })
        .collect()
}

fn runtime(runtime: Option<&Node>) -> Result<Vec<String>, WorkflowRefusal> {
    let Some(runtime) = present(runtime) else { return Ok(Vec::new()) };
    let Node::Map(fields) = runtime else { return refuse("invalid_runtime") };
    only_keys(fields, &["expose_env"], || "unknown_runtime_keys".to_owned())?;
    match present(runtime.get("expose_env")) {
        None => Ok(Vec::new()),
        Some(list) => match texts(list) {
            Some(names) => Ok(names),
            None => refuse("invalid_runtime_expose_env"),
        },
    }
}

/// Whatever Python's `int()` takes: whole numbers, booleans, floats without their fraction, digits.
fn version(version: Option<&Node>) -> Result<Option<i64>, WorkflowRefusal> {
    let number = match version {
        None => return Ok(None),
        Some(Node::Bool(value)) => Some(i64::from(*value)),
        Some(Node::Int(value)) => i64::try_from(*value).ok(),
        Some(Node::Float(value)) if value.is_finite() => Some(*value as i64),
        Some(Node::Str(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) => Ok(Some(number)),
        None => refuse("invalid_version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reason(text: &str) -> String {
        match Workflow::parse(text.as_bytes()) {
            Ok(_) => "taken".to_owned(),
            Err(refusal) => refusal.reason().to_owned(),
        }
    }

    #[test]
    fn every_field_is_read_in_its_order() {
        let text = "
version: 1
flow:
  graph: a >> b
  defaults: {zeta: 012, alpha: yes, 1: one, when: 2020-01-01, bad: .nan}
tasks:
  b: {callable: 'm:f', inputs: {x: $node.a.output, y: [1, {z: off}]}, outputs: [r, s]}
  a: {use: builtin/echo}
pipes: {p: a >> b}
runtime: {expose_env: [HOME]}
";
        let workflow = Workflow::parse(text.as_bytes()).unwrap();
        assert_eq!(workflow.version, Some(1));
        assert_eq!(workflow.graph, "a >> b");
        assert_eq!(
            serde_json::to_string(&workflow.defaults).unwrap(),
            r#"{"zeta":10,"alpha":true,"1":"one","when":"2020-01-01","bad":null}"#
        );
        let names: Vec<&str> = workflow.tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        let b = workflow.task("b").unwrap();
        assert_eq!(b.callable.as_deref(), Some("m:f"));
        assert_eq!(b.outputs, ["r", "s"]);
        assert_eq!(Value::Object(b.inputs.clone()), json!({"x": "$node.a.output", "y": [1, {"z": false}]}));
        assert_eq!(workflow.task("a").unwrap().use_.as_deref(), Some("builtin/echo"));
        assert_eq!(workflow.pipes, [("p".to_owned(), "a >> b".to_owned())]);
        assert_eq!(workflow.expose_env, ["HOME"]);
    }

    #[test]
    fn what_is_not_text_or_yaml_says_where() {
        let refusal = Workflow::parse(b"flow: \xff").unwrap_err();
        assert_eq!((refusal.reason(), refusal.detail()), ("invalid_utf8", Some("byte 7")));
        let refusal = Workflow::parse(b"flow:\n  a: !!python/name:os.system x").unwrap_err();
        assert_eq!(refusal.reason(), "invalid_yaml");
        assert!(refusal.to_string().contains("line 2"), "{refusal}");
        for text in ["a: [", "flow: {graph: a}\n---\nflow: {graph: b}", "a: &x {b: *x}", "a: *x"] {
            assert_eq!(reason(text), "invalid_yaml", "{text}");
        }
    }

    /// Observed at the Python gateway, but for `use` and `pipes`, which it does not know.
    #[test]
    fn every_refusal_has_its_reason() {
        for (text, expected) in [
            ("", "invalid_yaml_root"),
            ("[]", "invalid_yaml_root"),
            ("# x", "invalid_yaml_root"),
            ("discovery: 1\nflows: 1\nzz: 1", "unsupported_key_flows"),
            ("flows:\nflow: {graph: a}", "unsupported_key_flows"),
            ("discovery: {}\nzz: 1", "unsupported_key_discovery"),
            ("zz: 1\nyy: 2", "unknown_top_level_keys: ['yy', 'zz']"),
            ("yes: 1\n9: 2\n-1.5: 3\nflow: 1", "unknown_top_level_keys: [-1.5, True, 9]"),
            ("\"it's\": 1", "unknown_top_level_keys: [\"it's\"]"),
            ("~: 1", "unknown_top_level_keys: [None]"),
            ("{}", "missing_flow"),
            ("flow:", "missing_flow"),
            ("flow: []", "invalid_flow"),
            ("flow: false", "invalid_flow"),
            ("flow: {x: 1, b: 2, graph: a}", "unknown_flow_keys: ['b', 'x']"),
            ("flow: {}", "missing_flow_graph"),
            ("flow: {graph: 3}", "missing_flow_graph"),
            ("flow: {graph: '  ', defaults: x}", "missing_flow_graph"),
            ("flow: {graph: a, defaults: x}", "invalid_flow_defaults"),
            ("flow: {graph: a, defaults: []}", "taken"),
            ("flow: {graph: a}\ntasks: 3", "invalid_tasks"),
            ("flow: {graph: a}\ntasks: []\nruntime:\npipes: {}", "taken"),
            ("flow: {graph: a}\ntasks: {1: {}}", "invalid_task_name"),
            ("flow: {graph: a}\ntasks: {' ': {}}", "invalid_task_name"),
            ("flow: {graph: a}\ntasks: {a: }", "invalid_task_config: a"),
            ("flow: {graph: a}\ntasks: {b: 3, 1: {}}", "invalid_task_config: b"),
            ("flow: {graph: a}\ntasks: {a: {}}", "taken"),
            ("flow: {graph: a}\ntasks: {a: {zz: 1, 1: 2}}", "unknown_task_keys: a: [1, 'zz']"),
            ("flow: {graph: a}\ntasks: {a: {callable: x}}", "invalid_task_callable: a"),
            ("flow: {graph: a}\ntasks: {a: {callable: 3, inputs: 3}}", "invalid_task_callable: a"),
            ("flow: {graph: a}\ntasks: {a: {callable: }}", "taken"),
            ("flow: {graph: a}\ntasks: {a: {use: 3}}", "invalid_task_use: a"),
            ("flow: {graph: a}\ntasks: {a: {use: x, callable: 'a:b'}}", "invalid_task_use: a"),
            ("flow: {graph: a}\ntasks: {a: {inputs: 3, outputs: 3}}", "invalid_task_inputs: a"),
            ("flow: {graph: a}\ntasks: {a: {outputs: q}}", "invalid_task_outputs: a"),
            ("flow: {graph: a}\ntasks: {a: {outputs: [1]}}", "invalid_task_outputs: a"),
            ("flow: {graph: a}\npipes: 3\nruntime: 3", "invalid_pipes"),
            ("flow: {graph: a}\npipes: {p: 3}", "invalid_pipes: p"),
            ("flow: {graph: a}\nruntime: 3\nversion: x", "invalid_runtime"),
            ("flow: {graph: a}\nruntime: {b: 1, a: 2, expose_env: 3}", "unknown_runtime_keys: ['a', 'b']"),
            ("flow: {graph: a}\nruntime: {expose_env: X}", "invalid_runtime_expose_env"),
            ("flow: {graph: a}\nruntime: {expose_env: [1]}", "invalid_runtime_expose_env"),
            ("flow: {graph: a}\nversion:", "invalid_version"),
            ("flow: {graph: a}\nversion: x", "invalid_version"),
            ("flow: {graph: a}\nversion: .inf", "invalid_version"),
            ("flow: {graph: a}\nversion: true", "taken"),
            ("flow: {graph: a}\nversion: '2'", "taken"),
            ("flow: {graph: '>> ??'}", "taken"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }

    #[test]
    fn a_reason_is_bounded() {
        let keys: String = (0..20_000).map(|n| format!("key{n}: 1\n")).collect();
        assert!(reason(&keys).len() <= MAX_ERROR_BYTES);
    }
}
