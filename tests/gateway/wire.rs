//! What a submit leaves on NATS: the snapshot (`docs/spec.md#run-snapshot`) and the job
//! (`docs/spec.md#job-message`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::jetstream;

fn keys(document: &Value) -> BTreeSet<&str> {
    document.as_object().unwrap().keys().map(String::as_str).collect()
}

fn header<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[test]
fn a_fresh_run_is_a_pending_snapshot_and_a_job_with_its_id() {
    let cluster = Cluster::with_gateway();
    let before = pyoco_server::model::clock::now();
    let run_id = cluster.submit(&json!({
        "flow_name": "naïve",
        "params": {"é": "日本 \u{1f600}", "n": 1, "f": 1.0, "u": 18_446_744_073_709_551_615u64},
        "tag": "gpu",
        "tags": ["x", "ÿ"],
    }));
    let key = format!("$KV.pyoco_runs.{run_id}");
    let stored = jetstream::last(&cluster.nats, "KV_pyoco_runs", &key).unwrap();
    let snapshot = stored.json();
    let wanted = [
        "run_id",
        "flow_name",
        "tag",
        "tags",
        "tenant_id",
        "api_key_id",
        "status",
        "params",
        "tasks",
        "task_records",
        "start_time",
        "end_time",
        "heartbeat_at",
        "updated_at",
        "error",
        "submitted_at",
    ];
    assert_eq!(keys(&snapshot), BTreeSet::from(wanted));
    assert_eq!((&snapshot["run_id"], &snapshot["status"]), (&json!(run_id), &json!("PENDING")));
    assert_eq!((&snapshot["flow_name"], &snapshot["tag"]), (&json!("naïve"), &json!("gpu")));
    assert_eq!(snapshot["tags"], json!(["x", "ÿ"]));
    assert_eq!(snapshot["params"]["é"], "日本 \u{1f600}");
    assert_eq!(snapshot["params"]["u"], 18_446_744_073_709_551_615u64);
    assert!(snapshot["params"]["f"].is_f64() && snapshot["params"]["n"].is_u64());
    let at = snapshot["updated_at"].as_f64().unwrap();
    assert!(at >= before && at <= pyoco_server::model::clock::now(), "{at}");
    assert_eq!(snapshot["heartbeat_at"], snapshot["updated_at"]);
    assert_eq!(snapshot["submitted_at"], snapshot["updated_at"]);

    let message = jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.gpu").unwrap();
    assert_eq!(header(&message.headers, "Nats-Msg-Id"), Some(run_id.as_str()));
    let job = message.json();
    let wanted = ["run_id", "flow_name", "tag", "tags", "params", "submitted_at", "tenant_id", "api_key_id"];
    assert_eq!(keys(&job), BTreeSet::from(wanted));
    for field in wanted {
        assert_eq!(job[field], snapshot[field], "{field}");
    }
    for bytes in [&stored.data, &message.data] {
        assert!(bytes.is_ascii(), "not escaped: {}", String::from_utf8_lossy(bytes));
        let text = String::from_utf8_lossy(bytes);
        assert!(text.contains(r#""\u00e9":"\u65e5\u672c \ud83d\ude00""#), "not compact: {text}");
    }
}

#[test]
fn a_document_travels_with_the_job_and_not_with_the_snapshot() {
    let cluster = Cluster::with_gateway();
    let yaml = "# é\nflow: {graph: a, defaults: {k: 1}}\n";
    let parts: &[(&str, Option<&str>, &[u8])] =
        &[("workflow", Some("f"), yaml.as_bytes()), ("flow_name", None, b"m")];
    assert_eq!(cluster.post_form("/runs/yaml", parts).status, 200);
    let job = jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.default").unwrap().json();
    assert_eq!(job["workflow_yaml"], yaml);
    assert_eq!(job["workflow_yaml_bytes"], yaml.len());
    // sha256sum of the text above.
    let hash = job["workflow_yaml_sha256"].as_str().unwrap();
    assert_eq!(hash, HASH);
    assert_eq!(job["params"], json!({"k": 1}));
    let key = format!("$KV.pyoco_runs.{}", job["run_id"].as_str().unwrap());
    let snapshot = jetstream::last(&cluster.nats, "KV_pyoco_runs", &key).unwrap().json();
    assert!(snapshot.get("workflow_yaml").is_none(), "{snapshot}");
    assert_eq!(snapshot["workflow_yaml_sha256"], job["workflow_yaml_sha256"]);
    assert_eq!(snapshot["workflow_yaml_bytes"], job["workflow_yaml_bytes"]);
}

const HASH: &str = "938c2a6e22d60a9a2ceac116e228e1b0e1e41d64165184838f2b91a621752594";

#[test]
fn resources_are_created_with_the_settings_of_the_contract() {
    let cluster = Cluster::with_gateway();
    cluster.submit(&json!({"flow_name": "m"}));
    let config = |stream: &str| {
        jetstream::call(&cluster.nats, &format!("STREAM.INFO.{stream}"), &json!(null))["config"].clone()
    };
    let work = config("PYOCO_WORK");
    assert_eq!(work["subjects"], json!(["pyoco.work.>"]));
    assert_eq!((&work["retention"], &work["discard"]), (&json!("workqueue"), &json!("new")));
    assert_eq!(work["duplicate_window"], 600_000_000_000u64);
    // The gateway makes what it needs; a worker makes the rest.
    cluster.bus.ensure_resources().unwrap();
    let dlq = config("PYOCO_DLQ");
    assert_eq!((&dlq["subjects"], &dlq["retention"]), (&json!(["pyoco.dlq.>"]), &json!("limits")));
    assert_eq!(dlq["max_age"], 604_800_000_000_000u64);
    assert_eq!((&dlq["max_msgs"], &dlq["max_bytes"]), (&json!(100_000), &json!(536_870_912)));
    for bucket in ["KV_pyoco_runs", "KV_pyoco_workers"] {
        let config = config(bucket);
        assert_eq!((&config["max_msgs_per_subject"], &config["max_age"]), (&json!(1), &json!(0)));
    }
}

#[test]
fn names_and_subjects_follow_the_settings() {
    let cluster = Cluster::with_gateway_env(&[
        ("PYOCO_WORK_SUBJECT_PREFIX", "acme.jobs"),
        ("PYOCO_RUNS_KV_BUCKET", "acme_runs"),
        ("PYOCO_DEFAULT_TAG", "cpu"),
    ]);
    let run_id = cluster.submit(&json!({"flow_name": "m"}));
    let key = format!("$KV.acme_runs.{run_id}");
    let snapshot = jetstream::last(&cluster.nats, "KV_acme_runs", &key).unwrap().json();
    assert_eq!((&snapshot["tag"], &snapshot["tags"]), (&json!("cpu"), &json!(["cpu"])));
    let job = jetstream::last(&cluster.nats, "PYOCO_WORK", "acme.jobs.cpu").unwrap().json();
    assert_eq!(job["run_id"], run_id);
}
