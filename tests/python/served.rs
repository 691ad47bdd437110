//! Flows in Python through a whole worker: snapshots, the queue, the DLQ, stops and deaths.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Worker, with_flags};
use crate::support::measure::{below, is_running, kill, pid_in, wait_gone};
use crate::support::port::PortLease;
use crate::support::process::{Binary, Running, run};
use crate::support::python::V08;
use crate::support::python_flows::write_flows;
use crate::support::wait::{PATIENCE, eventually};

const FLOWS: &str = r#"
@pyoco.task
def fetch(ctx): return {"n": ctx.params["n"]}
@pyoco.task
def show(ctx, fetch): print("got", fetch["n"])
flow_of(fetch, show, name="main")

@pyoco.task
def boom(ctx): raise ValueError("it went boom")
flow_of(boom)

def note_pid(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)

@pyoco.task
def spin(ctx):
    note_pid(ctx)
    while True: pass
flow_of(spin)

@pyoco.task
def sleep(ctx):
    note_pid(ctx)
    time.sleep(ctx.params.get("seconds", 3600))
flow_of(sleep)

@pyoco.task
def deaf(ctx):
    import ctypes
    note_pid(ctx)
    ctypes.PyDLL(None).sleep(3600)
flow_of(deaf)

@pyoco.task
def polite(ctx):
    note_pid(ctx)
    while not ctx.is_cancelled: time.sleep(0.01)
flow_of(polite)

@pyoco.task
def huge(ctx): return ["x" * 1000] * 1000
flow_of(huge)

@pyoco.task
def hoard(ctx):
    blocks = []
    while True: blocks.append(bytearray(8_000_000))
flow_of(hoard)
"#;

/// A worker process with these flows, in a folder of its own.
struct Served {
    cluster: Cluster,
    worker: Worker,
    folder: tempfile::TempDir,
}

impl Served {
    fn start(flags: &[&str], env: &[(&str, &str)]) -> Served {
        let cluster = Cluster::new().quick().envs(env).start();
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&cluster, folder.path(), "w1", flags);
        Served { cluster, worker, folder }
    }

    fn submit(&self, flow: &str, params: Value) -> String {
        self.cluster.queue("default", flow, params)
    }

    /// Submits a flow that writes its pid, and waits for that.
    fn submit_noting_pid(&self, flow: &str, seconds: f64) -> (String, u32) {
        let file = self.folder.path().join(format!("{flow}.pid"));
        let run = self.submit(flow, json!({"pid": file, "seconds": seconds}));
        let pid = pid_in(&file);
        (run, pid)
    }
}

fn worker(cluster: &Cluster, folder: &Path, id: &str, flags: &[&str]) -> Worker {
    // Pyoco makes a folder for artifacts where it runs.
    std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let resolver = write_flows(folder, FLOWS);
    let python = V08.path().display().to_string();
    let flags = [&["--flow-resolver", &resolver, "--python", &python], flags].concat();
    cluster.start_worker(id, with_flags(&flags))
}

#[test]
fn a_python_flow_is_recorded_like_any_other() {
    let served = Served::start(&["--concurrency", "2"], &[]);
    let run = served.submit("fetch", json!({"n": 3}));
    let history = served.cluster.settled(&run, "COMPLETED");
    let snapshot = history.last();
    assert_eq!(snapshot["flow_name"], "main");
    assert_eq!(snapshot["tasks"], json!({"fetch": "SUCCEEDED", "show": "SUCCEEDED"}));
    assert_eq!(snapshot["task_records"]["fetch"]["output"], json!({"n": 3}));
    assert_eq!(snapshot["task_records"]["show"]["inputs"], json!({"fetch": {"n": 3}}));
    assert_eq!(snapshot["task_records"]["show"]["logs"]["stdout"], "got 3\n");

    let run = served.submit("boom", json!({}));
    let history = served.cluster.settled(&run, "FAILED");
    assert_eq!(history.last()["error"], "it went boom");
    let record = &history.last()["task_records"]["boom"];
    assert_eq!(record["state"], "FAILED");
    assert!(record["traceback"].as_str().unwrap().contains("ValueError: it went boom"));

    let run = served.submit("nowhere", json!({}));
    let history = served.cluster.settled(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("flow_not_found: ") && error.contains("nowhere"), "{error}");
    let reasons: Vec<_> =
        served.cluster.wait_dlq(2).into_iter().map(|entry| entry["reason"].clone()).collect();
    assert_eq!(reasons, ["execution_error", "flow_not_found"]);

    let run = served.submit("huge", json!({}));
    let history = served.cluster.settled(&run, "COMPLETED");
    let output = &history.last()["task_records"]["huge"]["output"];
    assert_eq!(output, "<list: too large to be kept>");

    let record = served
        .cluster
        .wait_record("w1", "tells of its Python", |record| record["python"]["state"] == "ready");
    assert_eq!(record["python"]["pyoco"], "0.8.0");
    assert_eq!(record["python"]["starts"], 1);
}

