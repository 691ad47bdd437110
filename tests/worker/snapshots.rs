//! What a run's snapshot shows, when it is written, and how large it may become.

use std::time::Duration;

use pyoco_server::flow::{Flow, Registry};
use serde_json::{Value, json};

use crate::flows;
use crate::golden;
use crate::support::cluster::{Cluster, Options, with_flags};
use crate::support::jetstream;
use crate::support::local_worker::LocalWorker;
use crate::support::nats::NatsOptions;
use crate::support::process::Running;
use crate::support::wait::{PATIENCE, eventually};

fn worker(cluster: &Cluster) -> LocalWorker {
    cluster.local_worker("w1", &["default"], 1, Registry::with_builtins())
}

#[test]
fn each_kind_of_snapshot_has_the_shape_of_its_golden_file() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "20")]).start();
    let _worker = worker(&cluster);
    let params = json!({"who": "é", "n": 1});
    let completed = cluster.queue_yaml_with("default", flows::ECHO, params.clone());
    let failed = cluster.queue_yaml_with("default", &flows::fail("boom"), params);
    let done = cluster.settled(&completed, "COMPLETED");
    golden::check("snapshot/pending.json", &done.0[0].1);
    golden::check("snapshot/claimed.json", &done.0[1].1);
    golden::check("snapshot/completed.json", done.last());
    golden::check("snapshot/failed.json", cluster.settled(&failed, "FAILED").last());
    let cancelled = cluster.queue_yaml_with("default", &flows::sleep(30.0), json!({}));
    let running = eventually(PATIENCE, "the task runs", || {
        cluster.stored(&cancelled).filter(|s| s["tasks"] == json!({"nap": "RUNNING"}))
    });
    golden::check("snapshot/running.json", &running);
    cluster.mark_cancelling(&cancelled);
    golden::check("snapshot/cancelled.json", cluster.settled(&cancelled, "CANCELLED").last());
    for entry in cluster.dlq() {
        golden::check("snapshot/dlq_execution_error.json", &entry);
    }
}

#[test]
fn the_document_on_the_wire_is_compact_ascii() {
    let cluster = Cluster::new().quick().start();
    let _worker = worker(&cluster);
    let run_id = cluster.queue_yaml_with("default", flows::ECHO, json!({"who": "日本 é"}));
    cluster.settled(&run_id, "COMPLETED");
    let stored = cluster.bus.runs().get(&run_id).unwrap().unwrap().value;
    let text = String::from_utf8(stored).unwrap();
    assert!(text.is_ascii() && text.contains("\\u65e5\\u672c \\u00e9"), "{text}");
    assert!(!text.contains(": ") && !text.contains(", ") && !text.contains('\n'), "{text}");
}

#[test]
fn a_running_run_gives_signs_of_life() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.3")]).start();
    let _worker = worker(&cluster);
    let run_id = cluster.queue_yaml("default", &flows::sleep(3.0));
    let history = cluster.settled(&run_id, "COMPLETED");
    let beats: Vec<f64> = history.of_attempt(1).iter().map(|s| s["heartbeat_at"].as_f64().unwrap()).collect();
    let gaps: Vec<f64> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((9..=14).contains(&beats.len()), "{} writes in 3 s: {gaps:?}", beats.len());
    assert!(gaps.iter().all(|gap| *gap < 0.8), "{gaps:?}");
}

#[test]
fn many_quick_transitions_make_few_writes_and_the_first_goes_out_at_once() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "20")]).start();
    let _worker = worker(&cluster);
    let run_id = cluster.queue_yaml("default", &flows::chain(200));
    let history = cluster.settled(&run_id, "COMPLETED");
    let last = history.last();
    let tasks = last["tasks"].as_object().unwrap();
    assert_eq!(tasks.len(), 200);
    assert!(tasks.values().all(|state| state == "SUCCEEDED"), "{last}");
    assert_eq!(tasks.keys().next().map(String::as_str), Some("t0"), "in graph order");
    assert_eq!(last["task_records"].as_object().unwrap().len(), 200);
    let writes = history.of_attempt(1).len();
    let seconds = last["end_time"].as_f64().unwrap() - last["start_time"].as_f64().unwrap();
    // The claim, the first transition, four a second, the end.
    let most = 3 + (seconds / 0.25) as usize + 1;
    assert!(writes <= most, "{writes} writes in {seconds} s");

    let slow = cluster.queue_yaml("default", &flows::sleep(1.0));
    let history = cluster.settled(&slow, "COMPLETED");
    let first = history
        .of_attempt(1)
        .into_iter()
        .find(|s| s["tasks"] == json!({"nap": "RUNNING"}))
        .expect("the running task was never shown");
    let after = first["updated_at"].as_f64().unwrap() - first["start_time"].as_f64().unwrap();
    assert!(after < 0.2, "shown {after} s after the start");
}

