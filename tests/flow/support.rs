//! Native flows from documents, one test at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyoco_server::flow::{NativeExecutor, Registry};
use serde_json::{Map, Value};

pub use crate::flow::{DEADLINE, Run, job, start};

/// Tests take turns, because some of them count the threads of the process.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    wait_for_no_flow_threads();
    turn
}

/// Runs a document with the built-in tasks to its end.
pub fn run_yaml(yaml: &str) -> Run {
    run_with(Registry::with_builtins(), yaml)
}

pub fn run_with(registry: Registry, yaml: &str) -> Run {
    let job = job("main", Some(yaml), Value::Object(Map::new()));
    let mut run = start(&NativeExecutor::new(registry), job);
    run.finish();
    run
}

/// Threads of this process whose name begins with `flow`.
pub fn flow_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("this process is listed")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .filter(|name| matches!(name.trim(), "flow" | "flow-task"))
        .count()
}

/// A joined thread may be listed for a moment longer.
pub fn wait_for_no_flow_threads() {
    let deadline = Instant::now() + DEADLINE;
    while flow_threads() != 0 {
        assert!(Instant::now() < deadline, "{} threads remain", flow_threads());
        std::thread::yield_now();
    }
}
