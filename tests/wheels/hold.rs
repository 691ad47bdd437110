//! A worker that has no wheels yet: it takes no job, and ends as any other does.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::crew::{PATIENCE, Worker, ended, flows, submit, told, wait_installed, wait_sync};
use crate::desk::take;
use crate::stage::Stage;

const RESOLVER: [&str; 2] = ["--flow-resolver", "flows:resolve_flow"];

/// A worker whose resolver is not there yet.
fn holding(stage: &Stage) -> Worker {
    let mut worker = Worker::start(stage, "w1", "default", &RESOLVER);
    wait_sync(stage, "w1", "the resolver is not there", |sync| sync["last_result"] == "error");
    worker
        .process
        .wait_for_line(PATIENCE, "that it waits", |line| line.contains("no job is taken"));
    worker
}

#[test]
fn a_worker_that_waits_for_its_wheels_ends_when_it_is_told_to() {
    let stage = Stage::start();
    let mut worker = holding(&stage);
    let asked = Instant::now();
    assert!(worker.process.stop(PATIENCE).success(), "{}", worker.process.stderr());
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[test]
fn a_worker_that_waits_for_its_wheels_makes_room_for_its_successor() {
    let stage = Stage::start();
    let mut first = holding(&stage);
    let _second = Worker::start(&stage, "w1", "default", &RESOLVER);
    assert!(!first.process.wait(PATIENCE).success());
    assert!(first.process.stderr().contains("was taken over by"), "{}", first.process.stderr());
    take(&stage, &flows("1.0"), "");
    let run = submit(&stage, "main", "default", json!({}));
    assert_eq!(told(&ended(&stage, &run, "COMPLETED")), ("1.0", "1.0"));
}

#[test]
fn a_worker_of_one_job_takes_none_without_its_wheels() {
    let stage = Stage::start();
    let run = submit(&stage, "main", "default", json!({}));
    let once = [&RESOLVER[..], &["--run-once", "--poll-timeout", "10"]].concat();
    let mut worker = Worker::start(&stage, "w1", "default", &once);
    assert!(!worker.process.wait(PATIENCE).success());
    let said = worker.process.stderr();
    assert!(said.contains("no job was taken") && said.contains("'flows'"), "{said}");
    assert_eq!(stage.get(&format!("/runs/{run}")).json()["status"], "PENDING");
    take(&stage, &flows("1.0"), "");
    let mut worker = Worker::start(&stage, "w1", "default", &once);
    assert_eq!(told(&ended(&stage, &run, "COMPLETED")), ("1.0", "1.0"));
    assert!(worker.process.wait(PATIENCE).success(), "{}", worker.process.stderr());
    wait_installed(&stage, "w1", &[&flows("1.0").file_name()]);
}
