//! How a flow ends early: failure, panic, cancel, and force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use pyoco_server::flow::{
    CancelToken, Executor, FlowEvent, Lease, NativeExecutor, Outcome, Registry, TaskError,
};
use pyoco_server::model::clock;
use pyoco_server::model::run::TaskStatus;
use serde_json::{Value, json};

use crate::support::flow::{DEADLINE, job, run_with, run_yaml, start, turn, wait_for_no_flow_threads};

fn failed(error: &str) -> Outcome {
    Outcome::Failed { error: error.to_owned() }
}

#[test]
fn after_a_failure_nothing_starts_and_what_runs_is_told() {
    let _turn = turn();
    let run = run_yaml(
        "
flow:
  graph: |
    (bad & long) >> after
    after >> last
tasks:
  bad: {use: builtin/fail, inputs: {message: broken}}
  long: {use: builtin/sleep, inputs: {seconds: 3600}}
  after: {use: builtin/echo}
  last: {use: builtin/echo}
",
    );
    assert_eq!(run.outcome(), failed("broken"));
    assert_eq!(run.record("bad").error.as_deref(), Some("broken"));
    assert_eq!(run.record("bad").state, TaskStatus::Failed);
    assert_eq!(run.record("long").state, TaskStatus::Cancelled);
    assert!(run.record("long").ended_at.is_some());
    for task in ["after", "last"] {
        assert_eq!(run.record(task).state, TaskStatus::Cancelled);
        assert_eq!(run.record(task).started_at, None);
    }
}

#[test]
fn the_first_failure_is_the_flows() {
    let _turn = turn();
    let mut registry = Registry::new();
    registry.task("first", |_| Err(TaskError::new("first"))).task("second", |ctx| {
        ctx.cancel.sleep(DEADLINE);
        Err(TaskError::new("second"))
    });
    let run = run_with(registry, "flow: {graph: (second & first)}");
    assert_eq!(run.outcome(), failed("first"));
    assert_eq!(run.record("second").state, TaskStatus::Failed);
    assert_eq!(run.record("second").error.as_deref(), Some("second"));
}

#[test]
fn a_task_that_succeeds_although_told_to_end_has_succeeded() {
    let _turn = turn();
    let mut registry = Registry::with_builtins();
    registry.task("finish", |ctx| {
        assert!(ctx.cancel.sleep(DEADLINE));
        Ok(json!("done"))
    });
    let run = run_with(
        registry,
        "flow: {graph: '(x: finish & y: broken) >> z: finish'}\ntasks: {broken: {use: builtin/fail}, finish: {use: finish}}",
    );
    assert_eq!(run.outcome(), failed("builtin/fail was called"));
    assert_eq!(run.record("x").output, json!("done"));
    assert_eq!(run.record("z").state, TaskStatus::Cancelled);
}

#[test]
fn a_panic_is_a_failure_with_its_text() {
    let _turn = turn();
    for graph in ["boom", "(boom & calm)"] {
        let mut registry = Registry::new();
        registry.task("boom", |ctx| panic!("lost my {}", ctx.node)).task("calm", |_| Ok(json!(1)));
        let run = run_with(registry, &format!("flow: {{graph: {graph}}}"));
        assert_eq!(run.outcome(), failed("task panicked: lost my boom"));
        assert_eq!(run.record("boom").state, TaskStatus::Failed);
    }
}

#[test]
fn a_cancel_reaches_what_runs_and_what_waits() {
    let _turn = turn();
    for graph in ["long >> after", "(long & other) >> after"] {
        let yaml = format!(
            "
flow: {{graph: {graph}}}
tasks:
  long: {{use: builtin/sleep, inputs: {{seconds: 3600}}}}
  other: {{use: builtin/sleep, inputs: {{seconds: 3600}}}}
  after: {{use: builtin/echo}}
"
        );
        let executor = NativeExecutor::new(Registry::with_builtins());
        let mut run = start(&executor, job("main", Some(&yaml), json!({})));
        run.wait_for_state("long", TaskStatus::Running);
        let before = Instant::now();
        run.cancel.cancel();
        assert_eq!(run.finish(), Outcome::Cancelled);
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_eq!(run.record("long").state, TaskStatus::Cancelled);
        assert_eq!(run.record("after").state, TaskStatus::Cancelled);
        assert_eq!(run.record("after").started_at, None);
    }
}

#[test]
fn a_cancel_before_the_start_runs_nothing() {
    let _turn = turn();
    let executor = NativeExecutor::new(Registry::with_builtins());
    let cancel = CancelToken::new();
    cancel.cancel();
    let (sender, events) = bounded(16);
    let yaml = "flow: {graph: a >> b}\ntasks: {a: {use: builtin/echo}, b: {use: builtin/echo}}";
    let _execution = executor.start(job("main", Some(yaml), json!({})), cancel, sender).unwrap();
    let mut states = Vec::new();
    loop {
        match events.recv_timeout(DEADLINE).unwrap() {
            FlowEvent::Wheels(_) => panic!("a native flow has none"),
            FlowEvent::Started { tasks, .. } => assert_eq!(tasks, ["a", "b"]),
            FlowEvent::Task { record, .. } => states.push(record.state),
            FlowEvent::Finished(outcome) => {
                assert_eq!(outcome, Outcome::Cancelled);
                break;
            }
        }
    }
    assert_eq!(states, [TaskStatus::Cancelled; 2]);
}

