//! What the files of a wheel do for a flow: as if they were installed for its Python.

use std::path::PathBuf;
use std::sync::Arc;

use pyoco_server::flow::PythonExecutor;
use pyoco_server::flow::python::PythonError;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::flow::{Run, job, start};
use crate::support::python::{V06, V08};
use crate::support::python_flows::{CodeFolders, PythonFlows, error, give, output, plain};
use crate::support::wait::{PATIENCE, eventually};

/// What an error says of a module that is nowhere.
const HINT: &str = "what a wheel depends on is not installed with it";

fn run_yaml(executor: &PythonExecutor, yaml: &str) -> Run {
    let mut run = start(executor, job("main", Some(yaml), json!({})));
    run.finish();
    run
}

/// A plugin of pyoco: a task `<name>_hello` that tells its version.
fn plugin(folders: &CodeFolders, name: &str, version: &str) -> PathBuf {
    let info = format!("{name}-{version}.dist-info");
    folders.wheel(
        &format!("{name}-{version}"),
        &[
            (
                &format!("{name}.py"),
                &format!(
                    "def hook(registry):\n    @registry.task(name='{name}_hello')\n    def hello(ctx=None):
        from importlib.metadata import version
        return ['{version}', version('{name}')]\n"
                ),
            ),
            (
                &format!("{info}/METADATA"),
                &format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
            ),
            (&format!("{info}/entry_points.txt"), &format!("[pyoco.tasks]\n{name} = {name}:hook\n")),
        ],
    )
}

#[test]
fn tasks_are_found_by_entry_points() {
    for interpreter in [V08.path(), V06.path()] {
        let folders = CodeFolders::new();
        let executor = PythonExecutor::new(plain(interpreter));
        let [one, two] = ["1.0", "2.0"].map(|version| plugin(&folders, "plug", version));
        let other = plugin(&folders, "other", "3.0");
        for (generation, paths, expected) in
            [("1", [&one, &other], json!(["1.0", "1.0"])), ("2", [&two, &other], json!(["2.0", "2.0"]))]
        {
            give(&executor, generation, &paths.map(PathBuf::as_path)).unwrap();
            let run = run_yaml(&executor, "version: 1\nflow:\n  graph: plug_hello >> other_hello\n");
            assert_eq!(output(&run, "plug_hello"), expected);
            assert_eq!(output(&run, "other_hello"), json!(["3.0", "3.0"]));
        }
    }
}

#[test]
fn a_task_is_an_alias_of_one_that_a_wheel_brings() {
    let folders = CodeFolders::new();
    let executor = PythonExecutor::new(plain(V08.path()));
    give(&executor, "1", &[&plugin(&folders, "plug", "1.0")]).unwrap();
    let yaml = "version: 1\nflow:\n  graph: mine\ntasks:\n  mine:\n    use: plug_hello\n";
    assert_eq!(output(&run_yaml(&executor, yaml), "mine"), json!(["1.0", "1.0"]));
}

#[test]
fn wheels_share_a_namespace_package() {
    let folders = CodeFolders::new();
    let one = folders.wheel("one", &[("space/one.py", "def f(ctx=None): return 'one'\n")]);
    let two = folders.wheel("two", &[("space/two.py", "def f(ctx=None): return 'two'\n")]);
    for interpreter in [V08.path(), V06.path()] {
        let executor = PythonExecutor::new(plain(interpreter));
        give(&executor, "1", &[&one, &two]).unwrap();
        let yaml = "version: 1\nflow:\n  graph: a >> b\ntasks:\n  a:\n    callable: space.one:f\n  b:\n    callable: space.two:f\n";
        let run = run_yaml(&executor, yaml);
        assert_eq!((output(&run, "a"), output(&run, "b")), (json!("one"), json!("two")));
    }
}

