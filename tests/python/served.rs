//! Flows in Python through a whole worker: snapshots, the queue, the DLQ, stops and deaths.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::stage::{below, gone, is_running, kill, pid_in, write_flows};
use crate::support::process::{self, Binary, Running};
use crate::support::python;
use crate::support::wait::{PATIENCE, eventually};
use crate::workers::process_with;

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
    lab: Lab,
    worker: Running,
    folder: tempfile::TempDir,
}

impl Served {
    fn start(flags: &[&str], env: &[(&str, &str)]) -> Served {
        let lab = Lab::start(env);
        let folder = tempfile::tempdir().unwrap();
        let worker = worker(&lab, folder.path(), "w1", flags);
        Served { lab, worker, folder }
    }

    fn submit(&self, flow: &str, params: Value) -> String {
        self.lab.submit("default", flow, params)
    }

    /// Submits a flow that writes its pid, and waits for that.
    fn submit_noting_pid(&self, flow: &str, seconds: f64) -> (String, u32) {
        let file = self.folder.path().join(format!("{flow}.pid"));
        let run = self.submit(flow, json!({"pid": file, "seconds": seconds}));
        let pid = pid_in(&file);
        (run, pid)
    }
}

fn worker(lab: &Lab, folder: &Path, id: &str, flags: &[&str]) -> Running {
    // Pyoco makes a folder for artifacts where it runs.
    std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let resolver = write_flows(folder, FLOWS);
    let python = python::python_08().display().to_string();
    let flags = [&["--flow-resolver", &resolver, "--python", &python], flags].concat();
    process_with(lab, id, &flags, &[])
}

#[test]
fn a_python_flow_is_recorded_like_any_other() {
    let served = Served::start(&["--concurrency", "2"], &[]);
    let run = served.submit("fetch", json!({"n": 3}));
    let history = served.lab.ended(&run, "COMPLETED");
    let snapshot = history.last();
    assert_eq!(snapshot["flow_name"], "main");
    assert_eq!(snapshot["tasks"], json!({"fetch": "SUCCEEDED", "show": "SUCCEEDED"}));
    assert_eq!(snapshot["task_records"]["fetch"]["output"], json!({"n": 3}));
    assert_eq!(snapshot["task_records"]["show"]["inputs"], json!({"fetch": {"n": 3}}));
    assert_eq!(snapshot["task_records"]["show"]["logs"]["stdout"], "got 3\n");

    let run = served.submit("boom", json!({}));
    let history = served.lab.ended(&run, "FAILED");
    assert_eq!(history.last()["error"], "it went boom");
    let record = &history.last()["task_records"]["boom"];
    assert_eq!(record["state"], "FAILED");
    assert!(record["traceback"].as_str().unwrap().contains("ValueError: it went boom"));

    let run = served.submit("nowhere", json!({}));
    let history = served.lab.ended(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("flow_not_found: ") && error.contains("nowhere"), "{error}");
    let reasons: Vec<_> =
        served.lab.wait_dlq(2).into_iter().map(|entry| entry["reason"].clone()).collect();
    assert_eq!(reasons, ["execution_error", "flow_not_found"]);

    let run = served.submit("huge", json!({}));
    let history = served.lab.ended(&run, "COMPLETED");
    let output = &history.last()["task_records"]["huge"]["output"];
    assert_eq!(output, "<list: too large to be kept>");

    let record = served
        .lab
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
    let run = served.lab.submit_document("default", yaml, json!({"b": 40}));
    let history = served.lab.ended(&run, "COMPLETED");
    assert_eq!(history.last()["task_records"]["add"]["output"], 41);
    assert_eq!(history.last()["task_records"]["say"]["logs"]["stdout"], "41\n");

    let native = "flow: {graph: one}\ntasks: {one: {use: builtin/echo, inputs: {n: 1}}}\n";
    let run = served.lab.submit_yaml("default", native);
    let history = served.lab.ended(&run, "COMPLETED");
    assert!(history.last()["task_records"]["one"]["logs"].is_null());
}

#[test]
fn a_cancel_ends_a_run_whatever_it_is_doing() {
    let served = Served::start(
        &["--concurrency", "4"],
        &[("PYOCO_CANCEL_GRACE_PERIOD_SEC", "1"), ("PYOCO_LOG_FORMAT", "text")],
    );
    let (polite, _) = served.submit_noting_pid("polite", 0.0);
    served.lab.cancel(&polite);
    served.lab.ended(&polite, "CANCELLED");
    for flow in ["spin", "sleep", "deaf"] {
        let (run, pid) = served.submit_noting_pid(flow, 3600.0);
        let before = Instant::now();
        served.lab.cancel(&run);
        let history = served.lab.ended(&run, "CANCELLED");
        // The grace period, the mercy after SIGTERM, which none of them needs, and the writes.
        assert!(before.elapsed() < Duration::from_secs(5), "{flow}: {:?}", before.elapsed());
        assert_eq!(history.last()["tasks"][flow], "CANCELLED");
        assert!(!is_running(pid), "{flow}: the process outlives its run");
    }
    assert!(served.worker.stderr().contains("ERR-PYOCO-0021"));
    let run = served.submit("fetch", json!({"n": 1}));
    served.lab.ended(&run, "COMPLETED");
}

