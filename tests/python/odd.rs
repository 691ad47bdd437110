//! Flows that do what few do: odd values, odd names, processes and loops of their own.

use pyoco_server::flow::Outcome;
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::python_flows::{PythonFlows, error};

#[test]
fn values_that_break_whoever_looks_at_them_cost_their_own_record_at_most() {
    let flows = PythonFlows::with(
        r#"
class Broken(dict):
    def keys(self): raise ValueError("keys")
    def __len__(self): raise ValueError("len")
class Text(str):
    def __len__(self): raise ValueError("len")
class Exit:
    def __repr__(self): raise SystemExit(3)
class Failure(Exception):
    def __str__(self): raise ValueError("str")

@pyoco.task
def number(ctx): return [10 ** 400, -10 ** 4000, 2 ** 63, 2 ** 64]
@pyoco.task
def deep(ctx):
    value = "bottom"
    for _ in range(500): value = [value]
    return value
@pyoco.task
def broken(ctx): return Broken(a=1)
@pyoco.task
def text(ctx): return Text("x")
@pyoco.task
def exits(ctx): return Exit()
@pyoco.task
def moving(ctx):
    value = {}
    def move():
        n = 0
        while True:
            value[n % 5000] = n
            value.pop((n * 7) % 5000, None)
            n += 1
    threading.Thread(target=move, daemon=True).start()
    time.sleep(0.05)
    return value
@pyoco.task
def last(ctx): return "said"
flow_of(number, deep, broken, text, exits, moving, last)

def resolve_flow(name):
    if name == "fails": raise Failure()
    return FLOWS[name]
"#,
    );
    let run = flows.run("number");
    assert_eq!(run.outcome(), Outcome::Completed);
    for task in ["number", "deep", "broken", "text", "exits", "moving"] {
        assert_eq!(run.record(task).state, TaskStatus::Succeeded, "{task}");
    }
    assert_eq!(run.record("last").output, json!("said"));
    let text = error(&flows.run("fails"));
    assert!(text.contains("Failure"), "{text}");
}

#[test]
fn flows_may_use_processes_and_loops_and_loggers_as_elsewhere() {
    let flows = PythonFlows::with(
        r#"
import asyncio, logging, multiprocessing, concurrent.futures
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
early = sys.stdout
print("at import")

def square(n): return n * n

@pyoco.task
def pools(ctx):
    found = []
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool: found.append(pool.map(square, range(4)))
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            found.append(list(pool.map(square, range(4))))
    return found

@pyoco.task
def loop(ctx):
    async def work():
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate(b"through a pipe"))[0].decode()
    return asyncio.run(work())

@pyoco.task
def speak(ctx):
    sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    logging.info("logged")
    early.write("kept\n")
    for percent in range(3):
        sys.stderr.write(f"\r{percent} %")
        sys.stderr.flush()
    return [sys.stdout.name, sys.stdin.read()]

@pyoco.task
def unended(ctx): print("no newline", end="")
@pyoco.task
def next_one(ctx): print("mine")
flow_of(pools, loop, speak, unended, next_one)
"#,
    );
    let run = flows.run("pools");
    assert_eq!(run.outcome(), Outcome::Completed, "{:#?}", run.seen);
    assert_eq!(run.record("pools").output, json!(vec![[0, 1, 4, 9]; 4]));
    assert_eq!(run.record("loop").output, json!("through a pipe"));
    assert_eq!(run.record("speak").output, json!(["<stdout>", ""]));
    let logs = |task: &str| run.record(task).logs.clone().unwrap();
    assert_eq!(logs("speak").stdout, "logged\nkept\n");
    assert_eq!(logs("speak").stderr, "\r0 %\r1 %\r2 %");
    assert_eq!(logs("unended").stdout, "no newline");
    assert_eq!(logs("next_one").stdout, "mine\n");
}

#[test]
fn names_and_parameters_may_hold_anything_and_be_large() {
    let flows = PythonFlows::with(
        r#"
def resolve_flow(name):
    flow = pyoco.Flow(name="nul\0 new\nline 流れ")
    for number in range(3000):
        task = pyoco.task(lambda ctx: len(ctx.params["text"]))
        task.task.name = f"t\0\n\"{number}\" 仕事"
        flow.add_task(task.task)
    return flow
"#,
    );
    let run = flows.run_with("any", json!({"text": "x".repeat(900_000)}));
    assert_eq!(run.outcome(), Outcome::Completed, "{:?}", run.seen.last());
    assert_eq!(run.record("t\0\n\"2999\" 仕事").output, json!(900_000));
}
