//! A cluster of three nats-servers that loses a node: the service is back about when NATS itself is.

use std::time::{Duration, Instant};

use pyoco_server::bus::Bus;
use pyoco_server::config::Config;

use crate::support::nats_cluster::NatsCluster;
use crate::support::wait::{PATIENCE, eventually};

/// How much later than NATS itself we may be, on a busy machine.
const SLACK: Duration = Duration::from_millis(2_500);
/// Three missed checks of a frozen server, the dial, and what a busy machine adds.
const FROZEN: Duration = Duration::from_secs(7);
const DEADLINE: Duration = Duration::from_secs(5);
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
fn submit(bus: &Bus) -> Result<(), pyoco_server::bus::Error> {
    let run_id = format!("r{}", uuid::Uuid::new_v4().simple());
    bus.runs().create(&run_id, b"{}")?;
    bus.queue().submit("default", &run_id, b"{}", Instant::now() + DEADLINE).map(drop)
}

fn wait_submitted(bus: &Bus) -> Instant {
    eventually(PATIENCE, "a submit is accepted", || submit(bus).ok());
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
        assert!(late < SLACK, "{late:?} after NATS itself");
        cluster.restart(leader);
        for stream in [WORK, RUNS] {
            cluster.wait_current(stream);
        }
    }
    assert_eq!(bus.state().disconnects, 0, "the node that we use was not touched");
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
