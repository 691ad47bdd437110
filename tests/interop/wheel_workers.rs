//! Workers and the wheels of the other side's gateway.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::cluster_with_flows;
use crate::support::cluster::{Cluster, Gateway, Options, with_env, with_flags};
use crate::support::process::Running;
use crate::support::python::V08;
use crate::support::python_environment::PythonEnvironment;
use crate::support::wheel::{WheelFile, sha256_hex};

/// To the end of a worker that has nothing to do.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// No task but the one that a wheel brings.
const GREET_YAML: &str = "version: 1\nflow:\n  graph: 'greet_hello'\n";

/// A wheel with a task that tells its version. It takes a moment: the Python worker sometimes hangs after
/// a flow that ends at once.
fn greet(version: &str) -> WheelFile {
    let code = format!(
        "import time\n\n\
         def hello(ctx, **inputs):\n    time.sleep(0.1)\n    return 'hello {version}'\n\n\
         def register(registry):\n    registry.task(hello, name='greet_hello')\n"
    );
    WheelFile::new("greet", version)
        .file("greet/__init__.py", code)
        .entry_points("[pyoco.tasks]\ngreet = greet:register\n")
}

/// Wheels are uploaded and deleted by either client in turn.
struct Registry<'a> {
    cluster: &'a Cluster,
    gateway: &'a Gateway,
    worker: &'a str,
}

impl Registry<'_> {
    fn upload(&self, wheel: &WheelFile, tags: &str) {
        let path = wheel.write_to(self.cluster.folder());
        let path = path.to_str().unwrap();
        let client = self.gateway.python_program();
        client.json(&["wheel-upload", "--wheel-file", path, "--preflight", "off", "--tags", tags]);
    }

    fn delete(&self, wheel: &WheelFile) {
        let client = self.gateway.program();
        client.json(&["wheel-delete", "--name", &wheel.file_name()]);
    }

    /// Waits until the worker has these wheels and no others.
    fn wait_installed(&self, wheels: &[&WheelFile]) -> Value {
        let names: Vec<String> = wheels.iter().map(|wheel| wheel.file_name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.gateway.wait_installed(self.worker, &names)
    }

    /// What the task of the wheel says in a run.
    fn greeting(&self) -> Value {
        let run = self.gateway.ended(&self.gateway.submit_yaml("py", "main", GREET_YAML));
        assert_eq!(run["status"], "COMPLETED", "{run}");
        run["task_records"]["greet_hello"]["output"].clone()
    }
}

/// The worker of the Python package, with wheels of the registry in an environment of its own.
fn python_worker(cluster: &Cluster, environment: &PythonEnvironment) -> Running {
    let folder = cluster.folder().join("wheels-of-python");
    let settings = [
        ("PYOCO_WHEEL_SYNC_ENABLED", "1"),
        ("PYOCO_WHEEL_SYNC_INTERVAL_SEC", "1"),
        ("PYOCO_WHEEL_SYNC_DIR", folder.to_str().unwrap()),
    ];
    let program = environment.program("pyoco-worker");
    cluster.start_python_worker_with(program, "py", with_env(&settings))
}

#[test]
fn the_worker_of_the_package_gets_the_wheels_of_our_gateway() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let registry = Registry { cluster: &cluster, gateway: &gateway, worker: "python" };
    let environment = PythonEnvironment::make();
    let base = WheelFile::new("base", "1.0").file("base.py", "x = 1\n");
    let foreign = WheelFile::new("foreign", "1.0").tag("cp39-cp39-win_amd64");
    let elsewhere = WheelFile::new("elsewhere", "1.0");
    let [one, two] = ["1.9", "1.10"].map(greet);
    registry.upload(&base, "");
    registry.upload(&one, "other,py");
    registry.upload(&foreign, "py");
    registry.upload(&elsewhere, "other");
    let mut worker = python_worker(&cluster, &environment);
    let sync = registry.wait_installed(&[&base, &one]);
    assert_eq!((&sync["last_result"], &sync["last_error"]), (&json!("ok"), &Value::Null), "{sync}");
    assert_eq!(sync["skipped_incompatible"][0]["wheel_name"], foreign.file_name(), "{sync}");
    let folder = cluster.folder().join("wheels-of-python");
    let there = fs::read(folder.join(one.file_name())).unwrap();
    assert_eq!(sha256_hex(&there), sha256_hex(&one.build()));
    assert_eq!(environment.version("greet").as_deref(), Some("1.9"));
    assert_eq!(environment.version("elsewhere"), None);
    assert_eq!(registry.greeting(), "hello 1.9");

    registry.upload(&two, "py");
    registry.wait_installed(&[&base, &two]);
    assert_eq!(environment.version("greet").as_deref(), Some("1.10"));
    // What a Python worker has imported stays as long as it lives.
    worker.stop(STOP_DEADLINE);
    let _worker = python_worker(&cluster, &environment);
    assert_eq!(registry.greeting(), "hello 1.10");

    registry.delete(&two);
    registry.wait_installed(&[&base, &one]);
    assert_eq!(environment.version("greet").as_deref(), Some("1.9"));
    registry.delete(&one);
    let sync = registry.wait_installed(&[&base]);
    assert_eq!(sync["last_result"], "ok", "{sync}");
    assert!(!folder.join(one.file_name()).exists());
}