#[test]
fn a_cancel_that_the_last_task_ignores_still_counts() {
    let _turn = turn();
    for graph in ["hold", "(hold & quick)"] {
        let (go, gate) = bounded::<()>(1);
        let mut registry = Registry::with_builtins();
        registry
            .task("hold", move |_| Ok(gate.recv_timeout(DEADLINE).map(|()| json!("held"))?))
            .task("quick", |_| Ok(Value::Null));
        let yaml = format!("flow: {{graph: {graph}}}");
        let mut run = start(&NativeExecutor::new(registry), job("main", Some(&yaml), json!({})));
        run.wait_for_state("hold", TaskStatus::Running);
        run.cancel.cancel();
        go.send(()).unwrap();
        assert_eq!(run.finish(), Outcome::Cancelled);
        assert_eq!(run.record("hold").state, TaskStatus::Succeeded);
    }
}

#[test]
fn a_sleep_can_be_told_to_ignore_its_cancel() {
    let _turn = turn();
    let yaml = "
flow: {graph: s >> after}
tasks:
  s: {use: builtin/sleep, inputs: {seconds: 0.3, ignore_cancel: true}}
  after: {use: builtin/echo}
";
    let executor = NativeExecutor::new(Registry::with_builtins());
    let mut run = start(&executor, job("main", Some(yaml), json!({})));
    run.wait_for_state("s", TaskStatus::Running);
    run.cancel.cancel();
    assert_eq!(run.finish(), Outcome::Cancelled);
    assert_eq!(run.story(), ["s Running", "after Cancelled", "s Succeeded"]);
    assert!(run.record("s").duration_ms.unwrap() >= 300.0);
}

/// A task that nothing but `release` ends, and that says when it has ended.
fn stubborn(registry: &mut Registry) -> (crossbeam_channel::Sender<()>, Arc<AtomicBool>) {
    let (release, gate) = bounded::<()>(0);
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    registry.task("stubborn", move |_| {
        let _ = gate.recv_timeout(DEADLINE);
        flag.store(true, Ordering::SeqCst);
        Ok(Value::Null)
    });
    (release, ended)
}

#[test]
fn force_does_not_wait_for_a_task_that_ignores_its_cancel() {
    let _turn = turn();
    for graph in ["stubborn >> after", "(stubborn & other) >> after"] {
        let mut registry = Registry::with_builtins();
        let (release, ended) = stubborn(&mut registry);
        let started = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&started);
        registry.task("after", move |_| {
            flag.store(true, Ordering::SeqCst);
            Ok(Value::Null)
        });
        registry.task("other", |ctx| {
            ctx.cancel.sleep(DEADLINE);
            Err(TaskError::cancelled())
        });
        let yaml = format!("flow: {{graph: {graph}}}");
        let mut run = start(&NativeExecutor::new(registry), job("main", Some(&yaml), json!({})));
        run.wait_for_state("stubborn", TaskStatus::Running);
        run.cancel.cancel();
        run.wait_for_state("after", TaskStatus::Cancelled);

        let moment = Instant::now();
        run.execution.kill(Duration::ZERO);
        drop(run);
        assert!(moment.elapsed() < Duration::from_secs(2), "{:?}", moment.elapsed());
        assert!(!ended.load(Ordering::SeqCst), "the task was waited for");

        // Once the task returns by itself, its threads end and nothing else begins.
        drop(release);
        wait_for_no_flow_threads();
        assert!(ended.load(Ordering::SeqCst) && !started.load(Ordering::SeqCst));
    }
}

#[test]
fn an_execution_that_is_dropped_ends_even_when_nobody_reads() {
    let _turn = turn();
    let executor = NativeExecutor::new(Registry::with_builtins());
    let yaml = "flow: {graph: a >> b}\ntasks: {a: {use: builtin/echo}, b: {use: builtin/echo}}";
    // No room for the first event, and the receiver stays alive.
    let (sender, _events) = bounded(0);
    let cancel = CancelToken::new();
    let job = job("main", Some(yaml), json!({}));
    drop(executor.start(job, cancel.clone(), sender).unwrap());
    wait_for_no_flow_threads();
    assert!(cancel.is_cancelled());
}

const TWO: &str = "
flow: {graph: first >> second}
tasks: {first: {use: first}, second: {use: builtin/echo}}
";

/// A run of two tasks whose lease has lapsed, and what lets its first task end.
fn lapsed() -> (crate::support::flow::Run, Lease, crossbeam_channel::Sender<()>) {
    let (let_go, wait) = bounded(1);
    let mut registry = Registry::with_builtins();
    registry.task("first", move |_| Ok(json!(wait.recv_timeout(DEADLINE).is_ok())));
    let mut run = start(&NativeExecutor::new(registry), job("main", Some(TWO), json!({})));
    run.wait_for_state("first", TaskStatus::Running);
    let lease = Lease::new(Duration::ZERO);
    run.execution.heed(&lease);
    let_go.send(()).unwrap();
    run.wait_for_state("first", TaskStatus::Succeeded);
    // Nothing tells that something does not begin.
    std::thread::sleep(Duration::from_millis(200));
    (run, lease, let_go)
}

#[test]
fn after_a_pause_of_the_process_no_task_begins_before_the_lease_is_renewed() {
    let _turn = turn();
    let (mut run, lease, _let_go) = lapsed();
    assert!(!run.story().iter().any(|event| event.starts_with("second")));
    let renewed = clock::now();
    lease.extend(clock::since_boot() + DEADLINE);
    assert_eq!(run.finish(), Outcome::Completed);
    assert!(run.record("second").started_at.unwrap() >= renewed);
}

#[test]
fn a_run_that_waits_for_its_lease_can_be_cancelled_and_killed() {
    let _turn = turn();
    let (mut run, _lease, _let_go) = lapsed();
    run.cancel.cancel();
    assert_eq!(run.finish(), Outcome::Cancelled);
    assert_eq!(run.record("second").started_at, None);
    let (mut run, _lease, _let_go) = lapsed();
    run.execution.kill(Duration::ZERO);
    wait_for_no_flow_threads();
}