#[test]
fn limits_fail_the_run_and_are_named_in_its_error() {
    let served = Served::start(&["--run-memory-limit", "256M", "--run-timeout-sec", "3"], &[]);
    let run = served.submit("hoard", json!({}));
    let history = served.lab.ended(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("--run-memory-limit"), "{error}");
    let (run, pid) = served.submit_noting_pid("spin", 0.0);
    let history = served.lab.ended(&run, "FAILED");
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
    let Served { lab, worker: first, folder } = served;
    first.signal(Signal::KILL);
    for pid in [pid, deaf_pid, template] {
        gone(pid);
    }
    // Or the run that nothing ends would come to the second worker too.
    lab.cancel(&deaf);
    let _second = worker(&lab, folder.path(), "w2", &["--concurrency", "2"]);
    let snapshot = lab.wait_status(&run, "COMPLETED");
    assert_eq!(snapshot["attempt"], 2);
    lab.wait_status(&deaf, "CANCELLED");
}

#[test]
fn a_worker_that_stops_waits_for_its_runs_and_leaves_no_process() {
    let served = Served::start(&["--concurrency", "2"], &[]);
    let (run, pid) = served.submit_noting_pid("sleep", 1.0);
    let template = below(served.worker.pid()).first().unwrap().0;
    let Served { lab, mut worker, folder: _folder } = served;
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(PATIENCE).code(), Some(0));
    assert_eq!(lab.snapshot(&run).unwrap()["status"], "COMPLETED");
    assert!(!is_running(pid) && !is_running(template));
}

#[test]
fn a_run_that_outlasts_the_drain_is_ended_and_given_back() {
    let served = Served::start(&["--drain-timeout-sec", "0.5"], &[]);
    let (run, pid) = served.submit_noting_pid("deaf", 0.0);
    let Served { lab, mut worker, folder: _folder } = served;
    let before = Instant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(PATIENCE).code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert!(!is_running(pid));
    assert_eq!(lab.queued(), 1);
    assert_eq!(lab.snapshot(&run).unwrap()["status"], "RUNNING");
}

#[test]
fn a_dead_template_is_replaced_and_the_record_says_so() {
    let served = Served::start(&[], &[]);
    let before = served.lab.wait_record("w1", "is ready", |r| r["python"]["state"] == "ready");
    kill(before["python"]["pid"].as_u64().unwrap().try_into().unwrap());
    served.lab.wait_record("w1", "tells of the death", |r| r["python"]["state"] == "died");
    let run = served.submit("fetch", json!({"n": 1}));
    served.lab.ended(&run, "COMPLETED");
    let after = served.lab.wait_record("w1", "is ready again", |r| r["python"]["starts"] == 2);
    assert_eq!(after["python"]["state"], "ready");
    assert_ne!(after["python"]["pid"], before["python"]["pid"]);
}

#[test]
fn a_resolver_that_cannot_be_loaded_ends_the_worker_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, text) in [("nothing_here:f", "nothing_here"), ("gone.py:f", "gone.py")] {
        let mut command = Binary::Worker.command();
        command.current_dir(&folder).arg("--python").arg(python::python_08());
        command.args(["--flow-resolver", flag]);
        let ended = process::run(&mut command, b"", PATIENCE);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        for part in ["ERR-PYOCO-0018", text, "- hint: ", "--flow-resolver"] {
            assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
        }
    }
}

#[test]
fn a_worker_without_python_executes_no_python() {
    let lab = Lab::start(&[]);
    let _worker = process_with(&lab, "w1", &["--python", "off"], &[]);
    let yaml = "flow: {graph: a}\ntasks: {a: {callable: 'os:getcwd'}}\n";
    let run = lab.submit_yaml("default", yaml);
    let history = lab.ended(&run, "FAILED");
    let error = history.last()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("flow_not_found: ") && error.contains("os:getcwd"), "{error}");
    assert!(lab.record("w1").unwrap()["python"].is_null());
}

#[test]
fn the_server_with_a_worker_takes_a_resolver_too() {
    let lab = Lab::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let resolver = write_flows(folder.path(), FLOWS);
    let port = crate::support::port::PortLease::take();
    let mut command = Binary::Server.command();
    command.args(["up", "--port", &port.port().to_string(), "--with-worker"]);
    command.args(["--worker-flow-resolver", &resolver]).envs(lab.env.iter().cloned());
    command.env("PYOCO_PYTHON", python::python_08());
    let _server = Running::start(&mut command);
    let run = lab.submit("default", "fetch", json!({"n": 7}));
    eventually(PATIENCE, "the run ends", || {
        (lab.snapshot(&run)?["status"] == "COMPLETED").then_some(())
    });
}
