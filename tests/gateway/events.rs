//! `GET /events`: one stream that tells a dashboard all it needs.

use std::time::{Duration, Instant};

use pyoco_server::model::clock;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::events::Events;
use crate::support::jetstream;
use crate::support::runs::{completed, document, ids, main_flow};
use crate::support::wait::{PATIENCE, eventually};

fn open(cluster: &Cluster) -> Events {
    cluster.wait_live();
    let mut stream = cluster.events("/events");
    let first = stream.event();
    assert_eq!((first.name.as_str(), &first.data["live"]), ("state", &json!(true)));
    stream
}

fn record(worker_id: &str, seen: f64) -> Vec<u8> {
    let record = json!({"worker_id": worker_id, "state": "IDLE", "tags": ["default"], "last_seen_at": seen});
    record.to_string().into_bytes()
}

/// Waits until `/workers` knows the worker.
fn wait_listed(cluster: &Cluster, worker_id: &str) {
    eventually(PATIENCE, "the worker to be listed", || {
        let all = cluster.get("/workers?scope=all&include_hidden=1").json();
        all.as_array().unwrap().iter().any(|w| w["worker_id"] == worker_id).then_some(())
    });
}

#[test]
fn changes_of_runs_and_workers_are_told_as_lists_show_them() {
    let cluster = Cluster::with_gateway();
    let mut stream = open(&cluster);
    assert_eq!(stream.retry.as_deref(), Some("2000"));
    let run_id = cluster.submit(&main_flow());
    let told = stream.named("run");
    assert_eq!(told.data, cluster.get("/runs").json()[0]);
    assert_eq!((&told.data["run_id"], &told.data["status"]), (&json!(run_id), &json!("PENDING")));
    let (_, revision) = cluster.snapshot(&run_id);
    cluster.bus.runs().delete(&run_id, revision).unwrap();
    assert_eq!(stream.named("run_removed").data, json!({"run_id": run_id}));

    let now = clock::now();
    let revision = cluster.bus.workers().put("w", &record("w", now)).unwrap();
    let told = stream.named("worker");
    wait_listed(&cluster, "w");
    assert_eq!(told.data, cluster.get("/workers").json()[0]);
    cluster.bus.workers().delete("w", revision).unwrap();
    assert_eq!(stream.named("worker_removed").data, json!({"worker_id": "w"}));
    // Silence is filled here, too.
    let begun = Instant::now();
    let heartbeat = stream.event();
    assert_eq!(heartbeat.name, "heartbeat");
    assert!(heartbeat.data["ts"].is_f64() && begun.elapsed() < Duration::from_secs(7));
}

#[test]
fn a_worker_that_falls_silent_is_told() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC", "1")]);
    let mut stream = open(&cluster);
    cluster.bus.workers().put("w", &record("w", clock::now())).unwrap();
    assert_eq!(stream.named("worker").data["state"], "IDLE");
    let told = stream.named("worker");
    assert_eq!((&told.data["worker_id"], &told.data["state"]), (&json!("w"), &json!("DISCONNECTED")));
}

#[test]
fn the_end_of_nats_and_its_return_are_told() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    let mut stream = open(&cluster);
    cluster.nats.stop();
    assert_eq!(stream.named("state").data["live"], false);
    assert_eq!(stream.event().name, "heartbeat");
    // Whoever comes now is told at once.
    let mut late = cluster.events("/events");
    assert_eq!(late.event().data["live"], false);
    cluster.nats.restart();
    for stream in [&mut stream, &mut late] {
        assert_eq!(stream.named("state").data["live"], true);
    }
    let bus = cluster.connect();
    bus.runs().put("r", &document("r", 1.0, completed)).unwrap();
    assert_eq!(stream.named("run").data["run_id"], "r");
}

#[test]
fn a_slow_reader_gets_the_newest_state_of_each_run() {
    let cluster = Cluster::with_gateway();
    let mut slow = open(&cluster);
    // Few runs that change often, with summaries that no buffer holds for long.
    write(&cluster, 20, 150);
    cluster.put_run("last", 9_999.0, completed);
    let mut newest = std::collections::HashMap::new();
    let mut told = 0;
    loop {
        let event = slow.named("run");
        if event.data["run_id"] == "last" {
            break;
        }
        told += 1;
        newest.insert(event.data["run_id"].as_str().unwrap().to_owned(), event.data);
    }
    assert!(told < 20 * 150, "all were queued");
    assert_eq!(newest.len(), 20);
    assert!(newest.values().all(|run| run["updated_at"] == 149.0), "an old state came last");
}

#[test]
fn a_reader_that_misses_too_much_is_told_to_load_its_lists_again() {
    let cluster = Cluster::with_gateway();
    let mut slow = open(&cluster);
    write(&cluster, 5_000, 1);
    cluster.put_run("last", 9_999.0, completed);
    // All of it was published before the reader begins; else it may lose again, and rightly.
    eventually(PATIENCE, "the last run in the list", || {
        (ids(&cluster.get("/runs?limit=1").json()) == ["last"]).then_some(())
    });
    let reset = slow.named("reset");
    assert!(reset.data["lost"].as_u64().unwrap() >= 1_000, "{}", reset.data);
    // From there on it is complete. A growing socket buffer may hold a second one.
    let mut told = 0;
    slow.until(|event| {
        told = if event.name == "reset" { 0 } else { told + 1 };
        event.data["run_id"] == "last"
    });
    assert!(told < 5_000);
    cluster.put_run("next", 10_000.0, completed);
    assert_eq!(slow.named("run").data["run_id"], "next");
}

/// Writes `runs` runs with large summaries `times` times each, as quickly as NATS takes them.
fn write(cluster: &Cluster, runs: usize, times: usize) {
    let error = "e".repeat(8_000);
    let kv = &cluster.bus.runs();
    let error = &error;
    std::thread::scope(|scope| {
        for part in 0..8 {
            scope.spawn(move || {
                for time in 0..times {
                    for run in (part..runs).step_by(8) {
                        let document = document(&format!("r{run}"), time as f64, |run| {
                            run.error = Some(error.clone());
                        });
                        kv.put(&format!("r{run}"), &document).unwrap();
                    }
                }
            });
        }
    });
}

/// Somebody replaces the store: what was known is void.
#[test]
fn a_bucket_that_was_replaced_resets_the_reader() {
    let cluster = Cluster::with_gateway();
    cluster.submit(&main_flow());
    let mut stream = open(&cluster);
    jetstream::call(&cluster.nats, "STREAM.DELETE.KV_pyoco_runs", &Value::Null);
    let reset = stream.named("reset");
    assert!(reset.data["lost"].as_u64().unwrap() >= 1);
}
