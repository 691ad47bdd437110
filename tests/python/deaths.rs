//! Signals to the template and to shims: each costs its own run at most, and leaves no process.

use std::path::Path;
use std::time::{Duration, Instant};

use pyoco_server::flow::Outcome;
use rustix::process::Signal;
use serde_json::json;

use crate::support::flow::Run;
use crate::support::measure::{is_running, parent_of, pid_in, signal, wait_gone};
use crate::support::python_flows::{PythonFlows, error};
use crate::support::wait::{PATIENCE, eventually};

const FLOWS: &str = r#"
@pyoco.task
def fine(ctx): return os.getpid()
flow_of(fine)

@pyoco.task
def sleep(ctx):
    escaped = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    with open(ctx.params["pids"], "w") as file: print(os.getpid(), escaped.pid, file=file)
    time.sleep(3600)
flow_of(sleep)

@pyoco.task
def spin(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    while True: pass
flow_of(spin)
"#;

fn pids_in(path: &Path) -> Vec<u32> {
    eventually(PATIENCE, "the flow writes its pids", || {
        let text = std::fs::read_to_string(path).ok()?;
        let pids = text.strip_suffix('\n')?.split(' ');
        Some(pids.map(|pid| pid.parse().unwrap()).collect())
    })
}

/// A run that sleeps, the pids that it has told, and its shim's.
fn sleeping(flows: &PythonFlows) -> (Run, Vec<u32>, u32) {
    let file = flows.path("pids");
    let run = flows.start("sleep", json!({"pids": file}));
    let pids = pids_in(&file);
    let shim = parent_of(pids[0]);
    (run, pids, shim)
}

#[test]
fn a_run_that_the_template_has_not_started_when_it_dies_goes_to_the_next_one() {
    let flows = PythonFlows::with(FLOWS);
    flows.executor.warm_up().unwrap();
    for _ in 0..5 {
        let template = flows.template_pid();
        signal(template, Signal::STOP);
        let mut runs: Vec<Run> = (0..5).map(|_| flows.start("fine", json!({}))).collect();
        std::thread::sleep(Duration::from_millis(20));
        signal(template, Signal::KILL);
        for run in &mut runs {
            assert_eq!(run.finish(), Outcome::Completed);
        }
    }
    assert_eq!(flows.status()["starts"], 6);
}

#[test]
fn a_template_that_hangs_is_replaced() {
    let flows = PythonFlows::with_settings(FLOWS, |settings| {
        settings.start_deadline = Duration::from_secs(8);
    });
    flows.executor.warm_up().unwrap();
    let template = flows.template_pid();
    signal(template, Signal::STOP);
    let mut killed = flows.start("fine", json!({}));
    std::thread::sleep(Duration::from_millis(50));
    let before = Instant::now();
    killed.execution.kill(Duration::ZERO);
    assert!(before.elapsed() < Duration::from_secs(1), "a kill takes {:?}", before.elapsed());
    let run = flows.run("fine");
    assert_eq!(run.outcome(), Outcome::Completed);
    assert!(!is_running(template));
}

#[test]
fn a_template_whose_sockets_are_held_by_its_resolver_is_seen_to_die() {
    let flows = PythonFlows::with(&format!(
        "helper = os.fork()\nif helper == 0:\n    time.sleep(3600)\n    os._exit(0)\n{FLOWS}
@pyoco.task
def tell(ctx): return helper
flow_of(tell)
"
    ));
    let run = flows.run("tell");
    let helper = run.record("tell").output.as_u64().unwrap().try_into().unwrap();
    assert!(is_running(helper));
    signal(flows.template_pid(), Signal::KILL);
    eventually(PATIENCE, "the death is seen", || (flows.status()["state"] == "died").then_some(()));
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    signal(helper, Signal::KILL);
}

#[test]
fn the_death_of_a_shim_ends_its_run_and_nothing_else() {
    let flows = PythonFlows::with(&format!(
        "helper = subprocess.Popen(['sleep', '3600']).pid\n{FLOWS}
@pyoco.task
def tell(ctx): return helper
flow_of(tell)
"
    ));
    let helper = flows.run("tell").record("tell").output.as_u64().unwrap().try_into().unwrap();
    let (mut run, pids, shim) = sleeping(&flows);
    signal(shim, Signal::KILL);
    run.finish();
    assert!(error(&run).contains("supervisor"), "{}", error(&run));
    pids.iter().for_each(|&pid| wait_gone(pid));
    assert!(is_running(helper), "what the resolver has started is not the run's");
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    assert_eq!(flows.status()["starts"], 1);
    drop(flows);
    wait_gone(helper);
}

#[test]
fn a_run_whose_template_and_shim_are_both_killed_ends() {
    let flows = PythonFlows::with(FLOWS);
    let file = flows.path("pid");
    let mut run = flows.start("spin", json!({"pid": file}));
    let pid = pid_in(&file);
    let shim = parent_of(pid);
    signal(flows.template_pid(), Signal::KILL);
    signal(shim, Signal::KILL);
    run.finish();
    assert!(!is_running(pid));
}

#[test]
fn a_shim_that_does_not_answer_is_killed_with_its_run() {
    let flows = PythonFlows::with(FLOWS);
    let (mut run, pids, shim) = sleeping(&flows);
    signal(shim, Signal::STOP);
    run.execution.kill(Duration::ZERO);
    drop(run);
    pids.iter().for_each(|&pid| wait_gone(pid));
    assert!(!is_running(shim));
}

#[test]
fn runs_that_wait_for_the_same_start_share_its_failure() {
    let flows = PythonFlows::with_settings("time.sleep(3600)\n", |settings| {
        settings.start_deadline = Duration::from_secs(2);
    });
    let before = Instant::now();
    let mut runs: Vec<Run> = (0..6).map(|_| flows.start("x", json!({}))).collect();
    runs.iter_mut().for_each(|run| drop(run.finish()));
    assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
}
