//! A program of your own with tasks in Rust: a worker, a gateway and a client in one process.
//!
//! Needs a NATS server with JetStream at `PYOCO_NATS_URL` (default `nats://127.0.0.1:4222`).

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::bus::Bus;
use pyoco_server::client::{Client, ClientSettings, Include, Submission};
use pyoco_server::config::{Config, Source};
use pyoco_server::flow::{Executor, Flow, NativeExecutor, Registry, TaskError};
use pyoco_server::gateway::{GatewaySettings, Lang, RunningGateway};
use pyoco_server::worker::{self, WorkerSettings};
use pyoco_server::{logging, thread};
use serde_json::{Value, json};

const TAG: &str = "embedded";

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::load(&Source::from_process()).config;
    logging::init("pyoco-server:worker", &config.log);

    // Connecting goes on in the background; nothing below this line needs to wait for it.
    let bus = Bus::start(&config.nats, &config.resources)?;
    let gateway = RunningGateway::start(([127, 0, 0, 1], 0).into(), &bus, gateway(&config))?;

    // The worker stops when `stop` is dropped.
    let (stop, stopped) = thread::stop_channel();
    let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(NativeExecutor::new(registry()?))];
    let settings = worker(&config);
    let worker_bus = Bus::start(&config.nats, &config.resources)?;
    let worker = thread::spawn("worker", move || {
        if let Err(error) = worker::run(settings, &worker_bus, executors, &stopped) {
            eprintln!("the worker has ended: {error}");
        }
    })?;

    let snapshot = submit(&format!("http://{}", gateway.local_addr()))?;
    println!("{} {}", snapshot["status"], snapshot["task_records"]["show"]["output"]);

    drop(stop);
    worker.join();
    gateway.stop(Duration::from_secs(5));
    Ok(())
}

/// The tasks and flows that this worker has.
fn registry() -> Result<Registry, Box<dyn Error>> {
    let mut registry = Registry::with_builtins();
    // For `use: demo/add` in a flow.yaml, and for flows in Rust.
    registry.task("demo/add", |ctx| {
        let (a, b): (i64, i64) = (ctx.input("a")?, ctx.input("b")?);
        a.checked_add(b).map(Value::from).ok_or_else(|| TaskError::new("the sum is too large"))
    });
    // For `flow_name: sum`.
    registry.flow(
        Flow::builder("sum")
            .default("b", 2)
            .uses("add", "demo/add")
            .input("add", "a", "$ctx.params.a")
            .input("add", "b", "$ctx.params.b")
            .task("show", |ctx| Ok(json!(format!("the sum is {}", ctx.inputs["sum"]))))
            .input("show", "sum", "$node.add.output")
            .edge("add", "show")
            .build()?,
    );
    Ok(registry)
}

fn worker(config: &Config) -> WorkerSettings {
    WorkerSettings {
        worker_id: format!("embedded-{}", std::process::id()),
        tags: vec![TAG.to_owned()],
        concurrency: 2,
        drain_timeout: Duration::from_secs(10),
        run_once: None,
        run: config.run.clone(),
        registry: config.registry.clone(),
        wheels: None,
    }
}

fn gateway(config: &Config) -> GatewaySettings {
    GatewaySettings {
        default_tag: config.run.default_tag.clone(),
        max_workflow_bytes: config.run.max_workflow_bytes,
        max_wheel_bytes: u64::try_from(config.resources.wheels_max_bytes).unwrap_or(0),
        wheel_history_kept: config.resources.wheel_history_ttl,
        disconnect_timeout: config.registry.disconnect_timeout,
        worker_heartbeat: config.registry.heartbeat_interval,
        cancel_grace: config.run.cancel_grace_period,
        threads: 4,
        workers_retention: config.registry.retention,
        max_watchers: 16,
        trusted_proxies: None,
        api_key_header: config.http.api_key_header.clone(),
        dashboard_lang: Lang::En,
        auth: None,
    }
}

/// Submits a run over HTTP and waits for its end.
fn submit(server: &str) -> Result<Value, Box<dyn Error>> {
    let client = Client::new(ClientSettings {
        server: server.to_owned(),
        api_key: None,
        api_key_header: "X-API-Key".to_owned(),
        timeout: Duration::from_secs(10),
    })?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.ready().is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut params = serde_json::Map::new();
    params.insert("a".to_owned(), json!(40));
    let accepted = client.submit(&Submission {
        flow_name: "sum".to_owned(),
        params,
        tag: Some(TAG.to_owned()),
        ..Submission::default()
    })?;
    let run_id = accepted["run_id"].as_str().ok_or("an answer without a run id")?;
    while Instant::now() < deadline {
        let snapshot = client.get_run(run_id, Include::Records)?;
        if matches!(snapshot["status"].as_str(), Some("COMPLETED" | "FAILED" | "CANCELLED")) {
            return Ok(snapshot);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("run {run_id} has not ended within 30 s").into())
}
