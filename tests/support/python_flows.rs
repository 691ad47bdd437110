//! Python flows executed in the test's own process, without NATS: a folder with flows and an executor, and
//! folders such as unpacked wheels are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use pyoco_server::flow::python::{Code, PythonError, visible_environment};
use pyoco_server::flow::{Executor, FlowEvent, Outcome, PythonExecutor, PythonSettings};
use pyoco_server::model::wheel::{WheelRef, WheelSet};
use serde_json::{Value, json};

use super::flow::{Run, job, start};
use super::python::V08;
use super::wait::{PATIENCE, eventually};

/// Executes the flows of one Python text.
pub struct PythonFlows {
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

impl PythonFlows {
    /// With pyoco 0.8.
    pub fn with(flows: &str) -> PythonFlows {
        Self::with_settings(flows, |_| {})
    }

    pub fn with_settings(flows: &str, change: impl FnOnce(&mut PythonSettings)) -> PythonFlows {
        let folder = tempfile::tempdir().unwrap();
        let mut settings =
            PythonSettings { resolver: Some(write_flows(folder.path(), flows)), ..plain(V08.path()) };
        change(&mut settings);
        PythonFlows { folder, executor: PythonExecutor::new(settings) }
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
        term_grace: Duration::from_secs(2),
    }
}

pub fn error(run: &Run) -> String {
    match run.outcome() {
        Outcome::Failed { error } | Outcome::FlowNotFound { error } | Outcome::HostFault { error, .. } => {
            error
        }
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

/// Folders such as unpacked wheels are.
pub struct CodeFolders {
    pub folder: tempfile::TempDir,
}

/// What tells whether the code is still kept.
pub struct Kept(Weak<()>);

impl Kept {
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub fn let_go(&self) {
        eventually(PATIENCE, "the code is let go", || (!self.is_held()).then_some(()));
    }
}

impl CodeFolders {
    pub fn new() -> CodeFolders {
        CodeFolders { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes the files of one wheel.
    pub fn wheel(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (file, text) in files {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    /// A wheel whose `tool` has this version.
    pub fn tool(&self, version: &str) -> PathBuf {
        self.wheel(&format!("tool-{version}"), &[("tool.py", &format!("VERSION = '{version}'\n"))])
    }
}

pub fn code(generation: &str, paths: &[&Path]) -> (Arc<Code>, Kept) {
    let wheels = paths.iter().map(|path| WheelRef {
        wheel_name: format!("{}.whl", path.file_name().unwrap().display()),
        package_name: "package".into(),
        package_version: "1.0".into(),
        sha256: "00".into(),
    });
    let set = WheelSet { generation: generation.into(), wheels: wheels.collect() };
    let token = Arc::new(());
    let kept = Kept(Arc::downgrade(&token));
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    (Arc::new(Code { set, paths, keep: Box::new(token) }), kept)
}

pub fn give(executor: &PythonExecutor, generation: &str, paths: &[&Path]) -> Result<Kept, PythonError> {
    let (code, kept) = code(generation, paths);
    executor.use_code(code)?;
    Ok(kept)
}

pub fn output(run: &Run, task: &str) -> Value {
    assert_eq!(run.outcome(), Outcome::Completed);
    run.record(task).output.clone()
}

pub fn wheels(run: &Run) -> Option<&WheelSet> {
    let told: Vec<&WheelSet> = run
        .seen
        .iter()
        .filter_map(|event| if let FlowEvent::Wheels(set) = event { Some(set) } else { None })
        .collect();
    assert!(told.len() <= 1, "{told:?}");
    told.first().copied()
}
