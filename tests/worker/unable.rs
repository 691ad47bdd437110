//! A worker that cannot work: it says so, and ends when it never could.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::flows;
use crate::support::cluster::{Cluster, Worker, with_env, with_flags};
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::python::V08;
use crate::support::wait::{PATIENCE, eventually};

/// For a program that ends by itself.
const SOON: Duration = Duration::from_secs(20);
/// The first of some users of whom nothing else runs here, so that a limit of processes counts ours alone;
/// one for each test.
const NOBODY_ELSE: u32 = 61_347;

/// A worker of a user with a limit of `ulimit`: `-u 30` for example.
fn limited(cluster: &Cluster, uid: u32, id: &str, limit: &str) -> Command {
    let mut command = cluster.place(crate::support::process::without_settings("bash"));
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\""), Binary::Worker.path()]);
    command.args(["--nats-url", &cluster.nats.url(), "--worker-id", id, "--python", "off"]);
    command.args(["--concurrency", "64"]).current_dir("/");
    if rustix::process::getuid().is_root() {
        // The limit does not bind root.
        command.uid(uid);
    }
    command
}

#[test]
fn a_worker_with_few_threads_is_as_large_as_they_allow_and_says_so() {
    let cluster = Cluster::new().quick().start();
    let mut worker = Running::start(&mut limited(&cluster, NOBODY_ELSE, "few", "-u 40"));
    worker.wait_for_line(PATIENCE, "that it is smaller", |line| line.contains("too few threads"));
    let record = cluster.wait_record("few", "there", |record| record["state"] == "IDLE");
    let slots = record["concurrency"].as_u64().unwrap();
    assert!((1..16).contains(&slots), "{record}");
    let runs: Vec<String> = (0..20).map(|_| cluster.queue_yaml("default", flows::ECHO)).collect();
    for run_id in &runs {
        cluster.wait_stored(run_id, "COMPLETED");
    }
    assert_eq!(worker.stop(SOON).code(), Some(0), "{}", worker.stderr());
    assert_eq!(cluster.record("few").unwrap()["state"], "STOPPED_GRACEFUL");
}

#[test]
fn a_worker_without_threads_for_one_run_ends_with_the_way_out() {
    let cluster = Cluster::new().quick().start();
    // The fewer there are, the earlier it is that something cannot be started.
    for count in [4, 10, 16] {
        let id = format!("none-{count}");
        let finished = run(&mut limited(&cluster, NOBODY_ELSE + 1, &id, &format!("-u {count}")), b"", SOON);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("ulimit -u"), "{finished:?}");
        let state = cluster.record(&id).map(|record| record["state"].clone());
        assert!(state.is_none_or(|state| state == "STOPPED_GRACEFUL"), "{id}");
    }
}

/// A worker in the folder of the cluster, run to its end.
fn ended(cluster: &Cluster, flags: &[&str]) -> Finished {
    let mut command = cluster.place(Binary::Worker.command());
    command.args(["--nats-url", &cluster.nats.url(), "--worker-id", "w"]).args(flags);
    run(&mut command, b"", SOON)
}

