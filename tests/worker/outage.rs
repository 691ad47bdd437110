//! NATS goes away and comes back: no run is lost, none is executed twice, nobody has to help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::{Flow, Registry};
use serde_json::json;

use crate::flows;
use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::wait::{PATIENCE, eventually};

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
fn survive(
    mut cluster: Cluster,
    cut: impl FnOnce(&mut Cluster),
    heal: impl FnOnce(&mut Cluster),
    away: Duration,
) {
    let (registry, started) = counted();
    let worker = cluster.local_worker("w1", &["default"], 20, registry);
    let mut runs: Vec<String> = (0..20)
        .map(|n| if n < 10 { 3.0 } else { away.as_secs_f64() + 2.0 })
        .map(|seconds| cluster.queue("default", "counted", json!({"seconds": seconds})))
        .collect();
    eventually(PATIENCE, "20 runs execute", || (started.lock().unwrap().len() == 20).then_some(()));
    runs.extend((0..20).map(|_| cluster.queue("default", "counted", json!({"seconds": 0.1}))));
    cut(&mut cluster);
    std::thread::sleep(away);
    heal(&mut cluster);
    let healed = Instant::now();
    for run_id in &runs {
        cluster.wait_stored_within(Duration::from_secs(20), run_id, "COMPLETED");
    }
    eprintln!("all 40 runs COMPLETED {:?} after NATS was back", healed.elapsed());
    cluster.wait_queue_empty();
    let mut executed = started.lock().unwrap().clone();
    executed.sort();
    let count = executed.len();
    executed.dedup();
    assert_eq!((executed.len(), count), (40, 40), "runs executed, and executions");
    for run_id in &runs {
        cluster.settled(run_id, "COMPLETED");
    }
    assert!(cluster.dlq().is_empty());
    cluster.wait_record("w1", "idle", |record| record["state"] == "IDLE");
    let next = cluster.queue_yaml("default", flows::ECHO);
    cluster.settled(&next, "COMPLETED");
    worker.stop().unwrap();
}

/// Longer than the outages below, and soon enough for a lost ACK to be made good while we wait.
const OUTLASTS: [(&str, &str); 2] =
    [("PYOCO_CONSUMER_ACK_WAIT_SEC", "15"), ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "1")];

#[test]
fn nats_stopped_for_ten_seconds() {
    let cluster = Cluster::new().quick().envs(&OUTLASTS).start();
    survive(
        cluster,
        |cluster| cluster.nats.stop(),
        |cluster| cluster.nats.restart(),
        Duration::from_secs(10),
    );
}

#[test]
fn nats_frozen_for_eight_seconds() {
    let cluster = Cluster::new().quick().envs(&OUTLASTS).start();
    survive(cluster, |cluster| cluster.nats.pause(), |cluster| cluster.nats.resume(), Duration::from_secs(8));
}

/// The server delivers again what executes; the attempts go on under the new deliveries.
#[test]
fn nats_stopped_for_longer_than_ack_wait() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_CONSUMER_ACK_WAIT_SEC", "3")]).start();
    survive(cluster, |cluster| cluster.nats.stop(), |cluster| cluster.nats.restart(), Duration::from_secs(8));
}

#[test]
fn nats_killed_in_the_middle_of_a_burst() {
    let mut cluster = Cluster::new().quick().envs(&[("PYOCO_CONSUMER_ACK_WAIT_SEC", "5")]).start();
    let (registry, _) = counted();
    let _worker = cluster.local_worker("w1", &["default"], 4, registry);
    let runs: Vec<String> =
        (0..150).map(|_| cluster.queue("default", "counted", json!({"seconds": 0.01}))).collect();
    for _ in 0..2 {
        cluster.nats.kill();
        cluster.nats.restart();
    }
    for run_id in &runs {
        cluster.wait_stored(run_id, "COMPLETED");
    }
    cluster.wait_queue_empty();
    for run_id in &runs {
        cluster.history(run_id).assert_lawful("COMPLETED");
    }
}

#[test]
fn a_worker_that_starts_before_nats_goes_to_work_when_it_comes() {
    let mut cluster = Cluster::new().quick().start();
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    cluster.nats.stop();
    let (registry, _) = counted();
    let _worker = cluster.local_worker("w1", &["default"], 1, registry);
    std::thread::sleep(Duration::from_secs(2));
    cluster.nats.restart();
    cluster.wait_stored_within(Duration::from_secs(8), &run_id, "COMPLETED");
}

#[test]
fn everything_deleted_under_a_worker_is_made_again() {
    let cluster = Cluster::new().quick().start();
    let (registry, _) = counted();
    let _worker = cluster.local_worker("w1", &["a", "b"], 1, registry);
    cluster.settled(&cluster.queue_yaml("a", flows::ECHO), "COMPLETED");
    for stream in ["PYOCO_WORK", "KV_pyoco_workers", "PYOCO_DLQ", "PYOCO_ADVISORY"] {
        let answer = jetstream::try_call(&cluster.nats, &format!("STREAM.DELETE.{stream}"), &json!(null));
        assert_eq!(answer["success"], true, "{answer}");
    }
    for tag in ["a", "b"] {
        let run_id = cluster.queue_yaml(tag, flows::ECHO);
        cluster.wait_stored_within(Duration::from_secs(15), &run_id, "COMPLETED");
    }
    cluster.wait_record("w1", "registered again", |record| record["state"] == "IDLE");
    let failed = cluster.queue_yaml("a", &flows::fail("boom"));
    cluster.wait_stored(&failed, "FAILED");
    cluster.wait_dlq(1);
}
