//! Which task runs when, on how many threads, and what its events say.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use pyoco_server::flow::{Executor, Flow, FlowEvent, NativeExecutor, Outcome, Registry};
use pyoco_server::model::limits::MAX_PARALLEL_TASKS;
use pyoco_server::model::run::TaskStatus;
use serde_json::{Value, json};

use crate::support::flow::{flow_threads, job, run_with, run_yaml, start, turn, wait_for_no_flow_threads};

#[test]
fn a_sequence_runs_in_order_and_its_records_are_whole() {
    let _turn = turn();
    let before = pyoco_server::model::clock::now();
    let run = run_yaml(
        "
flow: {graph: first >> second, defaults: {who: world}}
tasks:
  first: {use: builtin/echo, inputs: {hello: $ctx.params.who}}
  second: {use: builtin/echo, inputs: {heard: $node.first.output.hello}}
",
    );
    assert_eq!(run.outcome(), Outcome::Completed);
    match &run.seen[0] {
        FlowEvent::Started { flow_name, tasks } => {
            assert_eq!((flow_name.as_str(), tasks.join(",")), ("main", "first,second".to_owned()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(run.story(), ["first Running", "first Succeeded", "second Running", "second Succeeded"]);
    let FlowEvent::Task { record: running, .. } = &run.seen[1] else { panic!("not a task") };
    assert_eq!(running.inputs, json!({"hello": "world"}));
    assert!(running.started_at.is_some() && running.ended_at.is_none());

    let second = run.record("second");
    assert_eq!(second.inputs, json!({"heard": "world"}));
    assert_eq!(second.output, json!({"heard": "world"}));
    assert_eq!(second.error, None);
    let (began, ended) = (second.started_at.unwrap(), second.ended_at.unwrap());
    assert!(before <= began && began <= ended, "{before} {began} {ended}");
    assert!(second.duration_ms.unwrap() >= 0.0);
}

#[test]
fn branches_run_at_the_same_time() {
    let _turn = turn();
    // Each task waits for the other one: only threads that run together get past this.
    let mut registry = Registry::new();
    let barrier = Arc::new(Barrier::new(2));
    registry.task("meet", move |_| {
        barrier.wait();
        Ok(Value::Null)
    });
    let run = run_with(
        registry,
        "flow: {graph: '(a & b) >> c'}\ntasks: {a: {use: meet}, b: {use: meet}, c: {use: solo}}",
    );
    assert!(matches!(run.outcome(), Outcome::FlowNotFound { .. }));

    let mut registry = Registry::new();
    let barrier = Arc::new(Barrier::new(2));
    registry
        .task("meet", move |_| {
            barrier.wait();
            Ok(Value::Null)
        })
        .task("solo", |_| Ok(Value::Null));
    let run = run_with(
        registry,
        "flow: {graph: '(a & b) >> c'}\ntasks: {a: {use: meet}, b: {use: meet}, c: {use: solo}}",
    );
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.story()[..2], ["a Running", "b Running"]);
    assert_eq!(run.story()[4..], ["c Running", "c Succeeded"]);
}

#[test]
fn two_sleeps_overlap() {
    let _turn = turn();
    let before = Instant::now();
    let run = run_yaml(
        "
flow: {graph: (a & b)}
tasks:
  a: {use: builtin/sleep, inputs: {seconds: 3}}
  b: {use: builtin/sleep, inputs: {seconds: 3}}
",
    );
    assert_eq!(run.outcome(), Outcome::Completed);
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_millis(5900), "{took:?}");
    let (a, b) = (run.record("a"), run.record("b"));
    assert!(a.started_at < b.ended_at && b.started_at < a.ended_at);
}

#[test]
fn a_shared_node_runs_once_after_all_that_lead_to_it() {
    let _turn = turn();
    let run = run_yaml(
        "
flow:
  graph: |
    start >> left   # two statements, one node each
    start >> right; left >> end
    right >> end
tasks:
  start: {use: builtin/echo}
  left: {use: builtin/echo}
  right: {use: builtin/echo}
  end: {use: builtin/echo}
",
    );
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.story().len(), 8);
    let end = run.at("end Running");
    assert!(run.at("left Succeeded") < end && run.at("right Succeeded") < end);
    assert!(run.at("start Succeeded") < run.at("left Running").min(run.at("right Running")));
}

#[test]
fn any_goes_on_with_the_first_and_the_other_runs_on() {
    let _turn = turn();
    let (go, gate) = crossbeam_channel::bounded::<()>(1);
    let mut registry = Registry::with_builtins();
    registry
        .task("wait", move |_| {
            gate.recv_timeout(crate::support::flow::DEADLINE)?;
            Ok(json!("late"))
        })
        .task("release", move |_| {
            go.send(())?;
            Ok(Value::Null)
        });
    let run = run_with(
        registry,
        "
flow: {graph: '(slow | quick) >> then'}
tasks: {slow: {use: wait}, quick: {use: builtin/echo}, then: {use: release}}
",
    );
    // `slow` ends only because `then` has run, and it counts although nobody waited for it.
    assert_eq!(run.outcome(), Outcome::Completed);
    assert!(run.at("then Running") < run.at("slow Succeeded"));
    assert_eq!(run.story().iter().filter(|entry| *entry == "then Running").count(), 1);
}

#[test]
fn a_label_runs_one_task_twice() {
    let _turn = turn();
    let run = run_yaml(
        "
flow: {graph: 'one: say >> two: say'}
tasks: {say: {use: builtin/echo, inputs: {x: 1}}}
",
    );
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.record("two").output, json!({"x": 1}));
}

