//! A job that comes again: executed when nobody has finished it, and only then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::Registry;
use pyoco_server::model::json;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::flows::{self, Gate, gated};
use crate::lab::Lab;
use crate::support::wait::{PATIENCE, eventually};
use crate::workers::{LocalWorker, gateway, process, process_with};

/// Short to wait for, and eight times as long as a busy machine may delay a sign of life.
const SHORT: [(&str, &str); 3] = [
    ("PYOCO_CONSUMER_ACK_WAIT_SEC", "4"),
    ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "0.5"),
    ("PYOCO_CANCEL_GRACE_PERIOD_SEC", "2"),
];
/// More than two of these ack_waits.
const LONGER: Duration = Duration::from_secs(9);

fn redelivered(lab: &Lab) -> u64 {
    let info = lab.api("CONSUMER.INFO.PYOCO_WORK.pyoco_workers_default", &Value::Null);
    let delivered = info["delivered"]["consumer_seq"].as_u64().unwrap();
    delivered - info["delivered"]["stream_seq"].as_u64().unwrap()
}

#[test]
fn a_run_longer_than_ack_wait_is_executed_once() {
    let lab = Lab::start(&SHORT);
    let gate = Arc::new(Gate::default());
    let _workers: Vec<LocalWorker> = ["w1", "w2"]
        .map(|id| LocalWorker::start(&lab, id, &["default"], 2, gated(&gate, LONGER)))
        .into();
    let run_id = lab.submit("default", "gated", json!({}));
    let history = lab.ended(&run_id, "COMPLETED");
    assert_eq!((gate.entered(), redelivered(&lab)), (1, 0));
    assert_eq!(history.last()["attempt"], 1);
}

#[test]
fn the_ack_wait_of_a_consumer_that_was_there_before_is_respected() {
    let lab = Lab::start(&[]);
    let answer = lab.api(
        "CONSUMER.DURABLE.CREATE.PYOCO_WORK.pyoco_workers_default",
        &json!({"stream_name": "PYOCO_WORK", "config": {
            "durable_name": "pyoco_workers_default", "filter_subject": "pyoco.work.default",
            "ack_policy": "explicit", "ack_wait": 4_000_000_000u64, "max_deliver": 20,
        }}),
    );
    assert!(answer["error"].is_null(), "{answer}");
    // Its own settings say 30 s and 10 s.
    let gate = Arc::new(Gate::default());
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 2, gated(&gate, LONGER));
    let run_id = lab.submit("default", "gated", json!({}));
    lab.ended(&run_id, "COMPLETED");
    assert_eq!((gate.entered(), redelivered(&lab)), (1, 0));
}

#[test]
fn a_finished_run_is_not_executed_again() {
    let lab = Lab::start(&[]);
    let gate = Arc::new(Gate::default());
    gate.open();
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 2, gated(&gate, PATIENCE));
    let run_id = lab.submit("default", "gated", json!({}));
    lab.ended(&run_id, "COMPLETED");
    let job = lab.job(&run_id, "default", "gated", json!({}));
    for _ in 0..3 {
        lab.publish_raw("pyoco.work.default", &json::to_wire(&job).unwrap());
    }
    lab.ended(&run_id, "COMPLETED");
    assert_eq!(gate.entered(), 1);
    assert!(lab.dlq().is_empty());
}

#[test]
fn two_messages_of_one_run_are_never_executed_side_by_side() {
    let lab = Lab::start(&[]);
    let gate = Arc::new(Gate::default());
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 2, gated(&gate, PATIENCE));
    let run_id = lab.submit("default", "gated", json!({}));
    eventually(PATIENCE, "it runs", || (gate.entered() == 1).then_some(()));
    let job = lab.job(&run_id, "default", "gated", json!({}));
    lab.publish_raw("pyoco.work.default", &json::to_wire(&job).unwrap());
    // The worker deals with the second message before it takes a third.
    let next = lab.submit_yaml("default", flows::ECHO);
    lab.wait_status(&next, "COMPLETED");
    assert_eq!(gate.entered(), 1, "the run is executed twice at the same time");
    gate.open();
    lab.ended(&run_id, "COMPLETED");
    assert_eq!(gate.most(), 1);
}

#[test]
fn a_withdrawn_run_is_acknowledged_and_not_executed() {
    let lab = Lab::start(&[]);
    let gate = Arc::new(Gate::default());
    gate.open();
    let run_id = lab.submit("default", "gated", json!({}));
    let entry = lab.bus.runs().get(&run_id).unwrap().unwrap();
    lab.bus.runs().delete(&run_id, entry.revision).unwrap();
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, gated(&gate, PATIENCE));
    lab.wait_queue_empty();
    assert_eq!(gate.entered(), 0);
    assert!(lab.snapshot(&run_id).is_none());
    assert!(lab.dlq().is_empty());
}

