//! The time limit of a task ends it, whatever it does, and the first failure ends a run.

use std::time::{Duration, Instant};

use pyoco_server::flow::{FlowEvent, Outcome};
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::measure::wait_gone;
use crate::support::python_flows::{PythonFlows, error};
use crate::support::wait::{PATIENCE, eventually};

/// From a task's limit to the end of the last process of its run.
const MOST: Duration = Duration::from_secs(3);
/// What a busy machine adds to the start of a run.
const START: Duration = Duration::from_secs(2);

const FLOWS: &str = r#"
import ctypes, re

def limited(seconds, policy="stop"):
    def decorate(function):
        wrapper = pyoco.task(function)
        wrapper.task.timeout_sec = seconds
        wrapper.task.fail_policy = policy
        return wrapper
    return decorate

@pyoco.task
def first(ctx): return "first"
@pyoco.task
def last(ctx): return "last"

@limited(1)
def sleeps(ctx): time.sleep(25)
@limited(1)
def spins(ctx):
    while True: pass
@limited(1)
def holds(ctx): ctypes.PyDLL(None).sleep(3600)
@limited(1)
def matches(ctx): re.match("(a+)+$", "a" * 60 + "b")
@limited(1)
def calls(ctx):
    child = subprocess.Popen(["sleep", "3600"])
    with open(ctx.params["pid"], "w") as file: print(child.pid, file=file)
    child.wait()
@limited(1)
def swallows(ctx):
    while True:
        try: time.sleep(3600)
        except BaseException: pass
def line(*wrappers):
    flow = pyoco.Flow(name="line")
    for wrapper in wrappers: flow >> wrapper
    return flow

@limited(1, "isolate")
def slow(ctx):
    time.sleep(3)
    return "too late"
@limited(1, "isolate")
def stuck(ctx): ctypes.PyDLL(None).sleep(3600)
@pyoco.task
def other(ctx):
    time.sleep(2)
    return "done"

# pyoco executes eight at a time, in any order.
turn, begun = threading.Lock(), []
def begins(number):
    def task(ctx):
        with turn:
            begun.append(number)
            open(os.path.join(ctx.params["begun"], str(number)), "w").close()
            if len(begun) == 8: raise ValueError("the first failure")
        time.sleep(3600)
    task.__name__ = f"task{number:02}"
    return pyoco.task(task)

@pyoco.task
def retries(ctx):
    with open(ctx.params["tries"], "a") as file: file.write("x")
    raise ValueError("again")
retries.task.retries = 30

def resolve_flow(name):
    if name == "isolated": return pyoco.Flow(name=name) >> [slow, other]
    if name == "isolated_stuck": return pyoco.Flow(name=name) >> [stuck, other]
    if name == "loop": return pyoco.Flow(name=name) >> first >> sleeps[2]
    if name == "loop_stuck": return pyoco.Flow(name=name) >> first >> holds[2]
    if name == "many": return pyoco.Flow(name=name) >> [*map(begins, range(21))]
    if name == "retries": return line(retries)
    middle = {w.task.name: w for w in (sleeps, spins, holds, matches, calls, swallows)}[name]
    return line(first, middle, last)
"#;

#[test]
fn a_task_ends_at_its_limit_whatever_it_does() {
    let flows = PythonFlows::with(FLOWS);
    flows.executor.warm_up().unwrap();
    let pid = flows.path("child");
    for name in ["sleeps", "spins", "holds", "matches", "calls", "swallows"] {
        let began = Instant::now();
        let run = flows.run_with(name, json!({"pid": pid}));
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(1) && took < Duration::from_secs(1) + MOST + START,
            "{name}: {took:?}"
        );
        let limit = format!("Task '{name}' exceeded timeout of 1s");
        assert!(error(&run).starts_with(&limit), "{name}: {}", error(&run));
        let record = run.record(name);
        assert_eq!(record.state, TaskStatus::Failed, "{name}");
        assert!(record.error.as_ref().unwrap().starts_with(&limit), "{name}: {record:?}");
        assert!(record.ended_at.is_some() && record.started_at.is_some(), "{name}: {record:?}");
        let first = run.record("first");
        assert_eq!((first.state, &first.output), (TaskStatus::Succeeded, &json!("first")), "{name}");
        assert!(!run.story().iter().any(|entry| entry.starts_with("last ")), "{name}: {:?}", run.story());
    }
    let child = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    wait_gone(child);
}

