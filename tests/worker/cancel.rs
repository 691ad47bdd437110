//! A cancel takes effect whatever the run is doing, and nothing comes after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::Registry;
use serde_json::json;

use crate::flows::{self, Gate, gated};
use crate::lab::Lab;
use crate::support::wait::{PATIENCE, eventually};
use crate::workers::{LocalWorker, process};

#[test]
fn a_running_run_that_listens_is_cancelled_within_a_second_or_so() {
    // So long that a heartbeat would not find the request in time.
    let lab = Lab::start(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "20")]);
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, Registry::with_builtins());
    let run_id = lab.submit_yaml("default", &flows::sleep(60.0));
    lab.wait_status(&run_id, "RUNNING");
    let asked = Instant::now();
    lab.cancel(&run_id);
    let snapshot = lab.wait_status(&run_id, "CANCELLED");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(6), "took {took:?}");
    assert!(snapshot["cancel_requested_at"].as_f64().is_some(), "{snapshot}");
    assert_eq!(snapshot["tasks"], json!({"nap": "CANCELLED"}));
    let history = lab.ended(&run_id, "CANCELLED");
    assert_eq!(history.statuses(), ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]);
    assert!(lab.dlq().is_empty(), "a cancel is no failure: {:?}", lab.dlq());
}

#[test]
fn a_request_that_races_with_heartbeats_is_never_lost() {
    let lab = Lab::start(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.01")]);
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 4, Registry::with_builtins());
    let runs: Vec<String> =
        (0..12).map(|_| lab.submit_yaml("default", &flows::sleep(60.0))).collect();
    for run_id in &runs {
        lab.wait_status(run_id, "RUNNING");
        lab.cancel(run_id);
        lab.wait_status_within(Duration::from_secs(12), run_id, "CANCELLED");
    }
    for run_id in &runs {
        lab.ended(run_id, "CANCELLED");
    }
}

#[test]
fn a_run_that_is_cancelled_before_it_starts_is_never_executed() {
    let lab = Lab::start(&[]);
    let gate = Arc::new(Gate::default());
    gate.open();
    let run_id = lab.submit("default", "gated", json!({}));
    lab.cancel(&run_id);
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, gated(&gate, PATIENCE));
    let history = lab.ended(&run_id, "CANCELLED");
    assert_eq!(history.statuses(), ["PENDING", "CANCELLING", "CANCELLED"]);
    assert_eq!(gate.entered(), 0, "it was executed");
}

#[test]
fn a_task_that_ignores_it_loses_its_slot_after_the_grace_period() {
    let lab = Lab::start(&[("PYOCO_CANCEL_GRACE_PERIOD_SEC", "1")]);
    let worker = process(&lab, "w1", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", &flows::stubborn(60.0));
    lab.wait_status(&run_id, "RUNNING");
    let asked = Instant::now();
    lab.cancel(&run_id);
    let snapshot = lab.wait_status(&run_id, "CANCELLED");
    let took = asked.elapsed();
    assert!((1.0..14.0).contains(&took.as_secs_f64()), "took {took:?}");
    assert_eq!(snapshot["tasks"], json!({"nap": "CANCELLED"}));
    assert_eq!(snapshot["task_records"]["nap"]["state"], "CANCELLED");
    let told = worker.stderr().lines().filter(|line| line.contains("ERR-PYOCO-0021")).count();
    assert_eq!(told, 1, "{}", worker.stderr());
    // The slot is free again.
    let next = lab.submit_yaml("default", flows::ECHO);
    lab.ended(&next, "COMPLETED");
    lab.ended(&run_id, "CANCELLED");
}

#[test]
fn a_cancel_that_comes_too_late_changes_nothing() {
    let lab = Lab::start(&[]);
    let gate = Arc::new(Gate::default());
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, gated(&gate, PATIENCE));
    let run_id = lab.submit("default", "gated", json!({}));
    eventually(PATIENCE, "it runs", || (gate.entered() == 1).then_some(()));
    lab.cancel(&run_id);
    // The task succeeds although it was asked to end: what is done is done.
    gate.open();
    let end = eventually(PATIENCE, "it ends", || {
        let snapshot = lab.snapshot(&run_id)?;
        ["COMPLETED", "CANCELLED"].into_iter().find(|status| snapshot["status"] == *status)
    });
    let history = lab.ended(&run_id, end);
    let task = if end == "COMPLETED" { "SUCCEEDED" } else { "CANCELLED" };
    assert_eq!(history.last()["tasks"], json!({"wait": task}));
    assert!(history.last()["cancel_requested_at"].as_f64().is_some());
}
