//! What the record of a run says of odd tasks and odd values, and that it never holds the run.

use std::time::{Duration, Instant};

use pyoco_server::flow::Outcome;
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::python_flows::{PythonFlows, error, started};

const FLOWS: &str = r#"
import collections, copy, dataclasses, pickle

@pyoco.task
def declares(ctx):
    from pyoco.core.models import RunStatus
    ctx.run_context.status = RunStatus.FAILED
flow_of(declares)

def named(name):
    def task(ctx): return repr(name)
    wrapper = pyoco.task(task)
    wrapper.task.name = name
    return wrapper
FLOWS["numbers"] = pyoco.Flow(name="numbers") >> named(5) >> named(None) >> named("plain")

@pyoco.task
def pickles(ctx):
    record = pickle.loads(pickle.dumps(ctx.run_context.task_records["pickles"]))
    copied = copy.deepcopy(ctx.run_context.task_records)["pickles"]
    states = pickle.loads(pickle.dumps(ctx.run_context.tasks))
    return [type(record).__name__, record.state.value, type(copied).__name__, states["pickles"].value]
flow_of(pickles)

class Blocks:
    def __repr__(self): time.sleep(3600)
@pyoco.task
def blocks(ctx): return [Blocks()]
flow_of(blocks)
FLOWS["many_blocks"] = pyoco.Flow(name="many_blocks")
for number in range(8):
    def task(ctx): return Blocks()
    task.__name__ = f"task{number}"
    FLOWS["many_blocks"] >> pyoco.task(task)

@pyoco.task
def large_set(ctx): return set(range(5_000_000))
flow_of(large_set)
@dataclasses.dataclass
class Large:
    numbers: list
@pyoco.task
def large(ctx): return Large(list(range(2_000_000)))
def passes(number):
    def task(ctx, value): return value
    task.__name__ = f"pass{number}"
    wrapper = pyoco.task(task)
    wrapper.task.inputs = {"value": "$node.large.output"}
    return wrapper
FLOWS["large"] = pyoco.Flow(name="large") >> large >> passes(1) >> passes(2) >> passes(3) >> passes(4)
@pyoco.task
def small(ctx): return [{1}, Large([1, 2]), collections.deque([3])]
flow_of(small)

@pyoco.task
async def awaits(ctx):
    import asyncio
    await asyncio.sleep(0.1)
    return "awaited"
flow_of(awaits)
@pyoco.task
async def awaits_badly(ctx): raise ValueError("while awaited")
flow_of(awaits_badly)

@pyoco.task
def late(ctx): raise ValueError("it was made late")
@pyoco.task
def makes(ctx):
    record = ctx.run_context.ensure_task_record("by hand")
    record.output = "kept"
    ctx.run_context.tasks["by hand"] = type(record.state).SUCCEEDED
    FLOWS["makes"].add_task(late.task)
flow_of(makes)
"#;

#[test]
fn a_task_may_declare_its_run_failed() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("declares");
    assert_eq!(error(&run), "a task has set the status of the run to FAILED");
}

#[test]
fn names_need_not_be_text() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("numbers");
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(started(&run).1, ["5", "None", "plain"]);
    assert_eq!((&run.record("5").output, &run.record("None").output), (&json!("5"), &json!("None")));
}

#[test]
fn records_can_be_pickled_and_copied() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("pickles");
    assert_eq!(run.record("pickles").output, json!(["TaskRecord", "RUNNING", "TaskRecord", "RUNNING"]));
}

#[test]
fn a_record_holds_its_run_for_a_moment_only() {
    let flows = PythonFlows::with(FLOWS);
    flows.executor.warm_up().unwrap();
    let run = |name| {
        let began = Instant::now();
        let run = flows.run(name);
        assert_eq!(run.outcome(), Outcome::Completed, "{name}");
        assert!(began.elapsed() < Duration::from_secs(8), "{name}: {:?}", began.elapsed());
        run
    };
    assert_eq!(run("blocks").record("blocks").output, json!("<list: its repr took too long>"));
    // Together they have a bound as well.
    let many = run("many_blocks");
    let words = ["<Blocks: its repr took too long>", "<Blocks: no time was left for its repr>"];
    for number in 0..8 {
        let output = &many.record(&format!("task{number}")).output;
        assert!(words.iter().any(|word| output == word), "{output}");
    }
    assert_eq!(run("large_set").record("large_set").output, json!("<set: too large to be kept>"));
    let large = run("large");
    assert_eq!(large.record("pass4").output, json!("<Large: too large to be kept>"));
    assert_eq!(large.record("pass4").inputs["value"], json!("<Large: too large to be kept>"));
    assert_eq!(run("small").record("small").output, json!("[{1}, Large(numbers=[1, 2]), deque([3])]"));
}

#[test]
fn a_task_may_be_a_coroutine() {
    let flows = PythonFlows::with(FLOWS);
    assert_eq!(flows.run("awaits").record("awaits").output, json!("awaited"));
    let run = flows.run("awaits_badly");
    assert_eq!(
        (error(&run).as_str(), run.record("awaits_badly").state),
        ("while awaited", TaskStatus::Failed)
    );
}

#[test]
fn tasks_that_a_run_makes_are_recorded() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("makes");
    assert_eq!(error(&run), "it was made late");
    let late = run.record("late");
    assert_eq!((late.state, late.error.as_deref()), (TaskStatus::Failed, Some("it was made late")));
    assert_eq!(run.record("by hand").output, json!("kept"));
}
