//! The worker's own record: what it says, who may change it, and what a second process under one id does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::flows::{self, Gate, gated};
use crate::golden;
use crate::support::cluster::{Cluster, Worker, with_flags};
use crate::support::jetstream;
use crate::support::wait::{PATIENCE, eventually};

/// A program that ends by itself; nobody waits longer for it.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn the_record_tells_the_life_of_a_worker() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    let worker = cluster.local_worker("w1", &["a", "b"], 2, gated(&gate, PATIENCE));
    let idle = cluster.wait_record("w1", "idle", |record| record["state"] == "IDLE");
    golden::check("worker/idle.json", &idle);
    let first = cluster.queue("a", "gated", json!({}));
    let second = cluster.queue("b", "gated", json!({}));
    let running = cluster
        .wait_record("w1", "two runs", |record| record["current_run_ids"].as_array().unwrap().len() == 2);
    golden::check("worker/running.json", &running);
    let ids = running["current_run_ids"].as_array().unwrap();
    assert!(ids.contains(&json!(first)) && ids.contains(&json!(second)), "{running}");
    assert_eq!(running["current_run_id"], ids[0]);
    gate.open();
    let after = cluster.wait_record("w1", "idle again", |record| {
        record["state"] == "IDLE" && record["last_run_id"].is_string()
    });
    assert_eq!(after["last_run_status"], "COMPLETED");
    assert!(after["last_run_finished_at"].as_f64() >= after["last_run_started_at"].as_f64());
    assert_eq!((&after["current_run_id"], &after["current_run_ids"]), (&Value::Null, &json!([])));
    // A sign of life, without any run.
    let seen = after["last_seen_at"].as_f64().unwrap();
    cluster.wait_record("w1", "a heartbeat", |record| record["last_seen_at"].as_f64().unwrap() > seen);
    worker.stop().unwrap();
    let stopped = cluster.record("w1").unwrap();
    golden::check("worker/stopped.json", &stopped);
    assert_eq!(stopped["instance_id"], idle["instance_id"]);
}

#[test]
fn hidden_belongs_to_the_operator() {
    let cluster = Cluster::new().quick().start();
    let worker = cluster.local_worker("w1", &["default"], 1, Default::default());
    let is_hidden = |hidden: bool| move |record: &Value| record["hidden"] == hidden;
    cluster.wait_record("w1", "shown", is_hidden(false));
    let workers = cluster.bus.workers();
    eventually(PATIENCE, "the operator hides it", || {
        let entry = workers.get("w1").unwrap()?;
        let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
        record["hidden"] = true.into();
        workers.update("w1", record.to_string().as_bytes(), entry.revision).ok()
    });
    let seen = cluster.record("w1").unwrap()["last_seen_at"].as_f64().unwrap();
    cluster.wait_record("w1", "a heartbeat, hidden", |record| {
        record["hidden"] == true && record["last_seen_at"].as_f64().unwrap() > seen
    });
    worker.stop().unwrap();
    assert_eq!(cluster.record("w1").unwrap()["hidden"], true);
    // Also over a restart.
    let _again = cluster.local_worker("w1", &["default"], 1, Default::default());
    let back = cluster.wait_record("w1", "back", |record| record["state"] == "IDLE");
    assert_eq!(back["hidden"], true);
}

#[test]
fn a_deleted_record_comes_back() {
    let cluster = Cluster::new().quick().start();
    let _worker = cluster.local_worker("w1", &["default"], 1, Default::default());
    cluster.wait_record("w1", "there", |_| true);
    let workers = cluster.bus.workers();
    eventually(PATIENCE, "deleted", || {
        let entry = workers.get("w1").unwrap()?;
        workers.delete("w1", entry.revision).ok()
    });
    cluster.wait_record("w1", "there again", |record| record["state"] == "IDLE");
}

