//! What counts as an attempt: the death of a worker, and nothing that NATS or the worker itself makes of it.

use std::time::{Duration, Instant};

use pyoco_server::model::job::Job;
use pyoco_server::model::json;
use serde_json::{Value, json};

use crate::flows;
use crate::support::cluster::{Cluster, Options, with_env, with_flags};
use crate::support::jetstream;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::runs::new_job;
use crate::support::wait::{PATIENCE, eventually};

/// Few deliveries, and a server that is quick to deliver again.
const FEW: [(&str, &str); 3] = [
    ("PYOCO_CONSUMER_MAX_DELIVER", "3"),
    ("PYOCO_CONSUMER_ACK_WAIT_SEC", "2"),
    ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "0.5"),
];
/// For a worker that was unable to write to find out that it can.
const RECOVERY: Duration = Duration::from_secs(45);

fn deliveries(nats: &NatsServer) -> u64 {
    let info = jetstream::call(nats, "CONSUMER.INFO.PYOCO_WORK.pyoco_workers_default", &Value::Null);
    info["delivered"]["consumer_seq"].as_u64().unwrap()
}

#[test]
fn any_number_of_restarts_fails_no_run() {
    let cluster = Cluster::new().quick().envs(&FEW).start();
    let run_id = cluster.queue_yaml("default", &flows::sleep(3.0));
    for restart in 1..=12_u64 {
        let mut worker = cluster.start_worker("w1", with_flags(&["--drain-timeout-sec", "0"]));
        eventually(PATIENCE, "it has begun", || {
            let run = cluster.stored(&run_id)?;
            (run["attempt"].as_u64() >= Some(restart) && run["status"] == "RUNNING").then_some(())
        });
        worker.terminate();
        assert_eq!(worker.wait(PATIENCE).code(), Some(0), "{}", worker.stderr());
        let given_back = cluster.stored(&run_id).unwrap();
        assert_eq!(given_back["delivery"]["released"], true, "{given_back}");
    }
    let _last = cluster.start_worker("w1", Options::default());
    let history = cluster.settled(&run_id, "COMPLETED");
    assert!(history.last().get("lost_attempts").is_none(), "{}", history.last());
    cluster.wait_queue_empty();
    assert!(cluster.dlq().is_empty());
}

#[test]
fn a_full_store_uses_up_no_deliveries() {
    let cluster = Cluster::new().quick().envs(&FEW).start();
    let _worker = cluster.start_worker("w1", with_flags(&["--concurrency", "2"]));
    cluster.settled(&cluster.queue_yaml("default", flows::ECHO), "COMPLETED");
    let job = |index: u32| Job {
        workflow_yaml: Some(flows::ECHO.into()),
        ..new_job(&format!("run-{index}"), "default", "main", json!({}))
    };
    let runs: Vec<Job> = (0..6).map(job).collect();
    for job in &runs {
        cluster.store_pending(job);
    }
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_bytes"] = 1.into());
    let before = deliveries(&cluster.nats);
    for job in &runs {
        jetstream::publish(&cluster.nats, "pyoco.work.default", &json::to_wire(job).unwrap());
    }
    cluster.wait_record("w1", "it cannot write", |record| record["unavailable_reason"].is_string());
    // More than the server would need to deliver each of them as often as it may.
    std::thread::sleep(Duration::from_secs(15));
    let used = deliveries(&cluster.nats) - before;
    assert!(used < 2 * runs.len() as u64, "{used} deliveries of {} jobs", runs.len());
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_bytes"] = (-1).into());
    for job in &runs {
        let ended = cluster.wait_stored_within(RECOVERY, &job.run_id, "COMPLETED");
        assert!(ended.get("lost_attempts").is_none(), "{ended}");
    }
    cluster.wait_queue_empty();
}

/// A user who may do all, and one who may not write snapshots.
fn one_may_not_write() -> NatsOptions {
    let users = r#"authorization { users: [
        { user: "setup", password: "setup" }
        { user: "reader", password: "reader", permissions: { publish: { deny: ["$KV.pyoco_runs.>"] } } }
    ] }"#;
    NatsOptions { config_lines: vec![users.into(), "no_auth_user: setup".into()], ..NatsOptions::default() }
}

#[test]
fn a_worker_that_may_not_write_snapshots_costs_no_run() {
    let cluster = Cluster::new().quick().nats(one_may_not_write()).envs(&FEW).start();
    cluster.bus.ensure_resources().unwrap();
    let reader = [
        ("PYOCO_NATS_USER", "reader"),
        ("PYOCO_NATS_PASSWORD", "reader"),
        ("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1"),
    ];
    let _reader = cluster.start_worker("reader", with_env(&reader).flags(&["--concurrency", "4"]));
    let runs: Vec<String> = (0..8).map(|_| cluster.queue_yaml("default", flows::ECHO)).collect();
    cluster.wait_record("reader", "it cannot write", |record| record["unavailable_reason"].is_string());
    let _healthy = cluster.start_worker("healthy", Options::default());
    for run_id in &runs {
        let ended = cluster.wait_stored_within(RECOVERY, run_id, "COMPLETED");
        assert_eq!((&ended["worker_id"], ended.get("lost_attempts")), (&json!("healthy"), None), "{ended}");
    }
    assert!(cluster.dlq().is_empty());
}

#[test]
fn a_job_that_is_never_begun_outlives_its_deliveries() {
    let cluster = Cluster::new().quick().envs(&FEW).start();
    cluster.bus.queue().ensure_consumer("default").unwrap();
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    let mut inbox = cluster.bus.queue().pull_inbox(&["default".to_owned()]);
    // Somebody takes it as often as it may be delivered, and gives it back each time.
    let mut taken = 0;
    let until = Instant::now() + PATIENCE;
    while taken < 3 && Instant::now() < until {
        if inbox.outstanding(0) == 0 {
            inbox.ask(0, 1, true).unwrap();
        }
        let Ok(arrival) = inbox.arrivals().recv_timeout(Duration::from_secs(1)) else { continue };
        if let pyoco_server::bus::PullEvent::Delivered { message, .. } = inbox.take(arrival) {
            message.nak(Duration::ZERO).unwrap();
            taken += 1;
        }
    }
    assert_eq!(taken, 3);
    let _worker = cluster.start_worker("w1", Options::default());
    let history = cluster.settled(&run_id, "COMPLETED");
    assert!(history.last().get("lost_attempts").is_none(), "{}", history.last());
    cluster.wait_queue_empty();
}