#[test]
fn our_worker_gets_the_wheels_of_the_gateway_of_the_package() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    let registry = Registry { cluster: &cluster, gateway: &gateway, worker: "ours" };
    let folder = cluster.folder().join("wheels-of-ours");
    let flags = ["--tags", "py", "--wheel-sync", "--wheel-sync-dir", folder.to_str().unwrap()];
    let ours = with_flags(&flags);
    let mut worker = cluster.spawn_worker("ours", ours.python(V08));
    let sync = gateway.wait_sync("ours", "its first attempt", |sync| sync["last_result"] == "ok");
    assert_eq!((&sync["enabled"], &sync["selected_count"]), (&json!(true), &json!(0)), "{sync}");

    let base = WheelFile::new("base", "1.0").file("base.py", "x = 1\n");
    let foreign = WheelFile::new("foreign", "1.0").tag("cp39-cp39-win_amd64");
    let elsewhere = WheelFile::new("elsewhere", "1.0");
    let [one, two] = ["1.9", "1.10"].map(greet);
    registry.upload(&elsewhere, "other");
    registry.upload(&base, "");
    registry.upload(&foreign, "py");
    registry.upload(&one, "other,py");
    let sync = registry.wait_installed(&[&base, &one]);
    assert_eq!((&sync["last_result"], &sync["last_error"]), (&json!("ok"), &Value::Null), "{sync}");
    let skipped = &sync["skipped_incompatible"][0];
    assert_eq!(skipped["wheel_name"], foreign.file_name(), "{sync}");
    assert_eq!(skipped["reason"], "unsupported_wheel_tags", "{sync}");
    let run = gateway.ended(&gateway.submit_yaml("py", "main", GREET_YAML));
    assert_eq!(run["status"], "COMPLETED", "{run}");
    assert_eq!(run["task_records"]["greet_hello"]["output"], "hello 1.9");
    assert_eq!(run["wheels"][1]["wheel_name"], one.file_name(), "{run}");
    assert_eq!(run["wheels"][1]["sha256"], sha256_hex(&one.build()), "{run}");

    registry.upload(&two, "py");
    registry.wait_installed(&[&base, &two]);
    assert_eq!(registry.greeting(), "hello 1.10");
    registry.delete(&two);
    registry.wait_installed(&[&base, &one]);
    assert_eq!(registry.greeting(), "hello 1.9");

    // The gateway there takes anything for a wheel; the others are none the worse for it.
    let junk = "junk-1.0-py3-none-any.whl";
    let path = cluster.write(junk, "no archive");
    let client = gateway.python_program();
    client.json(&["wheel-upload", "--wheel-file", &path, "--preflight", "off"]);
    let sync = gateway.wait_sync("ours", "an error", |sync| sync["last_result"] == "error");
    assert!(sync["last_error"].as_str().unwrap().contains(junk), "{sync}");
    registry.upload(&two, "py");
    registry.wait_installed(&[&base, &two]);
    assert_eq!(registry.greeting(), "hello 1.10");
    client.json(&["wheel-delete", "--name", junk]);
    gateway.wait_sync("ours", "no error", |sync| sync["last_result"] == "ok");

    for wheel in [&base, &one, &two] {
        registry.delete(wheel);
    }
    let sync = registry.wait_installed(&[]);
    assert_eq!((&sync["last_result"], &sync["selected_count"]), (&json!("ok"), &json!(0)), "{sync}");
    let run = gateway.ended(&gateway.submit_yaml("py", "main", GREET_YAML));
    assert_eq!(run["status"], "FAILED", "{run}");
    assert_eq!(worker.stop(STOP_DEADLINE).code(), Some(0));
}
