//! Which jobs a worker asks for: all of its tags, in turn, and never more than it has slots for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::flow::Registry;
use serde_json::{Value, json};

use crate::flows::{self, Gate, gated};
use crate::support::cluster::{Cluster, with_flags};
use crate::support::jetstream;
use crate::support::local_worker::LocalWorker;
use crate::support::wait::{PATIENCE, eventually};

const TAGS: [&str; 3] = ["a", "b", "c"];

fn seconds(snapshot: &Value, field: &str) -> f64 {
    snapshot[field].as_f64().unwrap_or_else(|| panic!("no {field}: {snapshot}"))
}

/// The run was delivered once: nobody took it who had no room for it.
fn assert_first_attempt(cluster: &Cluster, run_ids: &[String]) {
    for run_id in run_ids {
        let snapshot = cluster.wait_stored(run_id, "COMPLETED");
        assert_eq!(snapshot["attempt"], 1, "given back by a worker that was busy: {snapshot}");
    }
}

#[test]
fn a_worker_never_takes_more_than_it_has_slots_for() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    let _worker = cluster.local_worker("w1", &["default"], 3, gated(&gate, PATIENCE));
    // Slots that come free one by one are where a worker may ask for too much.
    for _ in 0..12 {
        let run_id = cluster.queue_yaml("default", flows::ECHO);
        cluster.wait_stored(&run_id, "COMPLETED");
    }
    let runs: Vec<String> = (0..12).map(|_| cluster.queue("default", "gated", json!({}))).collect();
    eventually(PATIENCE, "three runs execute", || (gate.entered() == 3).then_some(()));
    // What was asked for too much would have been delivered by now, and would show as attempt 2.
    let delivered = || {
        let info = jetstream::try_call(
            &cluster.nats,
            "CONSUMER.INFO.PYOCO_WORK.pyoco_workers_default",
            &Value::Null,
        );
        info["delivered"]["consumer_seq"].as_u64().unwrap()
    };
    assert_eq!(delivered(), 12 + 3);
    gate.open();
    assert_first_attempt(&cluster, &runs);
    assert_eq!((gate.most(), delivered()), (3, 24));
    cluster.wait_queue_empty();
}

#[test]
fn jobs_of_all_tags_are_served_and_those_of_others_are_left_alone() {
    let cluster = Cluster::new().quick().start();
    let _worker = cluster.local_worker("w1", &TAGS, 2, Registry::with_builtins());
    let foreign = cluster.queue_yaml("elsewhere", flows::ECHO);
    let runs: Vec<String> = (0..12).map(|n| cluster.queue_yaml(TAGS[n % 3], flows::ECHO)).collect();
    for run_id in &runs {
        cluster.wait_stored(run_id, "COMPLETED");
    }
    eventually(PATIENCE, "only the foreign job is left", || (cluster.queued() == 1).then_some(()));
    assert_eq!(cluster.history(&foreign).statuses(), ["PENDING"]);
}

#[test]
fn an_idle_worker_of_three_tags_takes_a_job_at_once_and_the_next_ones_too() {
    let cluster = Cluster::new().quick().start();
    let _worker = cluster.local_worker("w1", &TAGS, 2, Registry::with_builtins());
    cluster.settled(&cluster.queue_yaml("a", flows::ECHO), "COMPLETED");
    let mut waits = Vec::new();
    for round in 0..15 {
        // All on one tag, then in turn: both have to be quick while the other tags are empty.
        let tag = if round < 8 { "b" } else { TAGS[round % 3] };
        let before = Instant::now();
        let run_id = cluster.queue_yaml(tag, flows::ECHO);
        cluster.wait_stored(&run_id, "COMPLETED");
        let started = seconds(cluster.history(&run_id).last(), "start_time");
        waits.push(started - seconds(&cluster.history(&run_id).0[0].1, "submitted_at"));
        assert!(before.elapsed() < Duration::from_secs(12), "round {round}: {waits:?}");
    }
    waits.sort_by(f64::total_cmp);
    assert!(waits[7] < 0.4, "half of the jobs waited longer than 400 ms: {waits:?}");
}

