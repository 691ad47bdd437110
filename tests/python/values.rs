//! What a run tells: tasks, records, values, output, and the flows of documents.

use pyoco_server::flow::{Executor, Outcome};
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::flow::{job, start};
use crate::support::python::{V06, V08};
use crate::support::python_flows::{PythonFlows, error, plain, started};

#[test]
fn a_flow_of_the_resolver_runs_and_tells_what_pyoco_records() {
    let flows = PythonFlows::with(
        r#"
@pyoco.task
def fetch(ctx): return {"n": ctx.params["n"]}

@pyoco.task
def double(ctx, fetch): return fetch["n"] * 2

flow_of(fetch, double, name="canonical")
"#,
    );
    let run = flows.run_with("fetch", json!({"n": 21}));
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(started(&run), ("canonical", vec!["fetch", "double"]));
    let record = run.record("double");
    assert_eq!(record.state, TaskStatus::Succeeded);
    assert_eq!(record.output, json!(42));
    assert_eq!(record.inputs, json!({"fetch": {"n": 21}}));
    assert!(record.started_at.unwrap() >= run.record("fetch").ended_at.unwrap());
    assert!(record.duration_ms.unwrap() >= 0.0 && record.error.is_none());
}

#[test]
fn values_that_are_not_json_are_shown_as_their_repr() {
    let flows = PythonFlows::with(
        r#"
class Frame:
    def __repr__(self): return "Frame(2 rows)"

class Odd:
    def __repr__(self): raise ValueError("no")

@pyoco.task
def frame(ctx): return {"nested": Frame()}
@pyoco.task
def odd(ctx): return Odd()
@pyoco.task
def nan(ctx): return [float("nan"), float("inf"), (1, "二", None)]
@pyoco.task
def surrogate(ctx): return "\ud800"
@pyoco.task
def huge(ctx): return "x" * 10_000_000
@pyoco.task
def cyclic(ctx):
    value = []
    value.append(value)
    return value

flow_of(frame, odd, nan, surrogate, huge, cyclic)
"#,
    );
    let run = flows.run("frame");
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.record("frame").output, json!("{'nested': Frame(2 rows)}"));
    assert_eq!(run.record("odd").output, json!("<Odd without a repr>"));
    assert_eq!(run.record("nan").output, json!([null, null, [1, "二", null]]));
    assert_eq!(run.record("surrogate").output, json!("\u{fffd}"));
    assert_eq!(run.record("huge").output, json!("<str: too large to be kept>"));
    assert!(run.record("cyclic").output.is_string());
}

#[test]
fn what_each_task_prints_is_kept_apart_also_of_those_that_run_at_once() {
    let flows = PythonFlows::with(
        r#"
meet = threading.Barrier(2)

def speak(word):
    meet.wait(10)
    for _ in range(200):
        print(word)
        print(word.upper(), file=sys.stderr)
    meet.wait(10)

@pyoco.task
def begin(ctx):
    print("テキスト", end="")
    sys.stdout.buffer.write(b" \xff raw\n")
    sys.stdout.flush()
    os.write(1, b"by descriptor\n")
    subprocess.run(["echo", "by a child"], check=True)
@pyoco.task
def left(ctx): speak("left")
@pyoco.task
def right(ctx): speak("right")

flow = pyoco.Flow(name="begin")
flow >> begin >> [left, right]
FLOWS["begin"] = flow
"#,
    );
    let run = flows.run("begin");
    assert_eq!(run.outcome(), Outcome::Completed, "{:#?}", run.seen);
    let logs = |task: &str| run.record(task).logs.clone().unwrap();
    assert_eq!(logs("begin").stdout, "テキスト \u{fffd} raw\nby descriptor\nby a child\n");
    assert_eq!(logs("left").stdout, "left\n".repeat(200));
    assert_eq!(logs("right").stdout, "right\n".repeat(200));
    assert_eq!(logs("left").stderr, "LEFT\n".repeat(200));
    assert_eq!(logs("right").dropped_bytes, 0);
}

