//! Our client and our worker serve the gateway of the Python package.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pyoco_server::bus::Bus;
use pyoco_server::config::{Config, Source};
use pyoco_server::flow::{Flow, NativeExecutor, Registry, TaskError};
use pyoco_server::thread::{StopSource, stop_channel};
use pyoco_server::worker::{self, WorkerSettings};
use serde_json::json;

use crate::flows::GREETING_YAML;
use crate::site::{Client, Site, ids};
use crate::support::http;
use crate::support::process::{Binary, Running};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn our_client_submits_shows_lists_and_cancels() {
    let site = Site::start();
    let gateway = site.python_gateway();
    let _worker = site.python_worker("py");
    let client = Client::ours(&site, &gateway);

    let run = client.json(&[
        "submit",
        "--flow-name",
        "sums",
        "--param",
        "x=2",
        "--tag",
        "py",
        "--wait",
        "--timeout-sec",
        "75",
        "--exit-status",
    ]);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let run_id = run["run_id"].as_str().unwrap();
    let shown = client.json(&["get", run_id]);
    assert_eq!((&shown["status"], &shown["params"]), (&json!("COMPLETED"), &json!({"x": 2})));
    assert!(shown.get("task_records").is_none(), "{shown}");
    assert_eq!(client.json(&["get", run_id, "--records"])["task_records"]["twice"]["output"], 10);
    let tasks = client.json(&["tasks", run_id]);
    assert_eq!(tasks["tasks"], json!({"add": "SUCCEEDED", "twice": "SUCCEEDED"}));
    assert!(client.text(&["tasks", run_id, "--output", "table"]).contains("SUCCEEDED"));

    let document = site.write("flow.yaml", GREETING_YAML);
    let run = client.json(&[
        "submit-yaml",
        "--workflow-file",
        &document,
        "--flow-name",
        "greeting",
        "--tag",
        "py",
        "--wait",
    ]);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    let yaml_id = run["run_id"].as_str().unwrap();
    gateway.at_rest(&[run_id, yaml_id]);
    let list: Vec<String> = client
        .text(&["list", "--status", "COMPLETED"])
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .flat_map(|document| match document {
            serde_json::Value::Array(runs) => runs,
            one => vec![one],
        })
        .map(|run| run["run_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(list, [yaml_id, run_id]);
    let table = client.text(&["list", "--output", "table"]);
    assert!(table.contains("sums") && table.contains("greeting"), "{table}");

    let cancelled = gateway.submit("py", "cancel_between", json!({}));
    gateway.task_runs_in_python(&cancelled, "until_cancelled");
    let finished =
        client.finish(&["cancel", "--run-id", &cancelled, "--wait", "--timeout-sec", "20"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(gateway.run(&cancelled)["status"], "CANCELLED");

    let finished = client.finish(&["get", "no-such-run"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("run not found"), "{finished:?}");
}

/// Its gateway refuses `use`, so a task of ours is found by its name in the graph.
const NATIVE_YAML: &str = "\
version: 1
flow:
  graph: greet >> shout
  defaults: {name: Ann}
tasks:
  greet: {inputs: {name: $ctx.params.name}}
  shout: {inputs: {text: $node.greet.output}}
";

#[test]
fn our_worker_executes_what_was_submitted_there() {
    let site = Site::start();
    let gateway = site.python_gateway();
    let _worker = NativeWorker::start(&site, "rust");

    let yaml = gateway.submit_yaml("rust", "greeting", NATIVE_YAML);
    let run = gateway.ended(&yaml);
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(run["tasks"], json!({"greet": "SUCCEEDED", "shout": "SUCCEEDED"}));
    assert_eq!(run["task_records"]["shout"]["output"], "HELLO ANN");
    assert_eq!(run["worker_id"], "native");
    assert_eq!(run["worker_alive"], true);

    let bad = gateway.submit("rust", "failing", json!({}));
    let run = gateway.ended(&bad);
    assert_eq!((&run["status"], &run["tasks"]), (&json!("FAILED"), &json!({"fall": "FAILED"})));
    assert_eq!(run["task_records"]["fall"]["error"], "it fell");

    let waiting = gateway.submit("rust", "waiting", json!({}));
    gateway.task_runs(&waiting, "wait");
    assert_eq!(gateway.cancel(&waiting)["status"], "CANCELLING");
    let run = gateway.ended(&waiting);
    assert_eq!(
        (&run["status"], &run["tasks"]),
        (&json!("CANCELLED"), &json!({"wait": "CANCELLED"}))
    );

    assert_eq!(ids(&gateway.get("/runs")), [&waiting, &bad, &yaml]);
    eventually(PATIENCE, "the worker's record to name its last run", || {
        let workers = gateway.get("/workers?scope=all");
        let record = &workers[0];
        assert_eq!((&record["worker_id"], &record["tags"]), (&json!("native"), &json!(["rust"])));
        (record["last_run_id"] == json!(waiting)).then_some(())
    });
    eventually(PATIENCE, "the cancelled run in its metrics", || {
        let metrics = http::get(gateway.address, "/metrics").text();
        metrics.contains("pyoco_runs_total{status=\"CANCELLED\"} 1").then_some(())
    });
}

#[test]
fn our_worker_program_takes_its_jobs() {
    let site = Site::start();
    let gateway = site.python_gateway();
    let mut command = site.place(Binary::Worker.command());
    command.args(["--tags", "rust", "--worker-id", "program"]);
    let mut worker = Running::start(&mut command);
    let run = gateway.ended(&gateway.submit("rust", "no_such_flow", json!({})));
    assert_eq!(run["status"], "FAILED");
    assert!(run["error"].as_str().unwrap().starts_with("flow_not_found"), "{run}");
    assert_eq!(worker.stop(Duration::from_secs(20)).code(), Some(0));
}

/// Our worker inside of this process, with tasks in Rust; stopped when dropped.
struct NativeWorker {
    stop: Option<StopSource>,
    thread: Option<JoinHandle<()>>,
}

impl NativeWorker {
    fn start(site: &Site, tag: &str) -> NativeWorker {
        let url = site.nats.url();
        let config = Config::load(&Source::from_pairs([("PYOCO_NATS_URL", url.as_str())])).config;
        let settings = WorkerSettings {
            worker_id: "native".to_owned(),
            tags: vec![tag.to_owned()],
            concurrency: 2,
            drain_timeout: Duration::from_secs(10),
            run_once: None,
            run: config.run.clone(),
            registry: config.registry.clone(),
            wheels: None,
        };
        let (stop, stopped) = stop_channel();
        let thread = std::thread::spawn(move || {
            let bus = Bus::start(&config.nats, &config.resources).unwrap();
            let executor = Arc::new(NativeExecutor::new(tasks()));
            worker::run(settings, &bus, vec![executor], &stopped).unwrap();
        });
        NativeWorker { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for NativeWorker {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().expect("it is stopped once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the worker has failed");
    }
}

fn tasks() -> Registry {
    let mut registry = Registry::new();
    registry.task("greet", |ctx| Ok(json!(format!("hello {}", ctx.input::<String>("name")?))));
    registry.task("shout", |ctx| Ok(json!(ctx.input::<String>("text")?.to_uppercase())));
    let failing = Flow::builder("failing").task("fall", |_| Err(TaskError::new("it fell")));
    registry.flow(failing.build().unwrap());
    let waiting = Flow::builder("waiting").task("wait", |ctx| {
        ctx.cancel.sleep(Duration::from_secs(60));
        Err(TaskError::cancelled())
    });
    registry.flow(waiting.build().unwrap());
    registry
}