#[test]
fn a_document_runs_beside_the_resolver_and_native_ones_stay_native() {
    let served = Served::start(&[], &[]);
    std::fs::write(
        served.folder.path().join("work.py"),
        "def add(a, b): return a + b\ndef say(text): print(text)\n",
    )
    .unwrap();
    let yaml = "version: 1\nflow:\n  graph: add >> say\n  defaults: {a: 1, b: 2}\n\
        tasks:\n  add: {callable: 'work:add'}\n  say: {callable: 'work:say', inputs: {text: $node.add.output}}\n";
    let run = served.cluster.queue_yaml_with("default", yaml, json!({"b": 40}));
    let history = served.cluster.settled(&run, "COMPLETED");
    assert_eq!(history.last()["task_records"]["add"]["output"], 41);
    assert_eq!(history.last()["task_records"]["say"]["logs"]["stdout"], "41\n");

    let native = "flow: {graph: one}\ntasks: {one: {use: builtin/echo, inputs: {n: 1}}}\n";
    let run = served.cluster.queue_yaml("default", native);
    let history = served.cluster.settled(&run, "COMPLETED");
    assert!(history.last()["task_records"]["one"]["logs"].is_null());
}

#[test]
fn a_cancel_ends_a_run_whatever_it_is_doing() {
    let served = Served::start(
        &["--concurrency", "4"],
        &[("PYOCO_CANCEL_GRACE_PERIOD_SEC", "1"), ("PYOCO_LOG_FORMAT", "text")],
    );
    let (polite, _) = served.submit_noting_pid("polite", 0.0);
    served.cluster.mark_cancelling(&polite);
    served.cluster.settled(&polite, "CANCELLED");
    for flow in ["spin", "sleep", "deaf"] {
        let (run, pid) = served.submit_noting_pid(flow, 3600.0);
        let before = Instant::now();
        served.cluster.mark_cancelling(&run);
        let history = served.cluster.settled(&run, "CANCELLED");
        // The grace period, the mercy after SIGTERM, which none of them needs, and the writes.
        assert!(before.elapsed() < Duration::from_secs(5), "{flow}: {:?}", before.elapsed());
        assert_eq!(history.last()["tasks"][flow], "CANCELLED");
        assert!(!is_running(pid), "{flow}: the process outlives its run");
    }
    assert!(served.worker.stderr().contains("ERR-PYOCO-0021"));
    let run = served.submit("fetch", json!({"n": 1}));
    served.cluster.settled(&run, "COMPLETED");
}

#[test]
fn limits_fail_the_run_and_are_named_in_its_error() {
    let served = Served::start(&["--run-memory-limit", "256M", "--run-timeout-sec", "3"], &[]);
    let run = served.submit("hoard", json!({}));
    let history = served.cluster.settled(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("--run-memory-limit"), "{error}");
    let (run, pid) = served.submit_noting_pid("spin", 0.0);
    let history = served.cluster.settled(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("--run-timeout-sec"), "{error}");
    assert_eq!(history.last()["tasks"]["spin"], "FAILED");
    assert!(!is_running(pid));
}

