//! The worker's own record: what it says, who may change it, and what a second process under one id does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::flows::{self, Gate, gated};
use crate::golden;
use crate::lab::Lab;
use crate::support::process::Running;
use crate::support::wait::{PATIENCE, eventually};
use crate::workers::{LocalWorker, process, spawn};

/// A program that ends by itself; nobody waits longer for it.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn the_record_tells_the_life_of_a_worker() {
    let lab = Lab::start(&[]);
    let gate = Arc::new(Gate::default());
    let worker = LocalWorker::start(&lab, "w1", &["a", "b"], 2, gated(&gate, PATIENCE));
    let idle = lab.wait_record("w1", "idle", |record| record["state"] == "IDLE");
    golden::check("worker/idle.json", &idle);
    let first = lab.submit("a", "gated", json!({}));
    let second = lab.submit("b", "gated", json!({}));
    let running = lab.wait_record("w1", "two runs", |record| {
        record["current_run_ids"].as_array().unwrap().len() == 2
    });
    golden::check("worker/running.json", &running);
    let ids = running["current_run_ids"].as_array().unwrap();
    assert!(ids.contains(&json!(first)) && ids.contains(&json!(second)), "{running}");
    assert_eq!(running["current_run_id"], ids[0]);
    gate.open();
    let after = lab.wait_record("w1", "idle again", |record| {
        record["state"] == "IDLE" && record["last_run_id"].is_string()
    });
    assert_eq!(after["last_run_status"], "COMPLETED");
    assert!(after["last_run_finished_at"].as_f64() >= after["last_run_started_at"].as_f64());
    assert_eq!((&after["current_run_id"], &after["current_run_ids"]), (&Value::Null, &json!([])));
    // A sign of life, without any run.
    let seen = after["last_seen_at"].as_f64().unwrap();
    lab.wait_record("w1", "a heartbeat", |record| record["last_seen_at"].as_f64().unwrap() > seen);
    worker.stop().unwrap();
    let stopped = lab.record("w1").unwrap();
    golden::check("worker/stopped.json", &stopped);
    assert_eq!(stopped["instance_id"], idle["instance_id"]);
}

#[test]
fn hidden_belongs_to_the_operator() {
    let lab = Lab::start(&[]);
    let worker = LocalWorker::start(&lab, "w1", &["default"], 1, Default::default());
    let is_hidden = |hidden: bool| move |record: &Value| record["hidden"] == hidden;
    lab.wait_record("w1", "shown", is_hidden(false));
    let workers = lab.bus.workers();
    eventually(PATIENCE, "the operator hides it", || {
        let entry = workers.get("w1").unwrap()?;
        let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
        record["hidden"] = true.into();
        workers.update("w1", record.to_string().as_bytes(), entry.revision).ok()
    });
    let seen = lab.record("w1").unwrap()["last_seen_at"].as_f64().unwrap();
    lab.wait_record("w1", "a heartbeat, hidden", |record| {
        record["hidden"] == true && record["last_seen_at"].as_f64().unwrap() > seen
    });
    worker.stop().unwrap();
    assert_eq!(lab.record("w1").unwrap()["hidden"], true);
    // Also over a restart.
    let _again = LocalWorker::start(&lab, "w1", &["default"], 1, Default::default());
    let back = lab.wait_record("w1", "back", |record| record["state"] == "IDLE");
    assert_eq!(back["hidden"], true);
}

#[test]
fn a_deleted_record_comes_back() {
    let lab = Lab::start(&[]);
    let _worker = LocalWorker::start(&lab, "w1", &["default"], 1, Default::default());
    lab.wait_record("w1", "there", |_| true);
    let workers = lab.bus.workers();
    eventually(PATIENCE, "deleted", || {
        let entry = workers.get("w1").unwrap()?;
        workers.delete("w1", entry.revision).ok()
    });
    lab.wait_record("w1", "there again", |record| record["state"] == "IDLE");
}

