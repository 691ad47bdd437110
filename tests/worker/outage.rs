//! NATS goes away and comes back: no run is lost, none is executed twice, nobody has to help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::{Flow, Registry};
use serde_json::json;

use crate::flows;
use crate::lab::Lab;
use crate::support::wait::{PATIENCE, eventually};
use crate::workers::LocalWorker;

/// Counts executions per run; each takes as long as its parameter says.
fn counted() -> (Registry, Arc<std::sync::Mutex<Vec<String>>>) {
    let started: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = started.clone();
    let flow = Flow::builder("counted").task("nap", move |ctx| {
        seen.lock().unwrap().push(ctx.run_id.to_string());
        let seconds = ctx.params["seconds"].as_f64().unwrap();
        ctx.cancel.sleep(Duration::from_secs_f64(seconds));
        Ok(json!(seconds))
    });
    let mut registry = Registry::with_builtins();
    registry.flow(flow.build().unwrap());
    (registry, started)
}

/// 20 runs executing, of which half end during the outage, and 20 more in the queue.
fn survive(mut lab: Lab, cut: impl FnOnce(&mut Lab), heal: impl FnOnce(&mut Lab), away: Duration) {
    let (registry, started) = counted();
    let worker = LocalWorker::start(&lab, "w1", &["default"], 20, registry);
    let mut runs: Vec<String> = (0..20)
        .map(|n| if n < 10 { 3.0 } else { away.as_secs_f64() + 2.0 })
        .map(|seconds| lab.submit("default", "counted", json!({"seconds": seconds})))
        .collect();
    eventually(PATIENCE, "20 runs execute", || (started.lock().unwrap().len() == 20).then_some(()));
    runs.extend((0..20).map(|_| lab.submit("default", "counted", json!({"seconds": 0.1}))));
    cut(&mut lab);
    std::thread::sleep(away);
    heal(&mut lab);
    let healed = Instant::now();
    for run_id in &runs {
        lab.wait_status_within(Duration::from_secs(20), run_id, "COMPLETED");
    }
    eprintln!("all 40 runs COMPLETED {:?} after NATS was back", healed.elapsed());
    lab.wait_queue_empty();
    let mut executed = started.lock().unwrap().clone();
    executed.sort();
    let count = executed.len();
    executed.dedup();
    assert_eq!((executed.len(), count), (40, 40), "runs executed, and executions");
    for run_id in &runs {
        lab.ended(run_id, "COMPLETED");
    }
    assert!(lab.dlq().is_empty());
    lab.wait_record("w1", "idle", |record| record["state"] == "IDLE");
    let next = lab.submit_yaml("default", flows::ECHO);
    lab.ended(&next, "COMPLETED");
    worker.stop().unwrap();
}

/// Longer than the outages below, and soon enough for a lost ACK to be made good while we wait.
const OUTLASTS: [(&str, &str); 2] =
    [("PYOCO_CONSUMER_ACK_WAIT_SEC", "15"), ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "1")];

#[test]
fn nats_stopped_for_ten_seconds() {
    let lab = Lab::start(&OUTLASTS);
    survive(lab, |lab| lab.server.stop(), |lab| lab.server.restart(), Duration::from_secs(10));
}

#[test]
fn nats_frozen_for_eight_seconds() {
    let lab = Lab::start(&OUTLASTS);
    survive(lab, |lab| lab.server.pause(), |lab| lab.server.resume(), Duration::from_secs(8));
}

/// The server delivers again what executes; the attempts go on under the new deliveries.
#[test]
fn nats_stopped_for_longer_than_ack_wait() {
    let lab = Lab::start(&[("PYOCO_CONSUMER_ACK_WAIT_SEC", "3")]);
    survive(lab, |lab| lab.server.stop(), |lab| lab.server.restart(), Duration::from_secs(8));
}

#[test]
fn nats_killed_in_the_middle_of_a_burst() {
    let mut lab = Lab::start(&[("PYOCO_CONSUMER_ACK_WAIT_SEC", "5")]);
    let (registry, _) = counted();
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 4, registry);
    let runs: Vec<String> =
        (0..150).map(|_| lab.submit("default", "counted", json!({"seconds": 0.01}))).collect();
    for _ in 0..2 {
        lab.server.kill();
        lab.server.restart();
    }
    for run_id in &runs {
        lab.wait_status(run_id, "COMPLETED");
    }
    lab.wait_queue_empty();
    for run_id in &runs {
        lab.history(run_id).assert_lawful("COMPLETED");
    }
}

#[test]
fn a_worker_that_starts_before_nats_goes_to_work_when_it_comes() {
    let mut lab = Lab::start(&[]);
    let run_id = lab.submit_yaml("default", flows::ECHO);
    lab.server.stop();
    let (registry, _) = counted();
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, registry);
    std::thread::sleep(Duration::from_secs(2));
    lab.server.restart();
    lab.wait_status_within(Duration::from_secs(8), &run_id, "COMPLETED");
}

#[test]
fn everything_deleted_under_a_worker_is_made_again() {
    let lab = Lab::start(&[]);
    let (registry, _) = counted();
    let _worker = LocalWorker::start(&lab, "w1", &["a", "b"], 1, registry);
    lab.ended(&lab.submit_yaml("a", flows::ECHO), "COMPLETED");
    for stream in ["PYOCO_WORK", "KV_pyoco_workers", "PYOCO_DLQ", "PYOCO_ADVISORY"] {
        let answer = lab.api(&format!("STREAM.DELETE.{stream}"), &json!(null));
        assert_eq!(answer["success"], true, "{answer}");
    }
    for tag in ["a", "b"] {
        let run_id = lab.submit_yaml(tag, flows::ECHO);
        lab.wait_status_within(Duration::from_secs(15), &run_id, "COMPLETED");
    }
    lab.wait_record("w1", "registered again", |record| record["state"] == "IDLE");
    let failed = lab.submit_yaml("a", &flows::fail("boom"));
    lab.wait_status(&failed, "FAILED");
    lab.wait_dlq(1);
}
