//! A worker with native tasks that leaves a line in a file when a run begins, every second, and when it
//! ends.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::bus::Bus;
use pyoco_server::config::{Config, Source};
use pyoco_server::flow::{Executor, Flow, NativeExecutor, Registry, TaskContext, TaskError};
use pyoco_server::worker::{self, WorkerSettings};
use pyoco_server::{logging, thread};
use serde_json::{Value, json};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use super::Error;
use super::journal::now;

/// What a worker is given in its environment, beside the settings of the product.
pub const JOURNAL: &str = "CHAOS_JOURNAL";
pub const WORKER: &str = "CHAOS_WORKER";
/// The flow that all workers have.
pub const FLOW: &str = "chaos";
/// The same for workers with Python.
pub const PYTHON_FLOWS: &str = include_str!("flows.py");
/// Between two lines of a run that goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM; `PYOCO_DEFAULT_TAG` is the tag that it serves.
pub fn main() -> Result<(), Error> {
    let config = Config::load(&Source::from_process()).config;
    logging::init("pyoco-server:worker", &config.log);
    let (source, stop) = thread::stop_channel();
    let mut signals = Signals::new([SIGTERM])?;
    std::thread::spawn(move || {
        signals.forever().next();
        drop(source);
    });
    let mut registry = Registry::with_builtins();
    let (journal, name) = (std::env::var(JOURNAL)?, std::env::var(WORKER)?);
    let flow = Flow::builder(FLOW).task("work", move |ctx| work(ctx, &journal, &name)).build()?;
    registry.flow(flow);
    let settings = WorkerSettings {
        worker_id: std::env::var(WORKER)?,
        tags: vec![config.run.default_tag.clone()],
        concurrency: config.worker_concurrency.unwrap_or(1),
        drain_timeout: Duration::from_secs(10),
        run_once: None,
        run: config.run.clone(),
        registry: config.registry.clone(),
        wheels: None,
    };
    let bus = Bus::start(&config.nats, &config.resources)?;
    let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(NativeExecutor::new(registry))];
    Ok(worker::run(settings, &bus, executors, &stop)?)
}

fn work(ctx: &TaskContext, journal: &str, name: &str) -> Result<Value, TaskError> {
    let note = |word: &str| {
        // One write with O_APPEND: lines of several processes do not mix.
        let line = format!("{} {word} {name} {:.3}\n", ctx.run_id, now());
        OpenOptions::new().append(true).open(journal)?.write_all(line.as_bytes())
    };
    note("begin")?;
    let seconds = ctx.params.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if ctx.cancel.sleep(left.min(SIGN_OF_LIFE)) {
            return Err(TaskError::cancelled());
        }
        if left <= SIGN_OF_LIFE {
            break;
        }
        note("alive")?;
    }
    note("end")?;
    Ok(json!("done"))
}
