//! The worker of the Python package executes runs that were submitted to our gateway.

use serde_json::{Value, json};

use crate::cluster::{cluster_with_flows, wait_at_rest, wait_python_task};
use crate::flows::{FAILING_YAML, GREETING_YAML};
use crate::support::cluster::Options;
use crate::support::runs::ids;

#[test]
fn runs_by_name_end_as_their_flows_do() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");

    let good = gateway.submit_flow("py", "sums", json!({"x": 4}));
    let bad = gateway.submit_flow("py", "fails_midway", json!({}));
    let mute = gateway.submit_flow("py", "mute", json!({}));
    let unknown = gateway.submit_flow("py", "no_such_flow", json!({}));

    let run = gateway.ended(&good);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!((&run["flow_name"], &run["tag"]), (&json!("sums"), &json!("py")));
    assert_eq!((&run["params"], &run["error"]), (&json!({"x": 4}), &Value::Null));
    assert_eq!(run["tasks"], json!({"add": "SUCCEEDED", "twice": "SUCCEEDED"}));
    let records = &run["task_records"];
    assert_eq!(records["add"]["output"], json!({"sum": 7}));
    assert_eq!(records["twice"]["output"], 14);
    assert_eq!(records["twice"]["inputs"], json!({"add": {"sum": 7}}));
    assert!(records["add"]["ended_at"].as_f64() <= records["twice"]["started_at"].as_f64());

    let run = gateway.ended(&bad);
    assert_eq!((&run["status"], &run["error"]), (&json!("FAILED"), &json!("it went boom")));
    let tasks = json!({"after": "SUCCEEDED", "boom": "FAILED", "twice": "PENDING"});
    assert_eq!(run["tasks"], tasks);
    let shown = gateway.get_json(&format!("/runs/{bad}/tasks"));
    assert_eq!((&shown["status"], &shown["tasks"]), (&json!("FAILED"), &tasks));
    let record = &shown["task_records"]["boom"];
    assert_eq!(record["error"], "it went boom");
    assert!(record["traceback"].as_str().unwrap().contains("ValueError: it went boom"));
    assert_eq!(shown["task_records_truncated"], false);

    let run = gateway.ended(&mute);
    assert_eq!((&run["status"], &run["error"]), (&json!("FAILED"), &json!("")));

    let run = gateway.ended(&unknown);
    assert_eq!((&run["status"], &run["tasks"]), (&json!("FAILED"), &json!({})));
    assert_eq!(run["error"], "flow_not_found: 'no_such_flow'");

    wait_at_rest(&gateway, &[good.as_str(), &bad, &mute, &unknown]);
    let failed = gateway.get_json("/runs?status=FAILED");
    assert_eq!(ids(&failed).len(), 3, "{failed}");
    assert_eq!(ids(&gateway.get_json("/runs?status=COMPLETED")), [good.as_str()]);
    assert_eq!(ids(&gateway.get_json("/runs?flow=sums&tag=py")), [good.as_str()]);
    let page = gateway.get_json("/runs?limit=3&cursor=");
    let cursor = page["next_cursor"].as_str().expect("a fourth run");
    let rest = gateway.get_json(&format!("/runs?limit=3&cursor={cursor}"));
    let mut paged = [ids(&page["items"]), ids(&rest["items"])].concat();
    paged.sort_unstable();
    let mut all = [&*good, &*bad, &*mute, &*unknown];
    all.sort_unstable();
    assert_eq!(paged, all);
}

#[test]
fn whatever_python_writes_is_shown_as_json() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");
    let flows = ["numbers", "not_json", "text", "half_a_character", "large", "broken_resolver"];
    let runs: Vec<String> = flows.iter().map(|flow| gateway.submit_flow("py", flow, json!({}))).collect();
    let ended: Vec<Value> = runs.iter().map(|run| gateway.ended(run)).collect();
    let output = |at: usize| &ended[at]["task_records"][flows[at]]["output"];

    assert_eq!(*output(0), json!({"nan": null, "inf": null, "pair": [1, 2]}));
    assert_eq!(*output(1), "{'odd': <Odd>}");
    assert_eq!(*output(2), "日本語 \u{1f600} \u{0}");
    assert_eq!(*output(3), "a\u{fffd}b");
    assert_eq!(ended[4]["task_records"], json!({}));
    assert_eq!(ended[4]["task_records_truncated"], true);
    assert_eq!(ended[4]["tasks"], json!({"large": "SUCCEEDED"}));
    // What it stores after an error of its own has lost tag, tags and params.
    assert_eq!((&ended[5]["status"], &ended[5]["error"]), (&json!("FAILED"), &json!("the resolver broke")));
    assert_eq!(ids(&gateway.get_json("/runs")).len(), flows.len());
    assert_eq!(ids(&gateway.get_json("/runs?flow=broken_resolver")), [runs[5].as_str()]);
}

#[test]
fn flow_documents_are_executed() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");
    let good = gateway.submit_yaml("py", "greeting", GREETING_YAML);
    let bad = gateway.submit_yaml("py", "failing", FAILING_YAML);

    let run = gateway.ended(&good);
    assert_eq!((&run["status"], &run["flow_name"]), (&json!("COMPLETED"), &json!("greeting")));
    assert_eq!(run["params"], json!({"name": "Ann"}));
    assert_eq!(run["task_records"]["shout"]["output"], "HELLO ANN");
    assert_eq!(run["workflow_yaml_bytes"], GREETING_YAML.len());
    let hash = run["workflow_yaml_sha256"].as_str().unwrap();
    let found = gateway.get_json(&format!("/runs?workflow_yaml_sha256={hash}"));
    assert_eq!(ids(&found["items"]), [good.as_str()]);

    let run = gateway.ended(&bad);
    assert_eq!((&run["status"], &run["error"]), (&json!("FAILED"), &json!("step failed")));
    assert_eq!(run["tasks"], json!({"greet": "SUCCEEDED", "fail": "FAILED"}));
}

#[test]
fn a_cancel_reaches_the_flow_and_ends_the_run() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");

    let run_id = gateway.submit_flow("py", "cancel_between", json!({}));
    wait_python_task(&gateway, &run_id, "until_cancelled");
    let answer = gateway.cancel(&run_id);
    assert_eq!(answer["status"], "CANCELLING");
    let requested = answer["cancel_requested_at"].as_f64().expect("a time");
    let run = gateway.ended(&run_id);
    assert_eq!(run["status"], "CANCELLED", "{run}");
    assert_eq!(run["tasks"], json!({"until_cancelled": "SUCCEEDED", "after": "CANCELLED"}));
    assert_eq!(run["task_records"]["until_cancelled"]["output"], "stopped");
    assert_eq!(run["cancel_requested_at"].as_f64(), Some(requested));
    assert_eq!(gateway.cancel(&run_id)["status"], "CANCELLED", "an ended run stays");
}

#[test]
fn a_cancel_ends_the_run_also_when_nothing_was_left_to_cancel() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let _worker = cluster.start_python_worker("py");
    // With nothing left to be cancelled the Python worker leaves the run CANCELLING for good,
    // and sometimes goes on writing heartbeats.
    let run_id = gateway.submit_flow("py", "until_cancelled", json!({}));
    wait_python_task(&gateway, &run_id, "until_cancelled");
    gateway.cancel(&run_id);
    let run = gateway.ended(&run_id);
    assert_eq!(run["status"], "CANCELLED", "{run}");
    assert_eq!(run["task_records"]["until_cancelled"]["output"], "stopped");
}