#[test]
fn relative_paths_are_those_of_the_start() {
    let cluster = Cluster::new().quick().gateway().start();
    std::fs::create_dir(cluster.folder().join("bin")).unwrap();
    let python = V08.path().display().to_string();
    let script = cluster.write("bin/python", &format!("#!/bin/sh\nexec '{python}' \"$@\"\n"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    cluster.write(
        "flows.py",
        "import os, pyoco\n@pyoco.task\ndef place(ctx): return os.getcwd()\n\
         def resolve_flow(name):\n    flow = pyoco.Flow(name='main')\n    flow >> place\n    return flow\n",
    );
    for (id, python) in [("path", "bin/python"), ("name", "python")] {
        let mut command = cluster.place(Binary::Worker.command());
        command.args(["--nats-url", &cluster.nats.url(), "--worker-id", id, "--tags", id]);
        command.args(["--python", python, "--flow-resolver", "flows.py:resolve_flow"]);
        command.args(["--wheel-sync", "--wheel-sync-dir", "wheels"]);
        command.env("PATH", format!("bin:{}", std::env::var("PATH").unwrap()));
        let mut worker = Running::start(&mut command);
        let ended = cluster.ended_as(&cluster.submit_flow(id, "main", json!({})), "COMPLETED");
        let place = cluster.folder().canonicalize().unwrap();
        assert_eq!(ended["task_records"]["place"]["output"], place.display().to_string());
        assert!(cluster.folder().join("wheels").is_dir());
        assert_eq!(worker.stop(SOON).code(), Some(0));
    }
}

#[test]
fn a_worker_that_could_never_work_ends_with_the_reason() {
    let cluster = Cluster::new().quick().start();
    cluster.write("file", "");
    let python = V08.path().display().to_string();
    for (flags, reason) in [
        (&["--python", "nowhere/python"][..], "nowhere/python"),
        (&["--python", "nowhere/python", "--wheel-sync"][..], "nowhere/python"),
        (&["--python", "no-such-python", "--wheel-sync"][..], "no-such-python"),
        (&["--python", "/bin/false", "--wheel-sync"][..], "/bin/false"),
        (&["--python", &python, "--wheel-sync", "--wheel-sync-dir", "file/wheels"][..], "file/wheels"),
        (&["--python", &python, "--flow-resolver", "no.py:f"][..], "no.py"),
    ] {
        let finished = ended(&cluster, flags);
        assert_eq!(finished.code, Some(1), "{flags:?}: {finished:?}");
        let last =
            finished.stderr.lines().rev().find(|line| line.starts_with("- reason")).unwrap_or_default();
        assert!(last.contains(reason), "{flags:?}: {}", finished.stderr);
        let state = cluster.record("w").map(|record| record["state"].clone());
        assert!(state.is_none_or(|state| state == "STOPPED_GRACEFUL"), "{flags:?}");
    }
}

#[test]
fn a_worker_that_waits_for_its_first_wheels_says_why() {
    let cluster = Cluster::new().quick().gateway().start();
    let python = V08.path().display().to_string();
    // The resolver is in a wheel that nobody has uploaded.
    let flags = ["--python", &python, "--wheel-sync", "--flow-resolver", "not_there:resolve"];
    let _worker = cluster.start_worker("w1", with_flags(&flags));
    let record = eventually(PATIENCE, "it is unavailable for want of its code", || {
        let workers = cluster.get("/workers?state=unavailable").json();
        let record = workers.as_array()?.first()?.clone();
        record["unavailable_reason"].as_str()?.contains("not_there").then_some(record)
    });
    assert_eq!((&record["worker_id"], &record["state"]), (&json!("w1"), &json!("UNAVAILABLE")));
    assert!(record["unavailable_since"].as_f64().is_some(), "{record}");
    assert_eq!(cluster.record("w1").unwrap()["state"], "IDLE", "older readers know this word");
    let table = cluster.program().text(&["workers", "--output", "table"]);
    assert!(table.contains("UNAVAILABLE") && table.contains("not_there"), "{table}");
    let metrics = cluster.get("/metrics").text();
    assert!(metrics.contains("pyoco_worker_healthy{worker=\"w1\"} 0\n"), "{metrics}");
    assert!(metrics.contains("pyoco_workers{state=\"UNAVAILABLE\"} 1\n"), "{metrics}");
    assert!(metrics.contains("pyoco_workers_alive_total 0\n"), "{metrics}");
}

fn drains(worker: &mut Worker, cluster: &Cluster, signals: &[Signal]) {
    let run_id = cluster.queue_yaml("default", &flows::sleep(2.0));
    cluster.wait_stored(&run_id, "RUNNING");
    for signal in signals {
        worker.signal(*signal);
        worker.wait_for_line(PATIENCE, "that it stops", |line| line.contains("stopping"));
    }
    assert_eq!(worker.wait(SOON).code(), Some(0), "{}", worker.stderr());
    assert_eq!(cluster.wait_stored(&run_id, "COMPLETED")["attempt"], 1);
    assert_eq!(cluster.record(&worker.id).unwrap()["state"], "STOPPED_GRACEFUL");
}

#[test]
fn sighup_drains_a_worker_like_sigterm_and_never_cuts_a_drain_short() {
    let cluster = Cluster::new().quick().start();
    let one = || with_flags(&["--concurrency", "1"]);
    for (id, signals) in
        [("hup", &[Signal::HUP, Signal::HUP][..]), ("term", &[Signal::TERM, Signal::HUP, Signal::HUP])]
    {
        drains(&mut cluster.start_worker(id, one()), &cluster, signals);
    }
}

#[test]
fn a_worker_under_nohup_outlives_its_terminal() {
    let cluster = Cluster::new().quick().start();
    let mut command = cluster.place(crate::support::process::without_settings("nohup"));
    command.arg(Binary::Worker.path()).args(["--nats-url", &cluster.nats.url(), "--worker-id", "w1"]);
    let mut worker = Running::start(&mut command);
    cluster.wait_record("w1", "there", |_| true);
    worker.signal(Signal::HUP);
    let run_id = cluster.queue_yaml("default", flows::ECHO);
    cluster.wait_stored(&run_id, "COMPLETED");
    assert_eq!(worker.stop(SOON).code(), Some(0));
}

#[test]
fn sighup_does_no_harm_to_a_gateway_nor_to_its_worker() {
    let mut cluster = Cluster::new().quick().gateway().flags(&["--with-worker"]).start();
    let gateway = &mut cluster.gateways[0].process;
    gateway.signal(Signal::HUP);
    gateway.wait_for_line(PATIENCE, "that it goes on", |line| line.contains("nothing to reload"));
    let run_id = cluster.submit_yaml("default", "main", flows::ECHO);
    cluster.ended_as(&run_id, "COMPLETED");
    cluster.gateways[0].stop();
}

#[test]
fn a_worker_of_one_job_that_cannot_execute_it_fails() {
    let cluster = Cluster::new().quick().start();
    let python = V08.path().display().to_string();
    let place = tempfile::tempdir().unwrap();
    let mut command = cluster.place(Binary::Worker.command());
    command.args(["--nats-url", &cluster.nats.url(), "--worker-id", "once", "--run-once"]);
    command.args(["--poll-timeout", "10", "--python", &python]).current_dir(place.path());
    let run_id = cluster.queue_yaml("default", "flow: {graph: a}\ntasks: {a: {callable: 'os:getpid'}}\n");
    // Its directory goes as soon as it has started.
    let mut once = Running::start(&mut command);
    drop(place);
    assert_eq!(once.wait(SOON).code(), Some(1), "{}", once.stderr());
    assert!(once.stderr().contains("working directory"), "{}", once.stderr());
    assert_eq!(cluster.stored(&run_id).unwrap()["status"], "RUNNING", "given back, not failed");
    let _other = cluster.start_worker("other", with_env(&[("PYOCO_PYTHON", &python)]));
    cluster.wait_stored(&run_id, "COMPLETED");
}
