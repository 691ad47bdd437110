//! Our client and our worker serve the gateway of the Python package.

use std::time::Duration;

use pyoco_server::flow::{Flow, Registry, TaskError};
use serde_json::json;

use crate::cluster::{cluster_with_flows, wait_at_rest, wait_python_task, wait_task};
use crate::flows::GREETING_YAML;
use crate::support::cluster::Options;
use crate::support::process::{Binary, Running};
use crate::support::runs::ids;
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn our_client_submits_shows_lists_and_cancels() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");
    let client = gateway.program();

    let run = client.json(&[
        "submit",
        "--flow-name",
        "sums",
        "--param",
        "x=2",
        "--tag",
        "py",
        "--wait",
        "--timeout-sec",
        "75",
        "--exit-status",
    ]);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let run_id = run["run_id"].as_str().unwrap();
    let shown = client.json(&["get", run_id]);
    assert_eq!((&shown["status"], &shown["params"]), (&json!("COMPLETED"), &json!({"x": 2})));
    assert!(shown.get("task_records").is_none(), "{shown}");
    assert_eq!(client.json(&["get", run_id, "--records"])["task_records"]["twice"]["output"], 10);
    let tasks = client.json(&["tasks", run_id]);
    assert_eq!(tasks["tasks"], json!({"add": "SUCCEEDED", "twice": "SUCCEEDED"}));
    assert!(client.text(&["tasks", run_id, "--output", "table"]).contains("SUCCEEDED"));

    let document = cluster.write("flow.yaml", GREETING_YAML);
    let run = client.json(&[
        "submit-yaml",
        "--workflow-file",
        &document,
        "--flow-name",
        "greeting",
        "--tag",
        "py",
        "--wait",
    ]);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let yaml_id = run["run_id"].as_str().unwrap();
    wait_at_rest(&gateway, &[run_id, yaml_id]);
    let list: Vec<String> = client
        .text(&["list", "--status", "COMPLETED"])
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .flat_map(|document| match document {
            serde_json::Value::Array(runs) => runs,
            one => vec![one],
        })
        .map(|run| run["run_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(list, [yaml_id, run_id]);
    let table = client.text(&["list", "--output", "table"]);
    assert!(table.contains("sums") && table.contains("greeting"), "{table}");

    let cancelled = gateway.submit_flow("py", "cancel_between", json!({}));
    wait_python_task(&gateway, &cancelled, "until_cancelled");
    let finished = client.finish(&["cancel", "--run-id", &cancelled, "--wait", "--timeout-sec", "20"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(gateway.run(&cancelled)["status"], "CANCELLED");

    let finished = client.finish(&["get", "no-such-run"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("run not found"), "{finished:?}");
}

/// Its gateway refuses `use`, so a task of ours is found by its name in the graph.
const NATIVE_YAML: &str = "\
version: 1
flow:
  graph: greet >> shout
  defaults: {name: Ann}
tasks:
  greet: {inputs: {name: $ctx.params.name}}
  shout: {inputs: {text: $node.greet.output}}
";

#[test]
fn our_worker_executes_what_was_submitted_there() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    let worker = cluster.local_worker("native", &["rust"], 2, tasks());

    let yaml = gateway.submit_yaml("rust", "greeting", NATIVE_YAML);
    let run = gateway.ended(&yaml);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(run["tasks"], json!({"greet": "SUCCEEDED", "shout": "SUCCEEDED"}));
    assert_eq!(run["task_records"]["shout"]["output"], "HELLO ANN");
    assert_eq!(run["worker_id"], "native");
    assert_eq!(run["worker_alive"], true);

    let bad = gateway.submit_flow("rust", "failing", json!({}));
    let run = gateway.ended(&bad);
    assert_eq!((&run["status"], &run["tasks"]), (&json!("FAILED"), &json!({"fall": "FAILED"})));
    assert_eq!(run["task_records"]["fall"]["error"], "it fell");

    let waiting = gateway.submit_flow("rust", "waiting", json!({}));
    wait_task(&gateway, &waiting, "wait");
    assert_eq!(gateway.cancel(&waiting)["status"], "CANCELLING");
    let run = gateway.ended(&waiting);
    assert_eq!((&run["status"], &run["tasks"]), (&json!("CANCELLED"), &json!({"wait": "CANCELLED"})));

    assert_eq!(ids(&gateway.get_json("/runs")), [waiting.as_str(), &bad, &yaml]);
    eventually(PATIENCE, "the worker's record to name its last run", || {
        let workers = gateway.get_json("/workers?scope=all");
        let record = &workers[0];
        assert_eq!((&record["worker_id"], &record["tags"]), (&json!("native"), &json!(["rust"])));
        (record["last_run_id"] == json!(waiting)).then_some(())
    });
    eventually(PATIENCE, "the cancelled run in its metrics", || {
        let metrics = gateway.get("/metrics").text();
        metrics.contains("pyoco_runs_total{status=\"CANCELLED\"} 1").then_some(())
    });
    worker.stop().unwrap();
}

#[test]
fn our_worker_program_takes_its_jobs() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    let mut command = cluster.place(Binary::Worker.command());
    command.args(["--tags", "rust", "--worker-id", "program"]);
    let mut worker = Running::start(&mut command);
    let run = gateway.ended(&gateway.submit_flow("rust", "no_such_flow", json!({})));
    assert_eq!(run["status"], "FAILED");
    assert!(run["error"].as_str().unwrap().starts_with("flow_not_found"), "{run}");
    assert_eq!(worker.stop(Duration::from_secs(20)).code(), Some(0));
}

fn tasks() -> Registry {
    let mut registry = Registry::new();
    registry.task("greet", |ctx| Ok(json!(format!("hello {}", ctx.input::<String>("name")?))));
    registry.task("shout", |ctx| Ok(json!(ctx.input::<String>("text")?.to_uppercase())));
    let failing = Flow::builder("failing").task("fall", |_| Err(TaskError::new("it fell")));
    registry.flow(failing.build().unwrap());
    let waiting = Flow::builder("waiting").task("wait", |ctx| {
        ctx.cancel.sleep(Duration::from_secs(60));
        Err(TaskError::cancelled())
    });
    registry.flow(waiting.build().unwrap());
    registry
}
