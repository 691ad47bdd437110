//! The client of the Python package talks to our gateway.

use serde_json::{Value, json};

use crate::flows::GREETING_YAML;
use crate::site::{Client, Site, ids};

#[test]
fn its_commands_work() {
    let site = Site::start();
    let gateway = site.our_gateway();
    let _worker = site.python_worker("py");
    let client = Client::python(&site, &gateway);

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

    let document = site.write("flow.yaml", GREETING_YAML);
    let yaml = client.json(&[
        "submit-yaml",
        "--workflow-file",
        &document,
        "--flow-name",
        "greeting",
        "--tag",
        "py",
    ]);
    let yaml_id = yaml["run_id"].as_str().unwrap();
    assert_eq!(gateway.ended(yaml_id)["status"], "COMPLETED");

    gateway.at_rest(&[run_id, yaml_id]);
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
    let site = Site::start();
    let gateway = site.our_gateway();
    let _worker = site.python_worker("py");
    let client = Client::python(&site, &gateway);
    let run_id = gateway.submit("py", "cancel_between", json!({}));
    gateway.task_runs_in_python(&run_id, "until_cancelled");
    let finished = client.finish(&["cancel", "--run-id", &run_id, "--wait", "--timeout-sec", "20"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("CANCELLED"), "{finished:?}");
    assert_eq!(gateway.run(&run_id)["status"], "CANCELLED");
}

#[test]
fn its_errors_are_understood() {
    let site = Site::start();
    let gateway = site.our_gateway();
    let client = Client::python(&site, &gateway);
    let finished = client.finish(&["get", "no-such-run"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let shown = format!("{}{}", finished.stdout, finished.stderr);
    assert!(shown.contains("run not found"), "{finished:?}");
    assert_eq!(client.json(&["list"]), Value::Array(Vec::new()));
}
