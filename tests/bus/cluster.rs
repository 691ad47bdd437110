//! A cluster of three nats-servers that loses a node: the service is back about when NATS itself is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyoco_server::bus::{self, Bus};
use pyoco_server::config::Config;

use crate::support::nats_cluster::NatsCluster;
use crate::support::wait::{PATIENCE, eventually};
use crate::watch::mirror;

/// How much later than NATS itself we may be, on a busy machine.
const SLACK: Duration = Duration::from_millis(1_500);
/// Three missed checks of a frozen server, the dial, and what a busy machine adds.
const FROZEN: Duration = Duration::from_secs(7);
/// Ten seconds without an answer of a leader, the last request, and what a busy machine adds.
const CUT_OFF: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(5);
/// At least so many while the leader of a watched stream changes.
const WRITES: usize = 200;
const WORK: &str = "PYOCO_WORK";
const RUNS: &str = "KV_pyoco_runs";

/// A bus that was told of one node alone, and the streams with three replicas.
fn connect(cluster: &NatsCluster, node: usize) -> Bus {
    let mut config = Config::default();
    config.nats.url = cluster.url(node);
    config.resources.replicas = 3;
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(PATIENCE), "no connection");
    eventually(PATIENCE, "streams with three replicas", || {
        bus.runs().ensure().and_then(|()| bus.queue().ensure()).ok()
    });
    for stream in [WORK, RUNS] {
        cluster.wait_current(stream);
    }
    bus
}

/// What a submit does: the snapshot, then the job.
fn submit(bus: &Bus) -> bus::Result<()> {
    let run_id = format!("r{}", uuid::Uuid::new_v4().simple());
    bus.runs().create(&run_id, b"{}")?;
    bus.queue().submit("default", &run_id, b"{}", Instant::now() + DEADLINE).map(drop)
}

fn wait_submitted(bus: &Bus) -> Instant {
    eventually(PATIENCE, "a submit is accepted", || {
        let submitted = submit(bus);
        // Nobody else writes these keys.
        assert!(!matches!(submitted, Err(bus::Error::Conflict(_))), "{submitted:?}");
        submitted.ok()
    });
    Instant::now()
}

#[test]
fn a_frozen_node_is_left_for_one_that_only_the_cluster_has_named() {
    let mut cluster = NatsCluster::start(3);
    let bus = connect(&cluster, 0);
    // What is measured is our own part: NATS goes on without that node.
    cluster.move_leader(WORK, 1);
    cluster.move_leader(RUNS, 2);
    submit(&bus).unwrap();
    cluster.pause(0);
    let began = Instant::now();
    let back = wait_submitted(&bus);
    assert!(back - began < FROZEN, "{:?}", back - began);
    assert!(!bus.state().server.starts_with("n0 "), "{}", bus.state().server);
    // The node that was left is no worse than others when another one goes.
    cluster.resume(0);
    for stream in [WORK, RUNS] {
        cluster.wait_current(stream);
    }
    submit(&bus).unwrap();
}

#[test]
fn after_the_death_of_a_leader_a_submit_waits_no_longer_than_nats_itself() {
    let mut cluster = NatsCluster::start(3);
    let bus = connect(&cluster, 0);
    for leader in [1, 2] {
        cluster.move_leader(WORK, leader);
        cluster.move_leader(RUNS, leader);
        submit(&bus).unwrap();
        cluster.kill(leader);
        // In the worst case a request is under way.
        let (nats, ours) = std::thread::scope(|scope| {
            let ours = scope.spawn(|| wait_submitted(&bus));
            let nats =
                cluster.wait_stored("pyoco.work.probe").max(cluster.wait_stored("$KV.pyoco_runs.probe"));
            (nats, ours.join().unwrap())
        });
        let late = ours.saturating_duration_since(nats);
        println!("{late:?} after NATS itself");
        assert!(late < SLACK, "{late:?} after NATS itself");
        cluster.restart(leader);
        for stream in [WORK, RUNS] {
            cluster.wait_current(stream);
        }
    }
    assert_eq!(bus.state().disconnects, 0, "the node that we use was not touched");
}

#[test]
fn a_watch_misses_nothing_when_its_leader_changes_again_at_once() {
    let cluster = NatsCluster::start(3);
    let bus = connect(&cluster, 0);
    let runs = bus.runs();
    let (mirror, _watch) = mirror(&runs);
    eventually(PATIENCE, "the watch is live", || mirror.lock().unwrap().live.then_some(()));
    let is_over = AtomicBool::new(false);
    let stored = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut stored, mut writes) = (BTreeMap::new(), 0);
            for n in 0.. {
                let (key, value) = (format!("k{}", n % 50), format!("{n}").into_bytes());
                // What fails may have been stored all the same.
                match runs.put(&key, &value) {
                    Ok(_) => {
                        writes += 1;
                        stored.insert(key, value);
                    }
                    Err(_) => drop(stored.remove(&key)),
                }
                if is_over.load(Ordering::Relaxed) && writes >= WRITES {
                    return stored;
                }
            }
            unreachable!()
        });
        // The watch is built anew after the first change while the second one comes.
        for leader in [1, 2, 0, 1, 2] {
            cluster.move_leader(RUNS, leader);
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    eventually(PATIENCE, "the watch has told all of it", || {
        let mirror = mirror.lock().unwrap();
        let has_all = || stored.iter().all(|(key, value)| mirror.values.get(key) == Some(value));
        (mirror.live && has_all()).then_some(())
    });
}

/// It answers PINGs, and its replicas answer reads.
#[test]
fn a_node_that_is_cut_off_from_the_others_is_left() {
    let mut cluster = NatsCluster::start(3);
    let bus = connect(&cluster, 0);
    // A leader that is cut off goes on to answer for its stream.
    cluster.move_leader(WORK, 1);
    cluster.move_leader(RUNS, 0);
    submit(&bus).unwrap();
    cluster.cut_off(0);
    let began = Instant::now();
    let back = wait_submitted(&bus);
    assert!(back - began < CUT_OFF, "{:?}", back - began);
    assert!(!bus.state().server.starts_with("n0 "), "{}", bus.state().server);
    cluster.rejoin(0);
    for stream in [WORK, RUNS] {
        cluster.wait_current(stream);
    }
    submit(&bus).unwrap();
}

#[test]
fn a_killed_node_is_left_within_moments() {
    let mut cluster = NatsCluster::start(3);
    let bus = connect(&cluster, 0);
    cluster.move_leader(WORK, 1);
    cluster.move_leader(RUNS, 2);
    submit(&bus).unwrap();
    cluster.kill(0);
    let began = Instant::now();
    let back = wait_submitted(&bus);
    assert!(back - began < SLACK, "{:?}", back - began);
}