#[test]
fn a_snapshot_that_is_too_large_loses_its_records_and_says_so_once() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_MAX_RUN_SNAPSHOT_BYTES", "4096")]).start();
    let worker = cluster.start_worker("w1", Options::default());
    let params = json!({"blob": "x".repeat(1500)});
    let long = "version: 1\nflow: {graph: a >> b >> c >> nap}\ntasks:\n  \
        a: {use: builtin/echo}\n  b: {use: builtin/echo}\n  c: {use: builtin/echo}\n  \
        nap: {use: builtin/sleep, inputs: {seconds: 2}}\n";
    let run_id = cluster.queue_yaml_with("default", long, params);
    let history = cluster.settled(&run_id, "COMPLETED");
    let last = history.last();
    assert_eq!(last["task_records_truncated"], true);
    assert_eq!(last["task_records"], json!({}));
    let states = json!({"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED", "nap": "SUCCEEDED"});
    assert_eq!(last["tasks"], states);
    let told = worker.stderr().lines().filter(|line| line.contains("ERR-PYOCO-0010")).count();
    assert_eq!(told, 1, "{}", worker.stderr());
    // A run that fits says nothing of it.
    let small = cluster.queue_yaml("default", flows::ECHO);
    assert!(cluster.settled(&small, "COMPLETED").last().get("task_records_truncated").is_none());
}

#[test]
fn a_snapshot_beyond_the_servers_own_limit_loses_its_records_too() {
    let options = NatsOptions { max_payload: Some(32 * 1024), ..NatsOptions::default() };
    let cluster = Cluster::new().nats(options).quick().start();
    let mut registry = Registry::with_builtins();
    let flow = Flow::builder("large").task("t", |_| Ok(json!("x".repeat(100_000))));
    registry.flow(flow.build().unwrap());
    let _worker = cluster.local_worker("w1", &["default"], 1, registry);
    let run_id = cluster.queue("default", "large", json!({}));
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!(history.last()["task_records_truncated"], true);
    assert_eq!(history.last()["attempt"], 1);
}

#[test]
fn a_bucket_that_refuses_a_running_snapshot_is_not_hammered_and_the_end_is_stored() {
    let cluster = Cluster::new().quick().start();
    let mut worker = cluster.start_worker("w1", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(2.0));
    cluster.wait_stored(&run_id, "RUNNING");
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_msg_size"] = 64.into());
    let refused = |worker: &Running| {
        worker.stderr().lines().filter(|l| l.contains("cannot write the snapshot")).count()
    };
    worker.wait_for_line(PATIENCE, "a refused write", |line| line.contains("cannot write the snapshot"));
    // Until well after the end of the task.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cluster.stored(&run_id).unwrap()["status"], "RUNNING");
    let count = refused(&worker);
    assert!((1..=8).contains(&count), "{count} refused writes in 2 s");
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_msg_size"] = (-1).into());
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!(history.last()["attempt"], 1, "it was executed again");
    assert!(worker.is_running());
}

#[test]
fn an_unreadable_snapshot_is_replaced() {
    let cluster = Cluster::new().quick().start();
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    cluster.bus.runs().put(&run_id, b"{\"run_id\": 7, broken").unwrap();
    let _worker = worker(&cluster);
    let snapshot = eventually(PATIENCE, "it is executed", || {
        let entry = cluster.bus.runs().get(&run_id).unwrap()?;
        let snapshot: Value = serde_json::from_slice(&entry.value).ok()?;
        (snapshot["status"] == "COMPLETED").then_some(snapshot)
    });
    assert_eq!(snapshot["tasks"], json!({"hello": "SUCCEEDED"}));
    cluster.wait_queue_empty();
}

#[test]
fn fields_of_other_writers_survive() {
    let cluster = Cluster::new().quick().start();
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    let entry = cluster.bus.runs().get(&run_id).unwrap().unwrap();
    let mut snapshot: Value = serde_json::from_slice(&entry.value).unwrap();
    snapshot["x_other"] = json!({"a": [1]});
    cluster.bus.runs().update(&run_id, snapshot.to_string().as_bytes(), entry.revision).unwrap();
    let _worker = worker(&cluster);
    assert_eq!(cluster.settled(&run_id, "COMPLETED").last()["x_other"], json!({"a": [1]}));
}