#[test]
fn a_module_that_no_wheel_brings_is_named() {
    let folders = CodeFolders::new();
    let needs = folders.wheel(
        "needs",
        &[
            ("needs.py", "import absent_module\ndef hook(registry): pass\n"),
            ("needs-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: needs\nVersion: 1.0\n"),
            ("needs-1.0.dist-info/entry_points.txt", "[pyoco.tasks]\nneeds = needs:hook\n"),
        ],
    );
    let flows = PythonFlows::with("@pyoco.task\ndef late(ctx):\n    import needs\nflow_of(late)\n");
    let callable = "version: 1\nflow:\n  graph: a\ntasks:\n  a:\n    callable: needs:hook\n";
    let uses = "version: 1\nflow:\n  graph: a\ntasks:\n  a:\n    use: needs_task\n";
    let named = "version: 1\nflow:\n  graph: needs_task\n";
    let before = error(&flows.run("late"));
    assert!(before.contains("'needs'") && !before.contains(HINT), "{before}");
    give(&flows.executor, "1", &[&needs]).unwrap();
    let told = [callable, uses, named].map(|yaml| error(&flows.run_yaml(yaml, json!({}))));
    for error in told.into_iter().chain([error(&flows.run("late"))]) {
        assert!(error.contains("No module named 'absent_module'"), "{error}");
        assert_eq!(error.matches(HINT).count(), 1, "{error}");
    }
    let flows = PythonFlows::with("import needs\n");
    let error = give(&flows.executor, "1", &[&needs]).err().unwrap();
    assert!(matches!(error, PythonError::Load { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("'absent_module'") && error.contains(HINT), "{error}");
}

#[test]
fn a_workers_runs_and_its_record_tell_which_wheels_they_have() {
    let cluster = Cluster::new().quick().start();
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(
        "@pyoco.task
def wait(ctx):
    while not os.path.exists(ctx.params['go']): time.sleep(0.01)
flow_of(wait)\n",
    );
    let worker = Arc::new(flows.executor.clone());
    let _worker = cluster.local_worker_with("w1", &["default"], 2, worker);
    let go = flows.path("go");
    let mut runs = Vec::new();
    for version in ["1", "2"] {
        give(&flows.executor, version, &[&folders.tool(version)]).unwrap();
        let run = cluster.queue("default", "wait", json!({"go": go}));
        let told = eventually(PATIENCE, "the run tells its wheels", || {
            cluster.stored(&run).filter(|snapshot| snapshot.get("wheels").is_some())
        });
        assert_eq!((&told["status"], &told["wheel_generation"]), (&json!("RUNNING"), &json!(version)));
        cluster.wait_record("w1", "tells what new runs get", |r| r["python"]["generation"] == version);
        runs.push((run, format!("tool-{version}.whl")));
    }
    cluster.wait_record("w1", "has an older run", |r| r["python"]["older_templates"] == 1);
    std::fs::write(&go, "").unwrap();
    for (run, wheel) in &runs {
        let history = cluster.settled(run, "COMPLETED");
        assert_eq!(history.last()["wheels"][0]["wheel_name"], wheel.as_str());
    }
    cluster.wait_record("w1", "has none any more", |r| r["python"]["older_templates"] == 0);
}

#[test]
fn more_wheels_than_one_message_holds_are_no_trouble() {
    let folders = CodeFolders::new();
    let long = "x".repeat(200);
    let folders: Vec<PathBuf> = (0..1100).map(|n| folders.wheel(&format!("{long}-{n}"), &[])).collect();
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    std::fs::write(folders[1099].join("tool.py"), "def f(ctx=None): return 'last'\n").unwrap();
    let executor = PythonExecutor::new(plain(V08.path()));
    let paths: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
    give(&executor, "1", &paths).unwrap();
    let run = run_yaml(&executor, "version: 1\nflow:\n  graph: a\ntasks:\n  a:\n    callable: tool:f\n");
    assert_eq!(output(&run, "a"), "last");
}
