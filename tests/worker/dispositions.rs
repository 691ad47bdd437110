//! Each row of the contract's table: what happened, the snapshot, the message, the DLQ.

use pyoco_server::flow::Registry;
use pyoco_server::model::json;
use serde_json::{Value, json};

use crate::flows;
use crate::support::cluster::{Cluster, Options};
use crate::support::jetstream;
use crate::support::local_worker::LocalWorker;
use crate::support::runs::new_job;
use crate::support::wait::eventually;

fn worker(cluster: &Cluster) -> LocalWorker {
    cluster.local_worker("w1", &["default"], 2, Registry::with_builtins())
}

#[test]
fn done_is_completed_and_acknowledged() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!(history.statuses(), ["PENDING", "RUNNING", "COMPLETED"]);
    let last = history.last();
    assert_eq!((&last["attempt"], &last["worker_id"]), (&json!(1), &json!("w1")));
    assert_eq!(last["tasks"], json!({"hello": "SUCCEEDED"}));
    assert!(last["error"].is_null(), "{last}");
    assert!(cluster.dlq().is_empty());
}

#[test]
fn what_is_no_job_is_terminated_and_shown_in_the_dlq() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let long = "x".repeat(10_000);
    let payloads: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\xff\xfe\x00garbage".to_vec(),
        long.clone().into_bytes(),
        b"[1,2]".to_vec(),
        b"\"text\"".to_vec(),
        b"{}".to_vec(),
        br#"{"run_id":"r1"}"#.to_vec(),
        br#"{"flow_name":"main"}"#.to_vec(),
        br#"{"run_id":"","flow_name":"main"}"#.to_vec(),
        br#"{"run_id":7,"flow_name":"main"}"#.to_vec(),
        br#"{"run_id":"a b","flow_name":"main"}"#.to_vec(),
        br#"{"run_id":"a.*","flow_name":"main"}"#.to_vec(),
        br#"{"run_id":"r\r\nPUB x 0","flow_name":"main"}"#.to_vec(),
        br#"{"run_id":"r2","flow_name":"main","params":[1]}"#.to_vec(),
        [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
    ];
    for payload in &payloads {
        jetstream::publish(&cluster.nats, "pyoco.work.default", payload);
    }
    // The worker goes on.
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    cluster.settled(&run_id, "COMPLETED");
    let entries = cluster.wait_dlq(payloads.len());
    assert_eq!(entries.len(), payloads.len());
    for payload in &payloads {
        let head = String::from_utf8_lossy(&payload[..payload.len().min(4096)]).into_owned();
        let entry = entries
            .iter()
            .find(|entry| entry["payload"] == head.as_str())
            .unwrap_or_else(|| panic!("no entry for {head:.80}"));
        assert_eq!(entry["reason"], "invalid_job");
        assert_eq!(entry["subject"], "pyoco.work.default");
        assert_eq!(entry["num_delivered"], 1);
        assert_eq!(entry["worker_id"], "w1");
        assert!(entry["timestamp"].as_f64().unwrap() > 1.7e9, "{entry}");
        assert!(!entry["error"].as_str().unwrap().is_empty(), "{entry}");
    }
    for run_id in ["r1", "r2"] {
        assert!(cluster.stored(run_id).is_none(), "an invalid job has made a snapshot");
    }
}

#[test]
fn a_job_with_nothing_but_the_required_fields_is_executed() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let payload = json!({"run_id": "bare", "flow_name": "x", "workflow_yaml": flows::ECHO, "zzz": 1});
    jetstream::publish(&cluster.nats, "pyoco.work.default", payload.to_string().as_bytes());
    let history = cluster.settled("bare", "COMPLETED");
    let last = history.last();
    assert_eq!(
        (&last["tag"], &last["tags"], &last["params"]),
        (&json!("default"), &json!(["default"]), &json!({}))
    );
}

#[test]
fn a_python_dialect_job_is_executed() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let job = json!({"run_id": "nan", "flow_name": "x", "params": {"a": "A"}, "workflow_yaml": flows::ECHO});
    let payload = job.to_string().replace("\"A\"", "NaN");
    jetstream::publish(&cluster.nats, "pyoco.work.default", payload.as_bytes());
    let history = cluster.settled("nan", "COMPLETED");
    assert!(history.last()["params"]["a"].is_null(), "{}", history.last());
}

