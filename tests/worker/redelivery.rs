//! A job that comes again: executed when nobody has finished it, and only then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::Registry;
use pyoco_server::model::json;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::flows::{self, Gate, gated};
use crate::support::cluster::{Cluster, Options, with_flags};
use crate::support::jetstream;
use crate::support::local_worker::LocalWorker;
use crate::support::runs::new_job;
use crate::support::wait::{PATIENCE, eventually};

/// Short to wait for, and eight times as long as a busy machine may delay a sign of life.
const SHORT: [(&str, &str); 3] = [
    ("PYOCO_CONSUMER_ACK_WAIT_SEC", "4"),
    ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "0.5"),
    ("PYOCO_CANCEL_GRACE_PERIOD_SEC", "2"),
];
/// More than two of these ack_waits.
const LONGER: Duration = Duration::from_secs(9);

fn redelivered(cluster: &Cluster) -> u64 {
    let info =
        jetstream::try_call(&cluster.nats, "CONSUMER.INFO.PYOCO_WORK.pyoco_workers_default", &Value::Null);
    let delivered = info["delivered"]["consumer_seq"].as_u64().unwrap();
    delivered - info["delivered"]["stream_seq"].as_u64().unwrap()
}

#[test]
fn a_run_longer_than_ack_wait_is_executed_once() {
    let cluster = Cluster::new().quick().envs(&SHORT).start();
    let gate = Arc::new(Gate::default());
    let _workers: Vec<LocalWorker> =
        ["w1", "w2"].map(|id| cluster.local_worker(id, &["default"], 2, gated(&gate, LONGER))).into();
    let run_id = cluster.queue("default", "gated", json!({}));
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!((gate.entered(), redelivered(&cluster)), (1, 0));
    assert_eq!(history.last()["attempt"], 1);
}

#[test]
fn the_ack_wait_of_a_consumer_that_was_there_before_is_respected() {
    let cluster = Cluster::new().quick().start();
    let answer = jetstream::try_call(
        &cluster.nats,
        "CONSUMER.DURABLE.CREATE.PYOCO_WORK.pyoco_workers_default",
        &json!({"stream_name": "PYOCO_WORK", "config": {
            "durable_name": "pyoco_workers_default", "filter_subject": "pyoco.work.default",
            "ack_policy": "explicit", "ack_wait": 4_000_000_000u64, "max_deliver": 20,
        }}),
    );
    assert!(answer["error"].is_null(), "{answer}");
    // Its own settings say 30 s and 10 s.
    let gate = Arc::new(Gate::default());
    let _worker = cluster.local_worker("w1", &["default"], 2, gated(&gate, LONGER));
    let run_id = cluster.queue("default", "gated", json!({}));
    cluster.settled(&run_id, "COMPLETED");
    assert_eq!((gate.entered(), redelivered(&cluster)), (1, 0));
}

#[test]
fn a_finished_run_is_not_executed_again() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    gate.open();
    let _worker = cluster.local_worker("w1", &["default"], 2, gated(&gate, PATIENCE));
    let run_id = cluster.queue("default", "gated", json!({}));
    cluster.settled(&run_id, "COMPLETED");
    let job = new_job(&run_id, "default", "gated", json!({}));
    for _ in 0..3 {
        jetstream::publish(&cluster.nats, "pyoco.work.default", &json::to_wire(&job).unwrap());
    }
    cluster.settled(&run_id, "COMPLETED");
    assert_eq!(gate.entered(), 1);
    assert!(cluster.dlq().is_empty());
}

#[test]
fn two_messages_of_one_run_are_never_executed_side_by_side() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    let _worker = cluster.local_worker("w1", &["default"], 2, gated(&gate, PATIENCE));
    let run_id = cluster.queue("default", "gated", json!({}));
    eventually(PATIENCE, "it runs", || (gate.entered() == 1).then_some(()));
    let job = new_job(&run_id, "default", "gated", json!({}));
    jetstream::publish(&cluster.nats, "pyoco.work.default", &json::to_wire(&job).unwrap());
    // The worker deals with the second message before it takes a third.
    let next = cluster.queue_yaml("default", flows::ECHO);
    cluster.wait_stored(&next, "COMPLETED");
    assert_eq!(gate.entered(), 1, "the run is executed twice at the same time");
    gate.open();
    cluster.settled(&run_id, "COMPLETED");
    assert_eq!(gate.most(), 1);
}

#[test]
fn a_withdrawn_run_is_acknowledged_and_not_executed() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    gate.open();
    let run_id = cluster.queue("default", "gated", json!({}));
    let entry = cluster.bus.runs().get(&run_id).unwrap().unwrap();
    cluster.bus.runs().delete(&run_id, entry.revision).unwrap();
    let _worker = cluster.local_worker("w1", &["default"], 1, gated(&gate, PATIENCE));
    cluster.wait_queue_empty();
    assert_eq!(gate.entered(), 0);
    assert!(cluster.stored(&run_id).is_none());
    assert!(cluster.dlq().is_empty());
}

#[test]
fn the_run_of_a_killed_worker_is_finished_by_another_as_attempt_2() {
    let cluster = Cluster::new().quick().envs(&SHORT).start();
    let mut first = cluster.start_worker("first", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(8.0));
    cluster.wait_stored(&run_id, "RUNNING");
    let _second = cluster.start_worker("second", with_flags(&["--concurrency", "1"]));
    first.kill();
    let history = cluster.settled(&run_id, "COMPLETED");
    let last = history.last();
    assert_eq!((&last["attempt"], &last["worker_id"]), (&json!(2), &json!("second")));
    // The second attempt has begun anew.
    let began = history.of_attempt(2)[0];
    assert_eq!((&began["status"], &began["tasks"]), (&json!("RUNNING"), &json!({})));
    assert_eq!(began["submitted_at"], history.0[0].1["submitted_at"]);
}

