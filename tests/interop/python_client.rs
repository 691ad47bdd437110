//! The client of the Python package talks to our gateway.

use serde_json::{Value, json};

use crate::cluster::{cluster_with_flows, wait_at_rest, wait_python_task};
use crate::flows::GREETING_YAML;
use crate::support::cluster::Options;
use crate::support::runs::ids;

#[test]
fn its_commands_work() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");
    let client = gateway.python_program();

    let submitted = client.json(&[
        "submit",
        "--flow-name",
        "sums",
        "--params",
        r#"{"x": 1}"#,
        "--param",
        "y=10",
        "--tag",
        "py",
        "--tags",
        "nightly,small",
    ]);
    assert_eq!(submitted["status"], "PENDING");
    let run_id = submitted["run_id"].as_str().unwrap();
    gateway.ended(run_id);

    let run = client.json(&["get", run_id]);
    assert_eq!((&run["status"], &run["run_id"]), (&json!("COMPLETED"), &json!(run_id)));
    assert_eq!(run["tags"], json!(["nightly", "small"]));
    assert!(run.get("task_records").is_none(), "{run}");
    let run = client.json(&["get", run_id, "--records"]);
    assert_eq!(run["task_records"]["twice"]["output"], 22);
    let tasks = client.json(&["tasks", run_id]);
    assert_eq!(tasks["tasks"], json!({"add": "SUCCEEDED", "twice": "SUCCEEDED"}));

    let document = cluster.write("flow.yaml", GREETING_YAML);
    let yaml =
        client.json(&["submit-yaml", "--workflow-file", &document, "--flow-name", "greeting", "--tag", "py"]);
    let yaml_id = yaml["run_id"].as_str().unwrap();
    assert_eq!(gateway.ended(yaml_id)["status"], "COMPLETED");

    wait_at_rest(&gateway, &[run_id, yaml_id]);
    let list = client.json(&["list", "--status", "COMPLETED", "--limit", "10"]);
    assert_eq!(ids(&list), [yaml_id, run_id]);
    assert_eq!(ids(&client.json(&["list", "--flow", "sums", "--full"])), [run_id]);
    let table = client.text(&["list", "--output", "table"]);
    assert!(table.contains(run_id) && table.contains(yaml_id), "{table}");
    let page = client.json(&["list-vnext", "--limit", "1", "--updated-after", "0"]);
    assert_eq!(ids(&page["items"]), [yaml_id]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = client.json(&["list-vnext", "--limit", "1", "--cursor", cursor]);
    assert_eq!(ids(&page["items"]), [run_id]);
}

#[test]
fn its_cancel_ends_a_run() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");
    let client = gateway.python_program();
    let run_id = gateway.submit_flow("py", "cancel_between", json!({}));
    wait_python_task(&gateway, &run_id, "until_cancelled");
    let finished = client.finish(&["cancel", "--run-id", &run_id, "--wait", "--timeout-sec", "20"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("CANCELLED"), "{finished:?}");
    assert_eq!(gateway.run(&run_id)["status"], "CANCELLED");
}

#[test]
fn its_errors_are_understood() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let client = gateway.python_program();
    let finished = client.finish(&["get", "no-such-run"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let shown = format!("{}{}", finished.stdout, finished.stderr);
    assert!(shown.contains("run not found"), "{finished:?}");
    assert_eq!(client.json(&["list"]), Value::Array(Vec::new()));
}