#[test]
fn a_second_process_under_one_id_takes_over_and_the_first_ends_with_its_runs_finished() {
    let lab = Lab::start(&[]);
    let mut first = process(&lab, "same", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", &flows::sleep(3.0));
    lab.wait_status(&run_id, "RUNNING");
    let second = process(&lab, "same", &["--concurrency", "1"]);
    // The first takes no more jobs: this one would wait for it otherwise.
    let line = first.wait_for_line(PATIENCE, "that it was taken over", |line| {
        line.contains("another process has started")
    });
    assert!(line.contains(&second.pid().to_string()), "{line}");
    let next = lab.submit_yaml("default", flows::ECHO);
    lab.wait_status(&next, "COMPLETED");
    let status = first.wait(SOON);
    assert_eq!(status.code(), Some(1));
    let told = first.stderr();
    let host = pyoco_server::worker::hostname();
    let last =
        told.lines().rev().find(|line| line.contains("was taken over by")).unwrap_or_default();
    assert!(last.contains(&host) && last.contains(&format!("pid {}", second.pid())), "{told}");
    let history = lab.ended(&run_id, "COMPLETED");
    assert_eq!(history.last()["attempt"], 1, "what ran was finished by the first");
    // The record stays the second's.
    let record = lab.record("same").unwrap();
    assert_eq!((&record["pid"], &record["state"]), (&json!(second.pid()), &json!("IDLE")));
}

fn ended_by_itself(mut running: Running) {
    let status = running.wait(SOON);
    assert_eq!(status.code(), Some(0), "{}", running.stderr());
}

#[test]
fn run_once_ends_after_one_job_and_leaves_the_others() {
    let lab = Lab::start(&[]);
    let runs: Vec<String> = (0..3).map(|_| lab.submit_yaml("default", flows::ECHO)).collect();
    ended_by_itself(spawn(&lab, "once", &["--run-once", "--poll-timeout", "10"], &[]));
    let done = |lab: &Lab| {
        runs.iter().filter(|run_id| lab.snapshot(run_id).unwrap()["status"] == "COMPLETED").count()
    };
    assert_eq!((done(&lab), lab.queued()), (1, 2));
    assert_eq!(lab.record("once").unwrap()["state"], "STOPPED_GRACEFUL");
    // What is left was not touched, so it comes at once.
    ended_by_itself(spawn(&lab, "once", &["--run-once", "--poll-timeout", "10"], &[]));
    ended_by_itself(spawn(&lab, "once", &["--run-once", "--poll-timeout", "10"], &[]));
    assert_eq!((done(&lab), lab.queued()), (3, 0));
    for run_id in &runs {
        assert_eq!(lab.snapshot(run_id).unwrap()["attempt"], 1);
    }
}

#[test]
fn run_once_ends_without_a_job_when_none_comes() {
    let lab = Lab::start(&[]);
    let foreign = lab.submit_yaml("elsewhere", flows::ECHO);
    let tags = ["--run-once", "--poll-timeout", "0.5", "--tags", "a,b"];
    ended_by_itself(spawn(&lab, "once", &tags, &[]));
    assert_eq!(lab.snapshot(&foreign).unwrap()["status"], "PENDING");
    let record = lab.record("once").unwrap();
    assert_eq!(
        (&record["state"], &record["last_run_id"]),
        (&json!("STOPPED_GRACEFUL"), &Value::Null)
    );
}

#[test]
fn run_once_tells_a_queue_that_is_away_from_one_that_is_empty() {
    let mut lab = Lab::start(&[]);
    lab.server.stop();
    let mut once = spawn(&lab, "once", &["--run-once", "--poll-timeout", "0.5"], &[]);
    assert_eq!(once.wait(PATIENCE).code(), Some(1));
    assert!(once.stderr().contains("could not be reached"), "{}", once.stderr());
}

#[test]
fn run_once_counts_a_message_that_is_no_job() {
    let lab = Lab::start(&[]);
    lab.publish_raw("pyoco.work.default", b"garbage");
    ended_by_itself(spawn(&lab, "once", &["--run-once", "--poll-timeout", "10"], &[]));
    assert_eq!(lab.dlq().len(), 1);
}