#[test]
fn a_worker_that_dies_takes_its_runs_along_and_they_start_again() {
    let served = Served::start(&["--concurrency", "2"], &[("PYOCO_CONSUMER_ACK_WAIT_SEC", "3")]);
    let file = served.folder.path().join("pid");
    let (deaf, deaf_pid) = served.submit_noting_pid("deaf", 0.0);
    let run = served.submit("sleep", json!({"pid": file, "seconds": 1}));
    let pid = pid_in(&file);
    let template = below(served.worker.pid()).first().unwrap().0;
    let Served { cluster, worker: first, folder } = served;
    first.signal(Signal::KILL);
    for pid in [pid, deaf_pid, template] {
        wait_gone(pid);
    }
    // Or the run that nothing ends would come to the second worker too.
    cluster.mark_cancelling(&deaf);
    let _second = worker(&cluster, folder.path(), "w2", &["--concurrency", "2"]);
    let snapshot = cluster.wait_stored(&run, "COMPLETED");
    assert_eq!(snapshot["attempt"], 2);
    cluster.wait_stored(&deaf, "CANCELLED");
}

#[test]
fn a_worker_that_stops_waits_for_its_runs_and_leaves_no_process() {
    let served = Served::start(&["--concurrency", "2"], &[]);
    let (run, pid) = served.submit_noting_pid("sleep", 1.0);
    let template = below(served.worker.pid()).first().unwrap().0;
    let Served { cluster, mut worker, folder: _folder } = served;
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(PATIENCE).code(), Some(0));
    assert_eq!(cluster.stored(&run).unwrap()["status"], "COMPLETED");
    assert!(!is_running(pid) && !is_running(template));
}

#[test]
fn a_run_that_outlasts_the_drain_is_ended_and_given_back() {
    let served = Served::start(&["--drain-timeout-sec", "0.5"], &[]);
    let (run, pid) = served.submit_noting_pid("deaf", 0.0);
    let Served { cluster, mut worker, folder: _folder } = served;
    let before = Instant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(PATIENCE).code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert!(!is_running(pid));
    assert_eq!(cluster.queued(), 1);
    assert_eq!(cluster.stored(&run).unwrap()["status"], "RUNNING");
}

#[test]
fn a_dead_template_is_replaced_and_the_record_says_so() {
    let served = Served::start(&[], &[]);
    let before = served.cluster.wait_record("w1", "is ready", |r| r["python"]["state"] == "ready");
    kill(before["python"]["pid"].as_u64().unwrap().try_into().unwrap());
    served.cluster.wait_record("w1", "tells of the death", |r| r["python"]["state"] == "died");
    let run = served.submit("fetch", json!({"n": 1}));
    served.cluster.settled(&run, "COMPLETED");
    let after = served.cluster.wait_record("w1", "is ready again", |r| r["python"]["starts"] == 2);
    assert_eq!(after["python"]["state"], "ready");
    assert_ne!(after["python"]["pid"], before["python"]["pid"]);
}

#[test]
fn a_resolver_that_cannot_be_loaded_ends_the_worker_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, text) in [("nothing_here:f", "nothing_here"), ("gone.py:f", "gone.py")] {
        let mut command = Binary::Worker.command();
        command.current_dir(&folder).arg("--python").arg(V08.path());
        command.args(["--flow-resolver", flag]);
        let ended = run(&mut command, b"", PATIENCE);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        for part in ["ERR-PYOCO-0018", text, "- hint: ", "--flow-resolver"] {
            assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
        }
    }
}

#[test]
fn a_worker_without_python_executes_no_python() {
    let cluster = Cluster::new().quick().start();
    let _worker = cluster.start_worker("w1", with_flags(&["--python", "off"]));
    let yaml = "flow: {graph: a}\ntasks: {a: {callable: 'os:getcwd'}}\n";
    let run = cluster.queue_yaml("default", yaml);
    let history = cluster.settled(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("flow_not_found: ") && error.contains("os:getcwd"), "{error}");
    assert!(cluster.record("w1").unwrap()["python"].is_null());
}

#[test]
fn the_server_with_a_worker_takes_a_resolver_too() {
    let cluster = Cluster::new().quick().start();
    let folder = tempfile::tempdir().unwrap();
    let resolver = write_flows(folder.path(), FLOWS);
    let port = PortLease::take();
    let mut command = Binary::Server.command();
    command.args(["up", "--port", &port.port().to_string(), "--with-worker"]);
    command.args(["--worker-flow-resolver", &resolver]).envs(cluster.env.iter().cloned());
    command.env("PYOCO_PYTHON", V08.path());
    let _server = Running::start(&mut command);
    let run = cluster.queue("default", "fetch", json!({"n": 7}));
    eventually(PATIENCE, "the run ends", || (cluster.stored(&run)?["status"] == "COMPLETED").then_some(()));
}
