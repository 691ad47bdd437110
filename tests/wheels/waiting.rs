//! A worker that has no wheels yet: it takes no job, and ends as any other does.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::package::{flows, told};
use crate::support::cluster::{Cluster, Worker};
use crate::support::runs::RUN_DEADLINE;

const RESOLVER: [&str; 2] = ["--flow-resolver", "flows:resolve_flow"];

/// A worker whose resolver is not there yet.
fn holding(cluster: &Cluster) -> Worker {
    let mut worker = cluster.spawn_wheel_worker("w1", "default", &RESOLVER);
    cluster.wait_sync("w1", "the resolver is not there", |sync| sync["last_result"] == "error");
    worker.process.wait_for_line(RUN_DEADLINE, "that it waits", |line| line.contains("no job is taken"));
    worker
}

#[test]
fn a_worker_that_waits_for_its_wheels_ends_when_it_is_told_to() {
    let cluster = Cluster::with_gateway();
    let mut worker = holding(&cluster);
    let asked = Instant::now();
    assert!(worker.process.stop(RUN_DEADLINE).success(), "{}", worker.process.stderr());
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[test]
fn a_worker_that_waits_for_its_wheels_makes_room_for_its_successor() {
    let cluster = Cluster::with_gateway();
    let mut first = holding(&cluster);
    let _second = cluster.spawn_wheel_worker("w1", "default", &RESOLVER);
    assert!(!first.process.wait(RUN_DEADLINE).success());
    assert!(first.process.stderr().contains("was taken over by"), "{}", first.process.stderr());
    cluster.add_wheel(&flows("1.0"), "");
    let run = cluster.submit_flow("default", "main", json!({}));
    assert_eq!(told(&cluster.ended_as(&run, "COMPLETED")), ("1.0", "1.0"));
}

#[test]
fn a_worker_of_one_job_takes_none_without_its_wheels() {
    let cluster = Cluster::with_gateway();
    let run = cluster.submit_flow("default", "main", json!({}));
    let once = [&RESOLVER[..], &["--run-once", "--poll-timeout", "10"]].concat();
    let mut worker = cluster.spawn_wheel_worker("w1", "default", &once);
    assert!(!worker.process.wait(RUN_DEADLINE).success());
    let said = worker.process.stderr();
    assert!(said.contains("no job was taken") && said.contains("'flows'"), "{said}");
    assert_eq!(cluster.get(&format!("/runs/{run}")).json()["status"], "PENDING");
    cluster.add_wheel(&flows("1.0"), "");
    let mut worker = cluster.spawn_wheel_worker("w1", "default", &once);
    assert_eq!(told(&cluster.ended_as(&run, "COMPLETED")), ("1.0", "1.0"));
    assert!(worker.process.wait(RUN_DEADLINE).success(), "{}", worker.process.stderr());
    cluster.wait_installed("w1", &[&flows("1.0").file_name()]);
}
