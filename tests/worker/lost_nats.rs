//! Workers that are cut off from NATS, or stand still: what becomes of the runs that they execute.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pyoco_server::config::{Config, Source};
use pyoco_server::flow::{Flow, NativeExecutor, Registry};
use rustix::process::Signal;
use serde_json::json;

use crate::flows;
use crate::support::cluster::{Cluster, with_env};
use crate::support::jetstream;
use crate::support::local_worker::LocalWorker;
use crate::support::nats::NatsOptions;
use crate::support::process::Running;
use crate::support::wait::{PATIENCE, eventually};

/// From the loss of the leader to the end of the run: two seconds, a write that gets no answer, and some time
/// on a busy machine.
const STOPPED: Duration = Duration::from_secs(10);
/// Names the NATS of a cluster to [`worker_in_a_process_of_its_own`], and the file for its notes.
const NATS_OF_PROCESS: &str = "LOST_NATS_URL";
const NOTES_OF_PROCESS: &str = "LOST_NATS_NOTES";
/// Quick deliveries; a lease of a second follows from them.
const QUICK: [(&str, &str); 2] =
    [("PYOCO_CONSUMER_ACK_WAIT_SEC", "2"), ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "0.5")];

/// A server that answers writes of snapshots as a node does whose stream has no leader: nobody takes them.
fn without_leader() -> NatsOptions {
    let lines = ["mappings: { \"$KV.pyoco_runs.>\": \"nobody.listens.>\" }".to_owned()];
    NatsOptions { config_lines: lines.into(), ..NatsOptions::default() }
}

#[test]
fn a_worker_whose_node_answers_but_has_no_leader_ends_its_runs_when_it_is_told_to() {
    let mut cluster = Cluster::new().quick().start();
    let mut worker = cluster.start_worker("w1", with_env(&[("PYOCO_LOST_NATS", "stop:2")]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(20.0));
    cluster.wait_stored(&run_id, "RUNNING");
    cluster.nats.reload(without_leader());
    worker.wait_for_line(STOPPED, "an answer", |line| line.contains("no responders"));
    worker.wait_for_line(STOPPED, "that it ends the run", |line| line.contains("PYOCO_LOST_NATS allows"));
}

#[test]
fn a_worker_whose_writes_find_no_room_ends_its_runs_when_it_is_told_to() {
    let cluster = Cluster::new().quick().start();
    let mut worker = cluster.start_worker("w1", with_env(&[("PYOCO_LOST_NATS", "stop:2")]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(20.0));
    cluster.wait_stored(&run_id, "RUNNING");
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_bytes"] = 1.into());
    // A gateway that finds room first takes the run for one of a dead worker.
    worker.wait_for_line(STOPPED, "that it ends the run", |line| line.contains("PYOCO_LOST_NATS allows"));
}

#[test]
fn a_worker_that_is_given_too_much_time_without_nats_says_so() {
    let cluster = Cluster::new().quick().start();
    let mut warned = cluster.spawn_worker("long", with_env(&[("PYOCO_LOST_NATS", "stop:60")]));
    warned
        .wait_for_line(PATIENCE, "a warning", |line| line.contains("PYOCO_LOST_NATS leaves runs more time"));
    let short = cluster.start_worker("short", with_env(&[("PYOCO_LOST_NATS", "stop:2")]));
    assert!(!short.stderr().contains("PYOCO_LOST_NATS"), "{}", short.stderr());
}

/// Tasks that note their process, one after the other, and take no notice of a cancel.
fn noting(notes: PathBuf) -> Registry {
    let mut flow = Flow::builder("steps");
    let name = |number: u32| format!("step{number:02}");
    for number in 0..60 {
        let notes = notes.clone();
        flow = flow.task(&name(number), move |_| {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&notes)?;
            writeln!(file, "{}", std::process::id())?;
            std::thread::sleep(Duration::from_millis(200));
            Ok(json!(null))
        });
        if number > 0 {
            flow = flow.edge(&name(number - 1), &name(number));
        }
    }
    let mut registry = Registry::new();
    registry.flow(flow.build().unwrap());
    registry
}

/// No test by itself: a process with native tasks that another test can freeze.
#[test]
fn worker_in_a_process_of_its_own() {
    let (Ok(url), Ok(notes)) = (std::env::var(NATS_OF_PROCESS), std::env::var(NOTES_OF_PROCESS)) else {
        return;
    };
    let own = [("PYOCO_NATS_URL", url.as_str()), ("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.5")];
    let config = Config::load(&Source::from_pairs(own.into_iter().chain(QUICK))).config;
    let executor = Arc::new(NativeExecutor::new(noting(notes.into())));
    let _worker = LocalWorker::start(&config, "first", &["default"], 1, executor);
    std::thread::sleep(4 * PATIENCE);
}

fn noted(notes: &Path, pid: u32) -> usize {
    let text = std::fs::read_to_string(notes).unwrap_or_default();
    text.lines().filter(|line| *line == pid.to_string()).count()
}

#[test]
fn a_native_run_that_was_lost_during_a_freeze_begins_no_further_task() {
    let cluster = Cluster::new().quick().envs(&QUICK).start();
    let notes = cluster.folder().join("notes");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "lost_nats::worker_in_a_process_of_its_own", "--nocapture"]);
    command.env(NATS_OF_PROCESS, cluster.nats.url()).env(NOTES_OF_PROCESS, &notes);
    let first = Running::start(&mut command);
    let run_id = cluster.queue("default", "steps", json!({}));
    let by = |pid: u32, count: usize| {
        eventually(PATIENCE, &format!("{count} tasks of {pid}"), || {
            (noted(&notes, pid) >= count).then_some(())
        })
    };
    by(first.pid(), 2);
    let second = cluster.local_worker("second", &["default"], 1, noting(notes.clone()));
    first.signal(Signal::STOP);
    let before = noted(&notes, first.pid());
    by(std::process::id(), 2);
    first.signal(Signal::CONT);
    // So long that the first one has found out by a write.
    by(std::process::id(), 15);
    assert_eq!(noted(&notes, first.pid()), before, "tasks of the worker that has lost the run");
    let run = cluster.stored(&run_id).unwrap();
    assert_eq!((&run["worker_id"], &run["status"]), (&json!("second"), &json!("RUNNING")), "{run}");
    drop(second);
}
