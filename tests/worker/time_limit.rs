//! A run ends at its time limit, whatever it does, and its slot is free again.

use pyoco_server::flow::Registry;
use serde_json::{Value, json};

use crate::flows;
use crate::support::cluster::{Cluster, with_flags};
use crate::support::jetstream;
use crate::support::wait::{PATIENCE, eventually};

fn took(snapshot: &Value) -> f64 {
    snapshot["end_time"].as_f64().unwrap() - snapshot["start_time"].as_f64().unwrap()
}

#[test]
fn a_run_fails_at_its_time_limit_and_the_worker_takes_the_next_job() {
    // The flag counts before the environment.
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_TIMEOUT_SEC", "600")]).start();
    let worker = cluster.start_worker("w1", with_flags(&["--concurrency", "1", "--run-timeout-sec", "1.5"]));
    let run_id = cluster.queue_yaml("default", &flows::stubborn(60.0));
    let next = cluster.queue_yaml("default", flows::ECHO);
    let history = cluster.settled(&run_id, "FAILED");
    let last = history.last();
    assert_eq!(last["error"], "run timeout of 1.5 s exceeded (--run-timeout-sec); it was executing `nap`");
    assert!((1.5..10.0).contains(&took(last)), "{last}");
    assert_eq!(history.statuses(), ["PENDING", "RUNNING", "FAILED"]);
    cluster.settled(&next, "COMPLETED");
    let entries = cluster.wait_dlq(1);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["reason"], "execution_error");
    assert_eq!(entries[0]["run_id"], run_id.as_str());
    assert_eq!(entries[0]["error"], last["error"]);
    let told = worker.stderr().lines().filter(|line| line.contains("its time limit")).count();
    assert_eq!(told, 1, "{}", worker.stderr());
}

#[test]
fn a_run_within_the_limit_is_left_alone() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_TIMEOUT_SEC", "10")]).start();
    let _worker = cluster.local_worker("w1", &["default"], 1, Registry::with_builtins());
    let run_id = cluster.queue_yaml("default", &flows::sleep(1.0));
    cluster.settled(&run_id, "COMPLETED");
    assert!(cluster.dlq().is_empty());
}

#[test]
fn a_cancel_that_was_requested_before_wins() {
    let cluster = Cluster::new()
        .quick()
        .envs(&[("PYOCO_RUN_TIMEOUT_SEC", "4"), ("PYOCO_CANCEL_GRACE_PERIOD_SEC", "5")])
        .start();
    let _worker = cluster.local_worker("w1", &["default"], 1, Registry::with_builtins());
    let run_id = cluster.queue_yaml("default", &flows::stubborn(20.0));
    cluster.wait_stored(&run_id, "RUNNING");
    cluster.mark_cancelling(&run_id);
    let history = cluster.settled(&run_id, "CANCELLED");
    // The grace period goes beyond the limit, and it counts.
    assert!(took(history.last()) >= 5.0, "{}", history.last());
    assert_eq!(history.last()["error"], Value::Null);
    assert!(cluster.dlq().is_empty(), "{:?}", cluster.dlq());
}

#[test]
fn another_delivery_of_the_job_does_not_start_the_clock_again() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_RUN_TIMEOUT_SEC", "5")]).start();
    let _worker = cluster.local_worker("w1", &["default"], 2, Registry::with_builtins());
    let run_id = cluster.queue_yaml("default", &flows::sleep(60.0));
    let aged = eventually(PATIENCE, "it has run for 3 s", || {
        let snapshot = cluster.stored(&run_id)?;
        let age = snapshot["heartbeat_at"].as_f64()? - snapshot["start_time"].as_f64()?;
        (age >= 3.0).then_some(snapshot)
    });
    jetstream::send(&cluster.nats, aged["delivery"]["ack"].as_str().unwrap(), b"", b"-NAK");
    let history = cluster.settled(&run_id, "FAILED");
    let last = history.last();
    assert_eq!(last["attempt"], 2, "the job did not come again: {last}");
    assert!((5.0..7.5).contains(&took(last)), "{last}");
    assert_eq!(last["start_time"], history.of_attempt(1)[0]["start_time"]);
    assert_eq!(last["tasks"], json!({"nap": "FAILED"}));
}