#[test]
fn the_run_of_a_killed_worker_is_finished_by_another_as_attempt_2() {
    let lab = Lab::start(&SHORT);
    let mut first = process(&lab, "first", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", &flows::sleep(8.0));
    lab.wait_status(&run_id, "RUNNING");
    let _second = process(&lab, "second", &["--concurrency", "1"]);
    first.kill();
    let history = lab.ended(&run_id, "COMPLETED");
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
    let lab = Lab::start(&[
        ("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "1"),
        ("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "5"),
    ]);
    let _gateway = gateway(&lab);
    let mut first = process(&lab, "first", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", &flows::sleep(8.0));
    let quick = lab.submit_yaml("default", flows::ECHO);
    lab.wait_status(&run_id, "RUNNING");
    first.kill();
    let killed = Instant::now();
    let second = process(&lab, "second", &["--concurrency", "2"]);
    eventually(PATIENCE, "the second worker has it", || {
        (lab.snapshot(&run_id)?["worker_id"] == "second").then_some(())
    });
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(20), "started again after {took:?}");
    eprintln!("killed to started again: {took:?}");
    lab.ended(&run_id, "COMPLETED");
    assert_eq!(lab.wait_status(&quick, "COMPLETED")["worker_id"], "second");
    drop(second);
}

#[test]
fn a_worker_that_comes_back_under_its_id_gets_its_run_again() {
    let lab = Lab::start(&[("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "5")]);
    let _gateway = gateway(&lab);
    let mut first = process(&lab, "same", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", &flows::sleep(6.0));
    lab.wait_status(&run_id, "RUNNING");
    first.kill();
    let _second = process(&lab, "same", &["--concurrency", "1"]);
    let history = lab.ended(&run_id, "COMPLETED");
    assert_eq!(history.last()["attempt"], 2);
}

#[test]
fn a_run_that_kills_each_of_its_workers_fails_when_its_deliveries_are_exhausted() {
    let [ack_wait, progress, _] = SHORT;
    let lab = Lab::start(&[ack_wait, progress, ("PYOCO_CONSUMER_MAX_DELIVER", "2")]);
    let run_id = lab.submit_yaml("default", &flows::sleep(30.0));
    for attempt in 1..=2 {
        let mut worker = process_with(&lab, &format!("w{attempt}"), &[], &[]);
        eventually(PATIENCE, "it runs", || {
            (lab.snapshot(&run_id)?["attempt"] == attempt).then_some(())
        });
        worker.signal(Signal::KILL);
        worker.wait(PATIENCE);
    }
    let _healthy = process(&lab, "healthy", &[]);
    let history = lab.ended(&run_id, "FAILED");
    let last = history.last();
    assert!(last["error"].as_str().unwrap().starts_with("max_deliver_exceeded"), "{last}");
    assert_eq!(last["attempt"], 2);
    let entries = lab.wait_dlq(1);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["reason"], "max_deliver_exceeded");
    assert_eq!(entries[0]["run_id"], run_id.as_str());
    assert_eq!(
        (&entries[0]["num_delivered"], &entries[0]["worker_id"]),
        (&json!(2), &json!("healthy"))
    );
    // Nothing that has ended is shown as going on.
    assert_eq!(last["tasks"], json!({"nap": "FAILED"}), "{last}");
    assert_eq!(last["task_records"]["nap"]["error"], last["error"], "{last}");
}

#[test]
fn a_message_that_breaks_the_connection_stops_no_worker_for_good() {
    let lab =
        Lab::start(&[("PYOCO_CONSUMER_ACK_WAIT_SEC", "1"), ("PYOCO_CONSUMER_MAX_DELIVER", "3")]);
    let mut worker = process(&lab, "w1", &["--concurrency", "2"]);
    let job = lab.job("poison", "default", "main", json!({}));
    lab.store_pending(&job);
    lab.publish_with_raw_headers(
        "pyoco.work.default",
        b"NATS/1.0\r\nX-Bad: \xff\xfe\xc3\x28\r\n\r\n",
        &json::to_wire(&job).unwrap(),
    );
    let runs: Vec<String> = (0..10).map(|_| lab.submit_yaml("default", flows::ECHO)).collect();
    for run_id in &runs {
        lab.wait_status(run_id, "COMPLETED");
    }
    let poisoned = lab.wait_status("poison", "FAILED");
    assert!(poisoned["error"].as_str().unwrap().starts_with("max_deliver_exceeded"), "{poisoned}");
    lab.wait_queue_empty();
    assert!(worker.is_running());
    // Without it this test would have shown nothing.
    assert!(worker.stderr().contains("lost the connection"), "{}", worker.stderr());
}

#[test]
fn jobs_of_other_builds_with_ordinary_headers_are_read() {
    let lab = Lab::start(&[]);
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, Registry::with_builtins());
    let job = json!({"run_id": "h1", "flow_name": "x", "workflow_yaml": flows::ECHO});
    lab.publish_with_raw_headers(
        "pyoco.work.default",
        "NATS/1.0\r\nTraceparent: 00-é-01\r\nX-Empty:\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n"
            .as_bytes(),
        job.to_string().as_bytes(),
    );
    lab.ended("h1", "COMPLETED");
}
