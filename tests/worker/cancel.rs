//! A cancel takes effect whatever the run is doing, and nothing comes after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::Registry;
use serde_json::json;

use crate::flows::{self, Gate, gated};
use crate::support::cluster::{Cluster, with_flags};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn a_running_run_that_listens_is_cancelled_within_a_second_or_so() {
    // So long that a heartbeat would not find the request in time.
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "20")]).start();
    let _worker = cluster.local_worker("w1", &["default"], 1, Registry::with_builtins());
    let run_id = cluster.queue_yaml("default", &flows::sleep(60.0));
    cluster.wait_stored(&run_id, "RUNNING");
    let asked = Instant::now();
    cluster.mark_cancelling(&run_id);
    let snapshot = cluster.wait_stored(&run_id, "CANCELLED");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(6), "took {took:?}");
    assert!(snapshot["cancel_requested_at"].as_f64().is_some(), "{snapshot}");
    assert_eq!(snapshot["tasks"], json!({"nap": "CANCELLED"}));
    let history = cluster.settled(&run_id, "CANCELLED");
    assert_eq!(history.statuses(), ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]);
    assert!(cluster.dlq().is_empty(), "a cancel is no failure: {:?}", cluster.dlq());
}

#[test]
fn a_request_that_races_with_heartbeats_is_never_lost() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.01")]).start();
    let _worker = cluster.local_worker("w1", &["default"], 4, Registry::with_builtins());
    let runs: Vec<String> = (0..12).map(|_| cluster.queue_yaml("default", &flows::sleep(60.0))).collect();
    for run_id in &runs {
        cluster.wait_stored(run_id, "RUNNING");
        cluster.mark_cancelling(run_id);
        cluster.wait_stored_within(Duration::from_secs(12), run_id, "CANCELLED");
    }
    for run_id in &runs {
        cluster.settled(run_id, "CANCELLED");
    }
}

#[test]
fn a_run_that_is_cancelled_before_it_starts_is_never_executed() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    gate.open();
    let run_id = cluster.queue("default", "gated", json!({}));
    cluster.mark_cancelling(&run_id);
    let _worker = cluster.local_worker("w1", &["default"], 1, gated(&gate, PATIENCE));
    let history = cluster.settled(&run_id, "CANCELLED");
    assert_eq!(history.statuses(), ["PENDING", "CANCELLING", "CANCELLED"]);
    assert_eq!(gate.entered(), 0, "it was executed");
}

#[test]
fn a_task_that_ignores_it_loses_its_slot_after_the_grace_period() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_CANCEL_GRACE_PERIOD_SEC", "1")]).start();
    let worker = cluster.start_worker("w1", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::stubborn(60.0));
    cluster.wait_stored(&run_id, "RUNNING");
    let asked = Instant::now();
    cluster.mark_cancelling(&run_id);
    let snapshot = cluster.wait_stored(&run_id, "CANCELLED");
    let took = asked.elapsed();
    assert!((1.0..14.0).contains(&took.as_secs_f64()), "took {took:?}");
    assert_eq!(snapshot["tasks"], json!({"nap": "CANCELLED"}));
    assert_eq!(snapshot["task_records"]["nap"]["state"], "CANCELLED");
    let told = worker.stderr().lines().filter(|line| line.contains("ERR-PYOCO-0021")).count();
    assert_eq!(told, 1, "{}", worker.stderr());
    // The slot is free again.
    let next = cluster.queue_yaml("default", flows::ECHO);
    cluster.settled(&next, "COMPLETED");
    cluster.settled(&run_id, "CANCELLED");
}

#[test]
fn a_cancel_that_comes_too_late_changes_nothing() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    let _worker = cluster.local_worker("w1", &["default"], 1, gated(&gate, PATIENCE));
    let run_id = cluster.queue("default", "gated", json!({}));
    eventually(PATIENCE, "it runs", || (gate.entered() == 1).then_some(()));
    cluster.mark_cancelling(&run_id);
    // The task succeeds although it was asked to end: what is done is done.
    gate.open();
    let end = eventually(PATIENCE, "it ends", || {
        let snapshot = cluster.stored(&run_id)?;
        ["COMPLETED", "CANCELLED"].into_iter().find(|status| snapshot["status"] == *status)
    });
    let history = cluster.settled(&run_id, end);
    let task = if end == "COMPLETED" { "SUCCEEDED" } else { "CANCELLED" };
    assert_eq!(history.last()["tasks"], json!({"wait": task}));
    assert!(history.last()["cancel_requested_at"].as_f64().is_some());
}