#[test]
fn a_task_that_runs_on_shows_what_it_has_printed_so_far() {
    let flows = PythonFlows::with(
        r#"
@pyoco.task
def talk(ctx):
    print("half way")
    while not os.path.exists(ctx.params["go"]): time.sleep(0.01)
flow_of(talk)
"#,
    );
    let go = flows.path("go");
    let mut run = flows.start("talk", json!({"go": go}));
    run.wait_for(|event| {
        let shown = |record: &pyoco_server::model::run::TaskRecord| {
            record.logs.as_ref().is_some_and(|logs| logs.stdout == "half way\n")
        };
        matches!(event, pyoco_server::flow::FlowEvent::Task { record, .. }
            if record.state == TaskStatus::Running && shown(record))
    });
    std::fs::write(go, "").unwrap();
    assert_eq!(run.finish(), Outcome::Completed);
}

#[test]
fn a_million_lines_and_a_hundred_megabytes_are_drained_and_their_end_is_kept() {
    let flows = PythonFlows::with(
        r#"
@pyoco.task
def lines(ctx):
    for number in range(1_000_000): print(number)
@pyoco.task
def megabytes(ctx):
    block = "y" * 1_000_000
    for _ in range(100): print(block)
    print("the end")
flow_of(lines, megabytes)
"#,
    );
    let run = flows.run("lines");
    assert_eq!(run.outcome(), Outcome::Completed);
    let logs = run.record("lines").logs.clone().unwrap();
    assert!(logs.stdout.ends_with("\n999998\n999999\n"), "{logs:?}");
    assert_eq!(logs.dropped_bytes as usize + logs.stdout.len(), 6_888_890);
    let logs = run.record("megabytes").logs.clone().unwrap();
    assert!(logs.stdout.ends_with("yyy\nthe end\n"));
    assert!(logs.dropped_bytes > 99_000_000 && logs.stdout.len() <= 4096);
}

#[test]
fn a_task_that_changes_faster_than_anybody_reads_is_told_in_steps() {
    let flows = PythonFlows::with("");
    std::fs::write(
        flows.path("work.py"),
        "def tick(ctx): return ctx.loop.index\ndef last(ctx): return 'done'\n",
    )
    .unwrap();
    let yaml = "version: 1\nflow:\n  graph: |\n    repeat(count=20000){ tick } >> last\n\
        tasks:\n  tick: {callable: 'work:tick'}\n  last: {callable: 'work:last'}\n";
    let run = flows.run_yaml(yaml, json!({}));
    assert_eq!(run.outcome(), Outcome::Completed, "{:?}", run.seen);
    assert_eq!(run.record("tick").output, json!(19_999));
    assert!(run.seen.len() < 4_000, "{} events", run.seen.len());
}

const PARALLEL: &str = "version: 1
flow:
  graph: |
    GRAPH
  defaults: {who: Bob, n: 1}
tasks:
  greet: {callable: 'work:greet', inputs: {who: $ctx.params.who}}
  shout: {callable: 'work:shout', inputs: {text: $node.greet.output}}
";
const WORK: &str = "
import pyoco
def greet(who): return f'hello {who}'
@pyoco.task
def shout(text): return text.upper()
";

#[test]
fn documents_run_with_both_versions_of_pyoco() {
    for interpreter in [V08.path(), V06.path()] {
        let flows = PythonFlows::with_settings("", |settings| {
            settings.interpreter = interpreter.display().to_string();
        });
        std::fs::write(flows.path("work.py"), WORK).unwrap();
        let yaml = PARALLEL.replace("GRAPH", "greet >> shout");
        let run = flows.run_yaml(&yaml, json!({"who": "Ann"}));
        assert_eq!(run.outcome(), Outcome::Completed, "{interpreter:?}: {:?}", run.seen);
        assert_eq!(started(&run), ("main", vec!["greet", "shout"]));
        assert_eq!(run.record("shout").output, json!("HELLO ANN"));
        // What the submit leaves open comes from the document.
        let run = flows.run_yaml(&yaml, json!({}));
        assert_eq!(run.record("greet").output, json!("hello Bob"));
    }
}

