//! A folder with flows, an executor for them, and a look at the processes that it leaves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyoco_server::flow::python::{PythonError, visible_environment};
use pyoco_server::flow::{FlowEvent, Outcome, PythonExecutor, PythonSettings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::flow::{Run, job, start};
use crate::support::python;
use crate::support::wait::{PATIENCE, eventually};

/// Executes the flows of one Python text.
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub executor: PythonExecutor,
}

/// Begins every text of flows: a task, a flow of it, and the resolver.
const PRELUDE: &str = "\
import os, sys, time, json, signal, subprocess, threading
import pyoco

FLOWS = {}

def flow_of(*tasks, name=None):
    flow = pyoco.Flow(name=name or tasks[0].task.name)
    for task in tasks:
        flow >> task
    FLOWS[tasks[0].task.name] = flow
    return flow

def resolve_flow(name):
    return FLOWS[name]

";

impl Stage {
    /// With pyoco 0.8.
    pub fn with(flows: &str) -> Stage {
        Self::with_settings(flows, |_| {})
    }

    pub fn with_settings(flows: &str, change: impl FnOnce(&mut PythonSettings)) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = PythonSettings {
            resolver: Some(write_flows(folder.path(), flows)),
            ..plain(python::python_08())
        };
        change(&mut settings);
        Stage { folder, executor: PythonExecutor::new(settings) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self, flow_name: &str, params: Value) -> Run {
        start(&self.executor, job(flow_name, None, params))
    }

    /// Runs a flow of the text to its end.
    pub fn run(&self, flow_name: &str) -> Run {
        self.run_with(flow_name, json!({}))
    }

    pub fn run_with(&self, flow_name: &str, params: Value) -> Run {
        let mut run = self.start(flow_name, params);
        run.finish();
        run
    }

    pub fn run_yaml(&self, yaml: &str, params: Value) -> Run {
        let mut run = start(&self.executor, job("main", Some(yaml), params));
        run.finish();
        run
    }

    /// The process that forks, by what the executor says of itself.
    pub fn template_pid(&self) -> u32 {
        self.status()["pid"].as_u64().unwrap().try_into().unwrap()
    }

    pub fn status(&self) -> Value {
        use pyoco_server::flow::Executor;
        self.executor.record_field().unwrap().1
    }

    pub fn warm_up_error(&self) -> PythonError {
        self.executor.warm_up().expect_err("it cannot be started")
    }
}

/// Writes a text of flows into a folder; returns the resolver's name.
pub fn write_flows(folder: &Path, flows: &str) -> String {
    let file = folder.join("flows.py");
    std::fs::write(&file, format!("{PRELUDE}{flows}")).unwrap();
    format!("{}:resolve_flow", file.display())
}

/// An executor's settings without a resolver.
pub fn plain(interpreter: PathBuf) -> PythonSettings {
    // Pyoco makes a folder for artifacts where it runs.
    std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).unwrap();
    PythonSettings {
        interpreter: interpreter.display().to_string(),
        resolver: None,
        memory_limit: None,
        environment: visible_environment(std::env::vars_os(), |_| false),
        start_deadline: Duration::from_secs(60),
        max_value_bytes: 256 * 1024,
    }
}

pub fn error(run: &Run) -> String {
    match run.outcome() {
        Outcome::Failed { error } | Outcome::FlowNotFound { error } => error,
        other => panic!("{other:?}"),
    }
}

pub fn started(run: &Run) -> (&str, Vec<&str>) {
    run.seen
        .iter()
        .find_map(|event| match event {
            FlowEvent::Started { flow_name, tasks } => {
                Some((flow_name.as_str(), tasks.iter().map(String::as_str).collect()))
            }
            _ => None,
        })
        .expect("the flow was found")
}

/// Whether the process exists and is not only waiting to be reaped.
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// All processes below this one, with their states.
pub fn below(pid: u32) -> Vec<(u32, char)> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let state = fields.next().unwrap().chars().next().unwrap();
        if fields.next().and_then(|parent| parent.parse().ok()) == Some(pid) {
            processes.push((child, state));
            processes.extend(below(child));
        }
    }
    processes
}

/// Reads a pid that a flow writes to a file.
pub fn pid_in(path: &Path) -> u32 {
    eventually(PATIENCE, "the flow writes its pid", || {
        std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()
    })
}

/// Waits until the process is gone.
pub fn gone(pid: u32) {
    eventually(PATIENCE, "the process ends", || (!is_running(pid)).then_some(()));
}

/// Ends a process that does not expect it.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

pub fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}