#[test]
fn a_second_process_under_one_id_takes_over_and_the_first_ends_with_its_runs_finished() {
    let cluster = Cluster::new().quick().start();
    let mut first = cluster.start_worker("same", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(3.0));
    cluster.wait_stored(&run_id, "RUNNING");
    let second = cluster.start_worker("same", with_flags(&["--concurrency", "1"]));
    // The first takes no more jobs: this one would wait for it otherwise.
    let line = first.wait_for_line(PATIENCE, "that it was taken over", |line| {
        line.contains("another process has started")
    });
    assert!(line.contains(&second.pid().to_string()), "{line}");
    let next = cluster.queue_yaml("default", flows::ECHO);
    cluster.wait_stored(&next, "COMPLETED");
    let status = first.wait(SOON);
    assert_eq!(status.code(), Some(1));
    let told = first.stderr();
    let host = pyoco_server::worker::hostname();
    let last = told.lines().rev().find(|line| line.contains("was taken over by")).unwrap_or_default();
    assert!(last.contains(&host) && last.contains(&format!("pid {}", second.pid())), "{told}");
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!(history.last()["attempt"], 1, "what ran was finished by the first");
    // The record stays the second's.
    let record = cluster.record("same").unwrap();
    assert_eq!((&record["pid"], &record["state"]), (&json!(second.pid()), &json!("IDLE")));
}

fn ended_by_itself(mut running: Worker) {
    let status = running.wait(SOON);
    assert_eq!(status.code(), Some(0), "{}", running.stderr());
}

#[test]
fn run_once_ends_after_one_job_and_leaves_the_others() {
    let cluster = Cluster::new().quick().start();
    let runs: Vec<String> = (0..3).map(|_| cluster.queue_yaml("default", flows::ECHO)).collect();
    ended_by_itself(cluster.spawn_worker("once", with_flags(&["--run-once", "--poll-timeout", "10"])));
    let done = |cluster: &Cluster| {
        runs.iter().filter(|run_id| cluster.stored(run_id).unwrap()["status"] == "COMPLETED").count()
    };
    assert_eq!((done(&cluster), cluster.queued()), (1, 2));
    assert_eq!(cluster.record("once").unwrap()["state"], "STOPPED_GRACEFUL");
    // What is left was not touched, so it comes at once.
    ended_by_itself(cluster.spawn_worker("once", with_flags(&["--run-once", "--poll-timeout", "10"])));
    ended_by_itself(cluster.spawn_worker("once", with_flags(&["--run-once", "--poll-timeout", "10"])));
    assert_eq!((done(&cluster), cluster.queued()), (3, 0));
    for run_id in &runs {
        assert_eq!(cluster.stored(run_id).unwrap()["attempt"], 1);
    }
}

#[test]
fn run_once_ends_without_a_job_when_none_comes() {
    let cluster = Cluster::new().quick().start();
    let foreign = cluster.queue_yaml("elsewhere", flows::ECHO);
    let tags = ["--run-once", "--poll-timeout", "0.5", "--tags", "a,b"];
    ended_by_itself(cluster.spawn_worker("once", with_flags(&tags)));
    assert_eq!(cluster.stored(&foreign).unwrap()["status"], "PENDING");
    let record = cluster.record("once").unwrap();
    assert_eq!((&record["state"], &record["last_run_id"]), (&json!("STOPPED_GRACEFUL"), &Value::Null));
}

#[test]
fn run_once_tells_a_queue_that_is_away_from_one_that_is_empty() {
    let mut cluster = Cluster::new().quick().start();
    cluster.nats.stop();
    let mut once = cluster.spawn_worker("once", with_flags(&["--run-once", "--poll-timeout", "0.5"]));
    assert_eq!(once.wait(PATIENCE).code(), Some(1));
    assert!(once.stderr().contains("could not be reached"), "{}", once.stderr());
}

#[test]
fn run_once_counts_a_message_that_is_no_job() {
    let cluster = Cluster::new().quick().start();
    jetstream::publish(&cluster.nats, "pyoco.work.default", b"garbage");
    ended_by_itself(cluster.spawn_worker("once", with_flags(&["--run-once", "--poll-timeout", "10"])));
    assert_eq!(cluster.dlq().len(), 1);
}