#[test]
fn what_holds_the_interpreter_is_known_to_have_begun() {
    let flows = PythonFlows::with(FLOWS);
    let mut run = flows.start("holds", json!({}));
    // Before anything of the task's own could be told.
    run.wait_for_state("holds", TaskStatus::Running);
    let first = run.record("first");
    assert_eq!((first.state, &first.output), (TaskStatus::Succeeded, &json!("first")));
    run.finish();
}

#[test]
fn an_isolated_task_is_left_behind_and_the_others_go_on() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("isolated");
    assert_eq!(run.outcome(), Outcome::Completed);
    let (slow, other) = (run.record("slow"), run.record("other"));
    assert_eq!((slow.state, &slow.output), (TaskStatus::Failed, &json!(null)));
    assert_eq!(slow.error.as_deref(), Some("Task exceeded timeout of 1s"));
    assert_eq!((other.state, &other.output), (TaskStatus::Succeeded, &json!("done")));
    // It holds the lock, so nothing goes on.
    let began = Instant::now();
    let run = flows.run("isolated_stuck");
    assert!(began.elapsed() < Duration::from_secs(1) + MOST + START, "{:?}", began.elapsed());
    assert!(error(&run).contains("did not let go of its process"), "{}", error(&run));
    assert_eq!(run.record("stuck").state, TaskStatus::Failed);
}

#[test]
fn a_limit_holds_in_loops_too() {
    let flows = PythonFlows::with(FLOWS);
    for (flow, task) in [("loop", "sleeps"), ("loop_stuck", "holds")] {
        let began = Instant::now();
        let run = flows.run(flow);
        assert!(began.elapsed() < Duration::from_secs(1) + MOST + START, "{flow}: {:?}", began.elapsed());
        assert!(error(&run).starts_with(&format!("Task '{task}' exceeded timeout of 1s")), "{}", error(&run));
        assert_eq!(run.record(task).state, TaskStatus::Failed, "{flow}");
    }
}

#[test]
fn the_first_failure_ends_a_run() {
    let flows = PythonFlows::with(FLOWS);
    flows.executor.warm_up().unwrap();
    let begun = flows.path("begun");
    std::fs::create_dir(&begun).unwrap();
    let began = Instant::now();
    let run = flows.run_with("many", json!({"begun": begun}));
    assert!(began.elapsed() < START + MOST, "{:?}", began.elapsed());
    assert_eq!(error(&run), "the first failure");
    assert_eq!(std::fs::read_dir(&begun).unwrap().count(), 8, "those that waited have not begun");
    let failed = |event: &&FlowEvent| {
        matches!(event, FlowEvent::Task { record, .. } if record.state == TaskStatus::Failed
            && record.error.as_deref() == Some("the first failure"))
    };
    assert!(run.seen.iter().any(|event| failed(&event)), "{:?}", run.story());
    let ended = |event: &&FlowEvent| {
        matches!(event, FlowEvent::Task { record, .. } if record.state == TaskStatus::Cancelled
            && record.error.as_deref() == Some("ended with its run, which had failed"))
    };
    assert_eq!(run.seen.iter().filter(ended).count(), 7);
}

#[test]
fn nothing_is_tried_again_after_a_cancel() {
    let flows = PythonFlows::with(FLOWS);
    let tries = flows.path("tries");
    let mut run = flows.start("retries", json!({"tries": tries}));
    let count = || std::fs::metadata(&tries).map_or(0, |file| file.len());
    eventually(PATIENCE, "it is tried again", || (count() >= 2).then_some(()));
    run.cancel.cancel();
    let at_cancel = count();
    assert_eq!(run.finish(), Outcome::Cancelled);
    assert!(count() <= at_cancel + 1, "{at_cancel} then {}", count());
}