#[test]
fn no_more_than_the_bound_run_at_once_and_the_threads_end() {
    let _turn = turn();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let names = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let mut registry = Registry::new();
    let (n, m, seen) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&names));
    registry.task("count", move |ctx| {
        let running = n.fetch_add(1, Ordering::SeqCst) + 1;
        m.fetch_max(running, Ordering::SeqCst);
        seen.lock().unwrap().insert(format!("{:?}", std::thread::current().id()));
        ctx.cancel.sleep(Duration::from_millis(20));
        n.fetch_sub(1, Ordering::SeqCst);
        Ok(Value::Null)
    });
    let branches: Vec<String> = (0..100).map(|n| format!("n{n}: count")).collect();
    let yaml = format!("flow:\n  graph: ({})\n", branches.join(" & ").replace(": ", ":"));
    let run = run_with(registry, &yaml);
    assert_eq!(run.outcome(), Outcome::Completed);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=MAX_PARALLEL_TASKS).contains(&most), "{most}");
    assert!(names.lock().unwrap().len() <= MAX_PARALLEL_TASKS);
    // Everything is ready at once, so tasks start in the order of the graph.
    let started: Vec<String> = run.story().into_iter().filter(|e| e.ends_with("Running")).collect();
    let expected: Vec<String> = (0..100).map(|n| format!("n{n} Running")).collect();
    assert_eq!(started, expected);
    drop(run);
    wait_for_no_flow_threads();
}

#[test]
fn a_sequence_needs_one_thread_beside_the_engines() {
    let _turn = turn();
    let counts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut registry = Registry::new();
    let seen = Arc::clone(&counts);
    registry.task("count", move |_| {
        seen.lock().unwrap().push(flow_threads());
        Ok(Value::Null)
    });
    let run = run_with(registry, "flow: {graph: 'a:count >> b:count >> c:count'}");
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(*counts.lock().unwrap(), [2; 3]);
}

#[test]
fn a_thousand_tasks_in_layers_run() {
    let _turn = turn();
    let layers: Vec<String> = (0..50)
        .map(|layer| {
            let nodes: Vec<String> = (0..20).map(|n| format!("n{layer}_{n}:builtin")).collect();
            format!("({})", nodes.join(" & "))
        })
        .collect();
    let yaml =
        format!("flow:\n  graph: {}\ntasks: {{builtin: {{use: builtin/echo}}}}\n", layers.join(" >> "));
    let run = run_yaml(&yaml);
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.story().len(), 2000);
    for layer in 1..50 {
        let last = (0..20).map(|n| run.at(&format!("n{}_{n} Succeeded", layer - 1))).max();
        let first = (0..20).map(|n| run.at(&format!("n{layer}_{n} Running"))).min();
        assert!(last < first, "layer {layer}");
    }
    drop(run);
    wait_for_no_flow_threads();
}