#[test]
fn a_burst_on_one_of_three_tags_fills_all_slots() {
    let cluster = Cluster::new().quick().start();
    let gate = Arc::new(Gate::default());
    let _worker = cluster.local_worker("w1", &TAGS, 4, gated(&gate, PATIENCE));
    cluster.settled(&cluster.queue_yaml("c", flows::ECHO), "COMPLETED");
    let runs: Vec<String> = (0..8).map(|_| cluster.queue("a", "gated", json!({}))).collect();
    eventually(Duration::from_secs(12), "four runs execute", || (gate.entered() == 4).then_some(()));
    gate.open();
    assert_first_attempt(&cluster, &runs);
    assert_eq!(gate.most(), 4);
}

#[test]
fn two_tags_with_a_backlog_share_one_slot() {
    let cluster = Cluster::new().quick().start();
    let order: Vec<(String, &str)> = (0..60)
        .map(|n| if n < 30 { "a" } else { "b" })
        .map(|tag| (cluster.queue_yaml(tag, flows::ECHO), tag))
        .collect();
    let before = Instant::now();
    let _worker = cluster.local_worker("w1", &["a", "b"], 1, Registry::with_builtins());
    let mut started: Vec<(f64, &str)> = order
        .iter()
        .map(|(run_id, tag)| (seconds(&cluster.wait_stored(run_id, "COMPLETED"), "start_time"), *tag))
        .collect();
    let took = before.elapsed();
    started.sort_by(|x, y| x.0.total_cmp(&y.0));
    // Over any stretch both get about half: after 20 runs each has had at least 8.
    for stretch in started.chunks(20).take(2) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        stretch.iter().for_each(|(_, tag)| *counts.entry(tag).or_default() += 1);
        assert!(counts.get("a") >= Some(&8) && counts.get("b") >= Some(&8), "{started:?}");
    }
    assert!(took < Duration::from_secs(15), "60 empty runs took {took:?}");
    let runs: Vec<String> = order.into_iter().map(|(run_id, _)| run_id).collect();
    assert_first_attempt(&cluster, &runs);
}

#[test]
fn a_job_is_not_handed_around_by_workers_that_are_busy() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_CONSUMER_MAX_DELIVER", "6")]).start();
    let gate = Arc::new(Gate::default());
    // All of them have been idle and listen on `b`; then `a` keeps all of them busy.
    let count = 10;
    let _workers: Vec<LocalWorker> = (0..count)
        .map(|n| {
            let id = format!("w{n}");
            let worker = cluster.local_worker(&id, &["a", "b"], 1, gated(&gate, PATIENCE));
            cluster.wait_record(&id, "idle", |record| record["state"] == "IDLE");
            worker
        })
        .collect();
    let _busy: Vec<String> = (0..count).map(|_| cluster.queue("a", "gated", json!({}))).collect();
    eventually(PATIENCE, "all are busy", || (gate.entered() == count).then_some(()));
    let waiting = cluster.queue_yaml("b", flows::ECHO);
    // Longer than any pull stays open.
    std::thread::sleep(Duration::from_secs(3));
    let snapshot = cluster.stored(&waiting).unwrap();
    assert_eq!(snapshot["status"], "PENDING", "nobody has had room for it: {snapshot}");
    gate.open();
    let history = cluster.settled(&waiting, "COMPLETED");
    let attempt = history.last()["attempt"].as_u64().unwrap();
    assert!(attempt <= 4, "delivered {attempt} times before somebody had room");
}

#[test]
fn slots_are_what_the_flag_says() {
    let cluster = Cluster::new().quick().start();
    let _worker = cluster.start_worker("w1", with_flags(&["--concurrency", "3"]));
    let runs: Vec<String> = (0..6).map(|_| cluster.queue_yaml("default", &flows::sleep(0.6))).collect();
    let record = cluster.wait_record("w1", "three runs at once", |record| {
        record["current_run_ids"].as_array().is_some_and(|runs| runs.len() == 3)
    });
    assert_eq!(record["concurrency"], 3);
    let mut spans: Vec<(f64, f64)> = runs
        .iter()
        .map(|run_id| cluster.wait_stored(run_id, "COMPLETED"))
        .map(|run| (seconds(&run, "start_time"), seconds(&run, "end_time")))
        .collect();
    spans.sort_by(|x, y| x.0.total_cmp(&y.0));
    let most = spans.iter().map(|(at, _)| spans.iter().filter(|(s, e)| s <= at && at < e).count());
    assert_eq!(most.max(), Some(3), "{spans:?}");
}