#[test]
fn each_version_has_its_own_graphs() {
    let old = PythonFlows::with_settings("", |settings| {
        settings.interpreter = V06.path().display().to_string();
    });
    std::fs::write(old.path("work.py"), WORK).unwrap();
    let run = old.run_yaml(&PARALLEL.replace("GRAPH", "flow >> greet >> shout"), json!({}));
    assert_eq!(run.outcome(), Outcome::Completed, "{:?}", run.seen);

    let new = PythonFlows::with("");
    std::fs::write(new.path("work.py"), "def one(ctx): return ctx.loop.item\n").unwrap();
    let yaml = "version: 1\nflow:\n  graph: 'foreach(over=items, item=it){ one }'\n\
        \x20 defaults: {items: [1, 2, 3]}\ntasks:\n  one: {callable: 'work:one'}\n";
    let run = new.run_yaml(yaml, json!({}));
    assert_eq!(run.outcome(), Outcome::Completed, "{:?}", run.seen);
    assert_eq!(run.record("one").output, json!(3));
}

#[test]
fn a_document_may_use_the_tasks_of_a_plug_in() {
    let flows = PythonFlows::with("");
    // What an installed package would leave beside it.
    let info = flows.path("demo-1.0.dist-info");
    std::fs::create_dir(&info).unwrap();
    std::fs::write(info.join("METADATA"), "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n").unwrap();
    std::fs::write(info.join("entry_points.txt"), "[pyoco.tasks]\ndemo = demo_plugin:register\n").unwrap();
    std::fs::write(
        flows.path("demo_plugin.py"),
        "def twice(n): return n * 2\n\
         def register(registry): registry.register_callable(twice, name='demo/twice')\n",
    )
    .unwrap();
    let yaml = "version: 1\nflow:\n  graph: 'double'\n  defaults: {n: 4}\n\
        tasks:\n  double: {use: 'demo/twice'}\n";
    let run = flows.run_yaml(yaml, json!({}));
    assert_eq!(run.outcome(), Outcome::Completed, "{:?}", run.seen);
    assert_eq!(run.record("double").output, json!(8));
}

#[test]
fn a_document_that_cannot_be_built_says_why() {
    let flows = PythonFlows::with("");
    let yaml = PARALLEL.replace("GRAPH", "greet >> shout");
    let run = flows.run_yaml(&yaml, json!({}));
    let text = error(&run);
    assert!(text.contains("greet") && text.contains("No module named 'work'"), "{text}");

    let old = PythonFlows::with_settings("", |settings| {
        settings.interpreter = V06.path().display().to_string();
    });
    let text = error(&old.run_yaml("flow: {graph: a}\ntasks: {a: {use: 'b'}}\n", json!({})));
    assert!(text.contains("'use'"), "{text}");
}

#[test]
fn a_document_needs_no_resolver_and_a_name_does() {
    let executor = pyoco_server::flow::PythonExecutor::new(plain(V08.path()));
    assert!(!executor.accepts(&job("main", None, json!({}))));
    let yaml = "flow: {graph: a}\ntasks: {a: {callable: 'os:getcwd'}}\n";
    assert!(executor.accepts(&job("main", Some(yaml), json!({}))));
    let mut run = start(&executor, job("main", Some(yaml), json!({})));
    assert_eq!(run.finish(), Outcome::Completed);
    let here = std::env::current_dir().unwrap();
    assert_eq!(run.record("a").output, json!(here));
}

#[test]
fn flows_see_the_variables_that_they_may_and_no_others() {
    let flows = PythonFlows::with_settings(
        r#"
@pyoco.task
def look(ctx): return sorted(os.environ)
flow_of(look)
"#,
        |settings| {
            settings.environment = vec![("PATH".into(), "/usr/bin:/bin".into())];
        },
    );
    let run = flows.run("look");
    let names = run.record("look").output.clone();
    // Python itself adds a locale when it finds none.
    let names: Vec<&str> = names.as_array().unwrap().iter().filter_map(|n| n.as_str()).collect();
    assert!(names.contains(&"PATH"), "{names:?}");
    assert!(names.iter().all(|name| ["PATH", "LC_CTYPE"].contains(name)), "{names:?}");
}
