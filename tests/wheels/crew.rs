//! Workers with `--wheel-sync` beside a gateway, and packages of flows for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Stage, form};
use crate::support::http;
use crate::support::process::{Binary, Running};
use crate::support::python;
use crate::support::wait::eventually;
use crate::support::wheel::WheelFile;

/// Templates start on a machine that runs all other tests, too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A worker process in a folder of its own.
pub struct Worker {
    pub process: Running,
    pub id: String,
    /// Where it stands, and has its wheels unless it was told another place.
    pub folder: tempfile::TempDir,
}

impl Worker {
    /// With these tags, looking at the registry every second.
    pub fn start(stage: &Stage, id: &str, tags: &str, flags: &[&str]) -> Worker {
        Self::start_in(tempfile::tempdir().unwrap(), stage, id, tags, flags)
    }

    /// The same in a folder that is there.
    pub fn start_in(
        folder: tempfile::TempDir,
        stage: &Stage,
        id: &str,
        tags: &str,
        flags: &[&str],
    ) -> Worker {
        let mut command = Binary::Worker.command();
        command.args(["--nats-url", &stage.nats.url(), "--worker-id", id, "--tags", tags]);
        command.args(["--wheel-sync", "--wheel-sync-interval-sec", "1", "--concurrency", "2"]);
        command.arg("--python").arg(python::python_08()).args(flags);
        command.env("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0.5").current_dir(folder.path());
        let process = Running::start(&mut command);
        Worker { process, id: id.to_owned(), folder }
    }

    /// Its unpacked wheels.
    pub fn unpacked(&self) -> Vec<PathBuf> {
        unpacked(&self.folder.path().join(".pyoco/wheels"))
    }
}

/// The folders of wheels below `dir`.
pub fn unpacked(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_dir() && path.file_name().unwrap().len() == 64).collect()
}

/// What the registry shows of a worker's wheels.
pub fn wheel_sync(stage: &Stage, worker: &str) -> Value {
    let records = stage.get("/workers?scope=all").json();
    let found = records.as_array().unwrap().iter().find(|record| record["worker_id"] == worker);
    found.map_or(Value::Null, |record| record["wheel_sync"].clone())
}

/// Waits until a worker's `wheel_sync` satisfies `wanted`.
pub fn wait_sync(
    stage: &Stage,
    worker: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    eventually(PATIENCE, &format!("wheel_sync of {worker}: {what}"), || {
        let sync = wheel_sync(stage, worker);
        wanted(&sync).then_some(sync)
    })
}

/// Waits until new runs of a worker get exactly these wheels.
pub fn wait_installed(stage: &Stage, worker: &str, names: &[&str]) -> Value {
    let what = format!("{names:?} installed");
    wait_sync(stage, worker, &what, |sync| {
        let installed = sync["installed_wheels"].as_array().map_or(Vec::new(), Clone::clone);
        let installed: Vec<&Value> = installed.iter().map(|wheel| &wheel["wheel_name"]).collect();
        sync["last_result"] != "idle" && installed == names
    })
}

/// Submits a run of a resolver's flow.
pub fn submit(stage: &Stage, flow: &str, tag: &str, params: Value) -> String {
    stage.submit(&json!({"flow_name": flow, "tag": tag, "params": params}))
}

/// Submits a document.
pub fn submit_yaml(stage: &Stage, tag: &str, yaml: &str) -> String {
    let parts = [
        ("workflow", Some("flow.yaml"), yaml.as_bytes()),
        ("flow_name", None, b"main"),
        ("tag", None, tag.as_bytes()),
    ];
    let (content_type, body) = form(&parts);
    let headers = [("Content-Type", &*content_type)];
    let answer = http::request(stage.address(), "POST", "/runs/yaml", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["run_id"].as_str().unwrap().to_owned()
}

/// Waits for the end of a run that must end so; the run with its records.
pub fn ended(stage: &Stage, run: &str, status: &str) -> Value {
    let show = || stage.get(&format!("/runs/{run}?include=records")).json();
    let end = eventually(PATIENCE, &format!("the end of run {run}"), || {
        let run = show();
        ["COMPLETED", "FAILED", "CANCELLED"].iter().any(|s| run["status"] == *s).then_some(run)
    });
    assert_eq!(end["status"], status, "{end}");
    end
}

/// A package `flows` whose flow `main` tells its version, and which module it has loaded late.
pub fn flows(version: &str) -> WheelFile {
    let text = format!(
        r#"
import os, time
from pyoco import Flow, task

@task
def tell(ctx):
    while ctx.params.get("until") and not os.path.exists(ctx.params["until"]):
        if not os.path.exists(ctx.params["began"]):
            open(ctx.params["began"], "w").close()
        time.sleep(0.02)
    from flows import late
    return {{"version": "{version}", "late": late.VERSION}}

def resolve_flow(name):
    return Flow(name=name) >> tell if name == "main" else None
"#
    );
    WheelFile::new("flows", version)
        .file("flows/__init__.py", text)
        .file("flows/late.py", format!("VERSION = \"{version}\"\n"))
}

/// What the flow of [`flows`] has told.
pub fn told(run: &Value) -> (&str, &str) {
    let output = &run["task_records"]["tell"]["output"];
    (output["version"].as_str().unwrap(), output["late"].as_str().unwrap())
}