#[test]
fn a_gateway_brings_the_run_of_a_killed_worker_back_long_before_ack_wait() {
    // The times of the defaults; only ack_wait would take 30 s.
    let cluster = Cluster::new()
        .quick()
        .envs(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "1"), ("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "5")])
        .start();
    let _gateway = cluster.another_gateway();
    let mut first = cluster.start_worker("first", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(8.0));
    let quick = cluster.queue_yaml("default", flows::ECHO);
    cluster.wait_stored(&run_id, "RUNNING");
    first.kill();
    let killed = Instant::now();
    let second = cluster.start_worker("second", with_flags(&["--concurrency", "2"]));
    eventually(PATIENCE, "the second worker has it", || {
        (cluster.stored(&run_id)?["worker_id"] == "second").then_some(())
    });
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(20), "started again after {took:?}");
    eprintln!("killed to started again: {took:?}");
    cluster.settled(&run_id, "COMPLETED");
    assert_eq!(cluster.wait_stored(&quick, "COMPLETED")["worker_id"], "second");
    drop(second);
}

#[test]
fn a_worker_that_comes_back_under_its_id_gets_its_run_again() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "5")]).start();
    let _gateway = cluster.another_gateway();
    let mut first = cluster.start_worker("same", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(6.0));
    cluster.wait_stored(&run_id, "RUNNING");
    first.kill();
    let _second = cluster.start_worker("same", with_flags(&["--concurrency", "1"]));
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!(history.last()["attempt"], 2);
}

#[test]
fn a_run_that_kills_each_of_its_workers_fails_when_its_deliveries_are_exhausted() {
    let [ack_wait, progress, _] = SHORT;
    let cluster =
        Cluster::new().quick().envs(&[ack_wait, progress, ("PYOCO_CONSUMER_MAX_DELIVER", "2")]).start();
    let run_id = cluster.queue_yaml("default", &flows::sleep(30.0));
    for attempt in 1..=2 {
        let mut worker = cluster.start_worker(&format!("w{attempt}"), Options::default());
        eventually(PATIENCE, "its task runs", || {
            let run = cluster.stored(&run_id)?;
            (run["attempt"] == attempt && run["tasks"]["nap"] == "RUNNING").then_some(())
        });
        worker.signal(Signal::KILL);
        worker.wait(PATIENCE);
    }
    let _healthy = cluster.start_worker("healthy", Options::default());
    let history = cluster.settled(&run_id, "FAILED");
    let last = history.last();
    assert!(last["error"].as_str().unwrap().starts_with("max_deliver_exceeded"), "{last}");
    assert_eq!(last["attempt"], 2);
    let entries = cluster.wait_dlq(1);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["reason"], "max_deliver_exceeded");
    assert_eq!(entries[0]["run_id"], run_id.as_str());
    assert_eq!((&entries[0]["num_delivered"], &entries[0]["worker_id"]), (&json!(2), &json!("healthy")));
    // Nothing that has ended is shown as going on.
    assert_eq!(last["tasks"], json!({"nap": "FAILED"}), "{last}");
    assert_eq!(last["task_records"]["nap"]["error"], last["error"], "{last}");
}

#[test]
fn a_message_that_breaks_the_connection_stops_no_worker_for_good() {
    let cluster = Cluster::new()
        .quick()
        .envs(&[("PYOCO_CONSUMER_ACK_WAIT_SEC", "1"), ("PYOCO_CONSUMER_MAX_DELIVER", "3")])
        .start();
    let mut worker = cluster.start_worker("w1", with_flags(&["--concurrency", "2"]));
    let job = new_job("poison", "default", "main", json!({}));
    cluster.store_pending(&job);
    jetstream::send(
        &cluster.nats,
        "pyoco.work.default",
        b"NATS/1.0\r\nX-Bad: \xff\xfe\xc3\x28\r\n\r\n",
        &json::to_wire(&job).unwrap(),
    );
    let runs: Vec<String> = (0..10).map(|_| cluster.queue_yaml("default", flows::ECHO)).collect();
    for run_id in &runs {
        cluster.wait_stored(run_id, "COMPLETED");
    }
    // No worker has died of it, so it is not given up: published anew, without its header, it can be read.
    let poisoned = cluster.wait_stored("poison", "FAILED");
    assert!(poisoned["error"].as_str().unwrap().starts_with("flow_not_found"), "{poisoned}");
    assert_eq!(poisoned["attempt"], 1, "{poisoned}");
    cluster.wait_queue_empty();
    assert!(worker.is_running());
    // Without it this test would have shown nothing.
    assert!(worker.stderr().contains("lost the connection"), "{}", worker.stderr());
}

#[test]
fn jobs_of_other_builds_with_ordinary_headers_are_read() {
    let cluster = Cluster::new().quick().start();
    let _worker = cluster.local_worker("w1", &["default"], 1, Registry::with_builtins());
    let job = json!({"run_id": "h1", "flow_name": "x", "workflow_yaml": flows::ECHO});
    jetstream::send(
        &cluster.nats,
        "pyoco.work.default",
        "NATS/1.0\r\nTraceparent: 00-é-01\r\nX-Empty:\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n".as_bytes(),
        job.to_string().as_bytes(),
    );
    cluster.settled("h1", "COMPLETED");
}