#[test]
fn flows_built_in_rust_run_by_name() {
    let _turn = turn();
    let mut registry = Registry::with_builtins();
    let flow = Flow::builder("sum")
        .default("b", 2)
        .task("add", |ctx| {
            let (a, b): (i64, i64) = (ctx.input("a")?, ctx.input("b")?);
            Ok(json!(a + b))
        })
        .input("add", "a", "$ctx.params.a")
        .input("add", "b", "$ctx.params.b")
        .uses("show", "builtin/echo")
        .input("show", "sum", "$node.add.output")
        .edge("add", "show")
        .build()
        .unwrap();
    registry.flow(flow);
    let executor = NativeExecutor::new(registry);
    assert!(executor.accepts(&job("sum", None, json!({}))));
    assert!(!executor.accepts(&job("other", None, json!({}))));
    let mut run = start(&executor, job("sum", None, json!({"a": 40})));
    assert_eq!(run.finish(), Outcome::Completed);
    assert_eq!(run.record("show").output, json!({"sum": 42}));

    let mut run = start(&executor, job("other", None, json!({})));
    match run.finish() {
        Outcome::FlowNotFound { error } => assert!(error.contains("no flow `other`"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flow_that_cannot_be_built_says_why() {
    let nothing = |_: &pyoco_server::flow::TaskContext| Ok(Value::Null);
    for (builder, why) in [
        (Flow::builder("f"), "it names no task"),
        (Flow::builder("f").task("a", nothing).task("a", nothing), "two tasks named `a`"),
        (Flow::builder("f").task("a", nothing).edge("a", "b"), "no task `b`"),
        (Flow::builder("f").input("a", "x", 1), "no task `a`"),
        (
            Flow::builder("f").task("a", nothing).task("b", nothing).edge("a", "b").any_of(&["b"], "a"),
            "cycle: a >> b >> a",
        ),
    ] {
        let error = builder.build().err().expect("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_echo_costs_little() {
    let _turn = turn();
    let mut registry = Registry::with_builtins();
    registry.flow(Flow::builder("echo").uses("echo", "builtin/echo").build().unwrap());
    let executor = NativeExecutor::new(registry);
    let yaml = "flow: {graph: echo}\ntasks: {echo: {use: builtin/echo, inputs: {x: 1}}}";
    for yaml in [None, Some(yaml)] {
        let mut times: Vec<Duration> = (0..200)
            .map(|_| {
                let before = Instant::now();
                let mut run = start(&executor, job("echo", yaml, json!({})));
                run.wait_for(|event| matches!(event, FlowEvent::Finished(_)));
                before.elapsed()
            })
            .collect();
        times.sort();
        println!("echo flow {yaml:?}: median {:?}, p90 {:?}", times[100], times[180]);
        // A debug build on a busy machine is slow; anything that waits or polls is slower.
        assert!(times[100] < Duration::from_millis(20), "{:?}", times[100]);
    }
}

#[test]
fn every_task_has_one_end() {
    let _turn = turn();
    let run = run_yaml(
        "
flow: {graph: '(a & b) >> (c | d) >> e'}
tasks: {a: {use: builtin/echo}, b: {use: builtin/echo}, c: {use: builtin/echo}, d: {use: builtin/echo}, e: {use: builtin/echo}}
",
    );
    for task in ["a", "b", "c", "d", "e"] {
        assert_eq!(run.record(task).state, TaskStatus::Succeeded);
        assert_eq!(run.story().iter().filter(|e| e.starts_with(&format!("{task} "))).count(), 2);
    }
}
