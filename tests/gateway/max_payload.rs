//! The server's `max_payload` bounds what a submit may carry; it may be small, and it may change.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Options};
use crate::support::keys::Admin;
use crate::support::nats::NatsOptions;
use crate::support::wait::{PATIENCE, eventually};

fn limited(bytes: u64) -> NatsOptions {
    NatsOptions { max_payload: Some(bytes), ..NatsOptions::default() }
}

fn submit(cluster: &Cluster, bytes: usize) -> u16 {
    cluster.post("/runs", &json!({"flow_name": "m", "params": {"x": "x".repeat(bytes)}})).status
}

#[test]
fn a_limit_that_changes_is_followed_and_costs_no_connection() {
    let mut cluster = Cluster::new().nats(limited(1024 * 1024)).gateway().start();
    // Longer than what was learnt with the last large message counts.
    let rest = || std::thread::sleep(Duration::from_millis(300));
    assert_eq!(submit(&cluster, 300_000), 200);
    cluster.nats.reload(limited(64 * 1024));
    rest();
    for _ in 0..3 {
        assert_eq!(submit(&cluster, 300_000), 413);
    }
    assert_eq!(submit(&cluster, 30_000), 200);
    cluster.nats.reload(limited(8 * 1024 * 1024));
    rest();
    assert_eq!(submit(&cluster, 900_000), 200);
    let nats = &cluster.get_json("/readyz")["checks"]["nats"];
    assert_eq!(nats["disconnects"], 0, "{nats}");
    assert!(!cluster.nats.log().contains("maximum payload exceeded"), "{}", cluster.nats.log());
    assert_eq!(cluster.get("/runs").json().as_array().unwrap().len(), 3);
}

#[test]
fn with_a_small_limit_small_runs_are_taken_and_log_readyz_and_doctor_say_what_is_not() {
    let cluster = Cluster::new().nats(limited(64 * 1024)).gateway().start();
    assert_eq!((submit(&cluster, 10), submit(&cluster, 40_000), submit(&cluster, 50_000)), (200, 200, 413));
    let ready = cluster.get_json("/readyz");
    assert_eq!(ready["status"], "ok", "{ready}");
    let check = &ready["checks"]["max_payload"];
    assert_eq!((&check["status"], &check["bytes"]), (&json!("low"), &json!(65_536)));
    assert!(check["reason"].as_str().unwrap().contains("over 49152 bytes"), "{check}");
    let log = cluster.gateways[0].process.stderr();
    let told = log.lines().filter(|line| line.contains("max_payload is low")).count();
    assert_eq!(told, 1, "{log}");
    let doctor = Admin::ours(&cluster.nats).run(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    let lines = doctor.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["check"] == "max_payload").unwrap();
    assert_eq!((&line["ok"], &line["bytes"]), (&json!(true), &json!(65_536)));
    assert!(line["warning"].as_str().unwrap().contains("413"), "{line}");
}

#[test]
fn a_limit_that_takes_no_run_at_all_is_not_ready() {
    let cluster = Cluster::new().nats(limited(2048)).start();
    let gateway = cluster.spawn_gateway(Options::default());
    eventually(PATIENCE, "the check says why", || {
        let answer = gateway.get("/readyz");
        let check = &answer.json()["checks"]["max_payload"]["status"];
        (answer.status == 503 && check == "unavailable").then_some(())
    });
    let doctor = Admin::ours(&cluster.nats).run(&["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
}