#[test]
fn an_unknown_flow_fails_and_is_shown_in_the_dlq() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_DLQ_PUBLISH_EXECUTION_ERROR", "false")]).start();
    let _worker = worker(&cluster);
    let by_name = cluster.queue("default", "no_such_flow", json!({}));
    let python = "version: 1\nflow: {graph: t}\ntasks: {t: {callable: 'my.module:f'}}\n";
    let by_task = cluster.queue_yaml("default", python);
    for run_id in [&by_name, &by_task] {
        let history = cluster.settled(run_id, "FAILED");
        assert_eq!(history.statuses(), ["PENDING", "RUNNING", "FAILED"]);
        let error = history.last()["error"].as_str().unwrap();
        assert!(error.starts_with("flow_not_found"), "{error}");
    }
    let entries = cluster.wait_dlq(2);
    for run_id in [&by_name, &by_task] {
        let entry = entries.iter().find(|entry| entry["run_id"] == run_id.as_str()).unwrap();
        assert_eq!(entry["reason"], "flow_not_found");
        assert_eq!((&entry["tag"], &entry["num_delivered"]), (&json!("default"), &json!(1)));
        assert_eq!((&entry["worker_id"], &entry["subject"]), (&json!("w1"), &json!("pyoco.work.default")));
    }
}

#[test]
fn a_failed_flow_keeps_its_text_in_the_snapshot_and_in_the_dlq() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let run_id = cluster.queue_yaml("default", &flows::fail("disk is full: é"));
    let history = cluster.settled(&run_id, "FAILED");
    let last = history.last();
    assert!(last["error"].as_str().unwrap().contains("disk is full: é"), "{last}");
    assert_eq!(last["tasks"], json!({"first": "SUCCEEDED", "broken": "FAILED", "never": "CANCELLED"}));
    let entries = cluster.wait_dlq(1);
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0]["reason"], &entries[0]["run_id"]), (&json!("execution_error"), &json!(run_id)));
    assert_eq!(entries[0]["error"], last["error"]);
    assert_eq!(entries[0]["flow_name"], last["flow_name"]);
}

#[test]
fn a_failed_flow_can_be_kept_out_of_the_dlq() {
    let cluster = Cluster::new().quick().start();
    let off = [("PYOCO_DLQ_PUBLISH_EXECUTION_ERROR", "false")];
    let _worker = cluster.start_worker("quiet", Options::default().envs(&off));
    let run_id = cluster.queue_yaml("default", &flows::fail("boom"));
    cluster.settled(&run_id, "FAILED");
    assert!(cluster.dlq().is_empty(), "{:?}", cluster.dlq());
}

#[test]
fn a_dlq_that_refuses_changes_nothing_else() {
    let cluster = Cluster::new().quick().start();
    jetstream::update(&cluster.nats, "PYOCO_DLQ", |config| config["max_msg_size"] = 10.into());
    let worker = cluster.start_worker("w1", Options::default());
    let failed = cluster.queue_yaml("default", &flows::fail("boom"));
    jetstream::publish(&cluster.nats, "pyoco.work.default", b"garbage");
    cluster.settled(&failed, "FAILED");
    assert!(worker.stderr().contains("ERR-PYOCO-0011"), "{}", worker.stderr());
}

#[test]
fn kv_trouble_gives_the_job_back_and_a_later_attempt_completes_it() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let run_id = cluster.queue_yaml("default", &flows::sleep(0.0));
    cluster.settled(&run_id, "COMPLETED");
    let job = new_job("refused", "default", "main", json!({}));
    let job = pyoco_server::model::job::Job { workflow_yaml: Some(flows::ECHO.into()), ..job };
    cluster.store_pending(&job);
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_msg_size"] = 64.into());
    jetstream::publish(&cluster.nats, "pyoco.work.default", &json::to_wire(&job).unwrap());
    // Given back with a delay: one delivery every two seconds, and no more.
    eventually(std::time::Duration::from_secs(10), "a second delivery", || {
        let info = jetstream::try_call(
            &cluster.nats,
            "CONSUMER.INFO.PYOCO_WORK.pyoco_workers_default",
            &Value::Null,
        );
        (info["num_redelivered"] == 1 && info["delivered"]["consumer_seq"].as_u64() >= Some(3)).then_some(())
    });
    assert_eq!(cluster.stored("refused").unwrap()["status"], "PENDING");
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_msg_size"] = (-1).into());
    let history = cluster.settled("refused", "COMPLETED");
    let attempt = history.last()["attempt"].as_u64().unwrap();
    assert!((2..=4).contains(&attempt), "completed in attempt {attempt}");
    assert!(cluster.dlq().is_empty());
}
