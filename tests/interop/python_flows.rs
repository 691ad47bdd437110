//! Our worker executes Python flows, for our gateway and for that of the Python package.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{cluster_with_flows, wait_task};
use crate::flows::{FAILING_YAML, GREETING_YAML};
use crate::support::cluster::{Cluster, Gateway, Options};
use crate::support::process::{Binary, Running};
use crate::support::python::{V06, V08};

/// SIGTERM to the end of a worker that has nothing to do.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn for_our_gateway() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    every_kind_of_run(&cluster, &gateway);
}

#[test]
fn for_the_gateway_of_the_python_package() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    every_kind_of_run(&cluster, &gateway);
}

#[test]
fn with_the_oldest_pyoco() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let mut worker = python_flow_worker(&cluster, &V06.path());
    runs_by_name(&gateway);
    cancels(&gateway);
    assert_eq!(worker.stop(STOP_DEADLINE).code(), Some(0));
}

#[test]
fn a_task_that_exits_fails_its_run_alone() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = python_flow_worker(&cluster, &V08.path());
    let left = gateway.submit_flow("py", "leaves", json!({}));
    let next = gateway.submit_flow("py", "sums", json!({"x": 1}));
    let run = gateway.ended(&left);
    assert_eq!(run["status"], "FAILED", "{run}");
    assert_eq!(gateway.ended(&next)["status"], "COMPLETED");
}

fn every_kind_of_run(cluster: &Cluster, gateway: &Gateway) {
    let mut worker = python_flow_worker(cluster, &V08.path());
    runs_by_name(gateway);
    documents(gateway);
    cancels(gateway);
    assert_eq!(worker.stop(STOP_DEADLINE).code(), Some(0));
}

fn python_flow_worker(cluster: &Cluster, python: &Path) -> Running {
    let mut command = cluster.place(Binary::Worker.command());
    command.args(["--tags", "py", "--worker-id", "flows", "--concurrency", "2"]);
    command.args(["--flow-resolver", "flows.py:resolve_flow", "--python"]).arg(python);
    command.env("PYTHONPATH", cluster.folder());
    Running::start(&mut command)
}

fn runs_by_name(gateway: &Gateway) {
    let good = gateway.submit_flow("py", "sums", json!({"x": 4}));
    let bad = gateway.submit_flow("py", "fails_midway", json!({}));
    let mute = gateway.submit_flow("py", "mute", json!({}));
    let unknown = gateway.submit_flow("py", "no_such_flow", json!({}));
    let odd = gateway.submit_flow("py", "not_json", json!({}));
    let numbers = gateway.submit_flow("py", "numbers", json!({}));

    let run = gateway.ended(&good);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(run["tasks"], json!({"add": "SUCCEEDED", "twice": "SUCCEEDED"}));
    assert_eq!(run["task_records"]["add"]["output"], json!({"sum": 7}));
    assert_eq!(run["task_records"]["twice"]["output"], 14);
    assert_eq!(run["worker_id"], "flows");

    let run = gateway.ended(&bad);
    assert_eq!((&run["status"], &run["error"]), (&json!("FAILED"), &json!("it went boom")));
    assert_eq!((&run["tasks"]["after"], &run["tasks"]["boom"]), (&json!("SUCCEEDED"), &json!("FAILED")));
    assert_ne!(run["tasks"]["twice"], "SUCCEEDED");
    let traceback = run["task_records"]["boom"]["traceback"].as_str().unwrap();
    assert!(traceback.contains("ValueError: it went boom"), "{traceback}");

    assert_eq!(gateway.ended(&mute)["status"], "FAILED");

    let run = gateway.ended(&unknown);
    assert_eq!((&run["status"], &run["tasks"]), (&json!("FAILED"), &json!({})));
    assert!(run["error"].as_str().unwrap().starts_with("flow_not_found"), "{run}");

    assert_eq!(output(&gateway.ended(&odd), "not_json"), "{'odd': <Odd>}");
    let shown = output(&gateway.ended(&numbers), "numbers");
    assert_eq!(shown, json!({"nan": null, "inf": null, "pair": [1, 2]}));
}

fn documents(gateway: &Gateway) {
    let run = gateway.ended(&gateway.submit_yaml("py", "greeting", GREETING_YAML));
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(output(&run, "shout"), "HELLO ANN");
    let run = gateway.ended(&gateway.submit_yaml("py", "failing", FAILING_YAML));
    assert_eq!((&run["status"], &run["error"]), (&json!("FAILED"), &json!("step failed")));
}

fn cancels(gateway: &Gateway) {
    for flow in ["cancel_between", "until_cancelled"] {
        let run_id = gateway.submit_flow("py", flow, json!({}));
        wait_task(gateway, &run_id, "until_cancelled");
        assert_eq!(gateway.cancel(&run_id)["status"], "CANCELLING");
        let run = gateway.ended(&run_id);
        assert_eq!(run["status"], "CANCELLED", "{run}");
        assert_ne!(run["tasks"]["after"], "SUCCEEDED");
    }
}

fn output(run: &Value, task: &str) -> Value {
    assert_eq!(run["status"], "COMPLETED", "{run}");
    run["task_records"][task]["output"].clone()
}
