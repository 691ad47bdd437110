//! What tasks are given and give back, and documents that cannot run.

use std::collections::HashMap;

use pyoco_server::flow::{Executor, NativeExecutor, Outcome, Registry};
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::flow::{job, run_yaml, start, turn};

fn error_of(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { error } | Outcome::FlowNotFound { error } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn expressions_carry_values_from_task_to_task() {
    let _turn = turn();
    let executor = NativeExecutor::new(Registry::with_builtins())
        .with_environment(|name| HashMap::from([("REGION", "eu")]).get(name).map(|v| (*v).into()));
    let yaml = "
flow:
  graph: source >> sink
  defaults: {size: 012, label: default}
tasks:
  source: {use: builtin/echo, inputs: {items: [{id: 7}, {id: 8}], flag: off}}
  sink:
    use: builtin/echo
    inputs:
      whole: $node.source.output
      second: $node.source.output.items.1.id
      list: [$ctx.params.size, {deep: '$node.source.output.items[0]'}]
      label: $ctx.params.label
      region: $env.REGION
      text: costs $5
      dollar: $$ctx.params.size
    outputs: [whole]
runtime: {expose_env: [REGION]}
";
    let mut run = start(&executor, job("main", Some(yaml), json!({"label": "own"})));
    assert_eq!(run.finish(), Outcome::Completed);
    assert_eq!(
        run.record("sink").inputs,
        json!({
            "whole": {"items": [{"id": 7}, {"id": 8}], "flag": false},
            "second": 8,
            "list": [10, {"deep": {"id": 7}}],
            "label": "own",
            "region": "eu",
            "text": "costs $5",
            "dollar": "$ctx.params.size",
        })
    );
}

#[test]
fn an_echo_without_inputs_shows_the_parameters() {
    let _turn = turn();
    let executor = NativeExecutor::new(Registry::with_builtins());
    let yaml = "flow: {graph: 'e: say', defaults: {a: 1, b: 2}}\ntasks: {say: {use: builtin/echo}}";
    let mut run = start(&executor, job("main", Some(yaml), json!({"b": 3})));
    assert_eq!(run.finish(), Outcome::Completed);
    assert_eq!(run.record("e").output, json!({"a": 1, "b": 3}));
}

#[test]
fn an_expression_that_cannot_be_resolved_fails_its_task() {
    let _turn = turn();
    for (expression, why) in [
        ("$env.HOME", "task `x`: input `v`: `$env.HOME`: `HOME` is not exposed"),
        ("$env.EXPOSED", "is not set on this worker"),
        ("$env.PYOCO_AUTH_PEPPER", "not for flows"),
        ("$node.later.output", "task `later` has not succeeded before this one"),
        ("$node.nobody.output", "the graph has no task `nobody`"),
        ("$ctx.params.missing", "the run has no parameter `missing`"),
        ("$nonsense", "is no expression"),
    ] {
        let run = run_yaml(&format!(
            "
flow: {{graph: x >> later}}
tasks:
  x: {{use: builtin/echo, inputs: {{v: {expression}}}}}
  later: {{use: builtin/echo}}
runtime: {{expose_env: [EXPOSED, PYOCO_AUTH_PEPPER]}}
"
        ));
        assert_eq!(run.story(), ["x Running", "x Failed", "later Cancelled"]);
        let error = error_of(run.outcome());
        assert!(error.contains(why), "{expression}: {error}");
        assert_eq!(run.record("x").error.as_deref(), Some(error.as_str()));
    }
}

#[test]
fn a_chain_that_doubles_its_values_is_stopped() {
    let _turn = turn();
    let mut yaml = "flow:\n  graph: n0".to_owned();
    let mut tasks = "tasks:\n  n0: {use: builtin/echo, inputs: {l: xxxxxxxxxxxxxxxx}}\n".to_owned();
    for n in 1..60 {
        yaml.push_str(&format!(" >> n{n}"));
        let before = format!("$node.n{}.output.l", n - 1);
        tasks.push_str(&format!("  n{n}: {{use: builtin/echo, inputs: {{l: [{before}, {before}]}}}}\n"));
    }
    let run = run_yaml(&format!("{yaml}\n{tasks}"));
    let error = error_of(run.outcome());
    assert!(error.contains("expressions of this run copy more than"), "{error}");
}

#[test]
fn inputs_of_builtins_are_checked() {
    let _turn = turn();
    for (inputs, why) in [
        ("{}", "input `seconds` of task `s`"),
        ("{seconds: soon}", "input `seconds` of task `s`"),
        ("{seconds: -1}", "it must be from 0"),
        ("{seconds: 1.0e+300}", "it must be from 0"),
        ("{seconds: 0, ignore_cancel: 3}", "input `ignore_cancel` of task `s`"),
    ] {
        let yaml = format!("flow: {{graph: s}}\ntasks: {{s: {{use: builtin/sleep, inputs: {inputs}}}}}");
        let run = run_yaml(&yaml);
        let error = error_of(run.outcome());
        assert!(error.contains(why), "{inputs}: {error}");
        assert_eq!(run.record("s").state, TaskStatus::Failed);
    }
}

#[test]
fn a_document_that_cannot_run_says_so_in_the_outcome() {
    let _turn = turn();
    let executor = NativeExecutor::new(Registry::with_builtins());
    for (yaml, accepted, outcome) in [
        ("flow: [", false, "F invalid workflow yaml: invalid_yaml"),
        ("flow: {graph: a}\nflows: {}", false, "F invalid workflow yaml: unsupported_key_flows"),
        ("flow: {graph: a}", false, "N task `a` uses `a`, which is not registered"),
        ("flow: {graph: a}\ntasks: {a: {use: my/task}}", false, "N task `a` uses `my/task`"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm:f'}}", false, "N task `a` is the Python function `m:f`"),
        ("flow: {graph: a}\ntasks: {a: {use: builtin/echo}, b: {callable: 'm:f'}}", false, "completed"),
        ("flow: {graph: a >> a}\ntasks: {a: {use: builtin/echo}}", true, "F invalid graph: cycle: a >> a"),
        (
            "flow: {graph: 'a >> repeat(n=2){ a }'}\ntasks: {a: {use: builtin/echo}}",
            true,
            "F invalid graph: line 1, column 6: `repeat` is not supported",
        ),
        ("flow: {graph: 'repeat(n=2){ a }'}", false, "F invalid graph: line 1, column 1: `repeat`"),
        ("flow: {graph: a}\ntasks: {a: {use: builtin/echo}}", true, "completed"),
    ] {
        let job = job("main", Some(yaml), json!({}));
        assert_eq!(executor.accepts(&job), accepted, "{yaml}");
        let mut run = start(&executor, job);
        let shown = match run.finish() {
            Outcome::Failed { error } => format!("F {error}"),
            Outcome::FlowNotFound { error } => format!("N {error}"),
            Outcome::Completed => "completed".to_owned(),
            Outcome::HostFault { error, .. } => format!("H {error}"),
            Outcome::Cancelled => "cancelled".to_owned(),
            Outcome::Interrupted { error } => error,
        };
        assert!(shown.starts_with(outcome), "{yaml}: {shown}");
    }
}

#[test]
fn the_first_flow_of_the_manual_runs() {
    let _turn = turn();
    let manual = include_str!("../../docs/flow.md");
    let (_, after) = manual.split_once("```yaml\n").unwrap();
    let (yaml, _) = after.split_once("```").unwrap();
    let run = run_yaml(yaml);
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.record("done").output, json!({"said": "world"}));
}
