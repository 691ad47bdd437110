//! Wheels of a worker: which code a run gets, until when it stays, and what happens when it is broken.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyoco_server::flow::FlowEvent;
use pyoco_server::flow::python::PythonError;
use pyoco_server::thread::stop_channel;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::flow::Run;
use crate::support::measure::{is_running, kill, signal, wait_gone};
use crate::support::python::V08;
use crate::support::python_flows::{CodeFolders, Kept, PythonFlows, code, give, output, wheels, write_flows};
use crate::support::wait::{PATIENCE, eventually};

/// `tool` is in the wheels; `wait` imports it only when it is told to.
const FLOWS: &str = r#"
@pyoco.task
def tell(ctx):
    import tool
    return tool.VERSION
flow_of(tell)

@pyoco.task
def wait(ctx):
    print("waiting", flush=True)
    while not os.path.exists(ctx.params["go"]): time.sleep(0.01)
    import tool
    return tool.VERSION
flow_of(wait)

@pyoco.task
def path(ctx): return [os.getcwd(), *sys.path]
flow_of(path)
"#;

/// A flows whose runs have `tool` in this version.
fn stage_with(folders: &CodeFolders, version: &str) -> (PythonFlows, Kept) {
    let flows = PythonFlows::with(FLOWS);
    let kept = give(&flows.executor, version, &[&folders.tool(version)]).unwrap();
    (flows, kept)
}

/// A run that waits; returns with the file that ends the wait.
fn waiting(flows: &PythonFlows, name: &str) -> (Run, PathBuf) {
    let go = flows.path(name);
    let mut run = flows.start("wait", json!({"go": go}));
    run.wait_for(|event| matches!(event, FlowEvent::Task { record, .. } if record.started_at.is_some()));
    (run, go)
}

fn let_on(run: &mut Run, go: &Path) -> Value {
    std::fs::write(go, "").unwrap();
    run.finish();
    output(run, "wait")
}

#[test]
fn a_run_in_flight_keeps_its_code_and_new_runs_get_the_new() {
    let folders = CodeFolders::new();
    let (flows, kept_one) = stage_with(&folders, "1");
    let old_template = flows.template_pid();
    let (mut first, go_first) = waiting(&flows, "first");
    let (mut second, go_second) = waiting(&flows, "second");
    let kept_two = give(&flows.executor, "2", &[&folders.tool("2")]).unwrap();
    assert_eq!(flows.status()["generation"], "2");
    assert_eq!(flows.status()["older_templates"], 1);
    let new = flows.run("tell");
    assert_eq!(output(&new, "tell"), "2");
    let set = wheels(&new).unwrap();
    assert_eq!((set.generation.as_str(), set.wheels[0].wheel_name.as_str()), ("2", "tool-2.whl"));
    assert!(matches!(new.seen[0], FlowEvent::Wheels(_)), "{:?}", new.seen);
    assert_eq!(let_on(&mut first, &go_first), "1");
    assert_eq!(wheels(&first).unwrap().generation, "1");
    assert!(kept_one.is_held() && is_running(old_template), "it still has a run");
    assert_eq!(let_on(&mut second, &go_second), "1");
    kept_one.let_go();
    wait_gone(old_template);
    assert_eq!(flows.status()["older_templates"], 0);
    assert!(kept_two.is_held());
    drop((new, flows));
    assert!(!kept_two.is_held(), "the end of the executor is the end of its templates");
}

#[test]
fn without_generations_nothing_is_told_of_wheels() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("path");
    assert!(wheels(&run).is_none());
    assert!(flows.status().get("generation").is_none());
    let kept = give(&flows.executor, "none", &[]).unwrap();
    let run = flows.run("path");
    assert_eq!(wheels(&run).unwrap().generation, "none");
    assert!(wheels(&run).unwrap().wheels.is_empty() && kept.is_held());
}

#[test]
fn code_that_cannot_be_loaded_changes_nothing() {
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(&format!("import tool\n{FLOWS}"));
    let kept = give(&flows.executor, "1", &[&folders.tool("1")]).unwrap();
    let template = flows.template_pid();
    let (mut run, go) = waiting(&flows, "go");
    let broken = folders.wheel("broken", &[("tool.py", "import json\nraise OSError('no device')\n")]);
    let (bad, bad_kept) = code("2", &[&broken]);
    let error = flows.executor.use_code(bad).unwrap_err();
    assert!(error.to_string().contains("OSError: no device"), "{error}");
    let PythonError::Load { traceback, .. } = &error else { panic!("{error:?}") };
    assert!(traceback.contains("tool.py\", line 2"), "{traceback}");
    assert!(!bad_kept.is_held(), "nothing of it is in use");
    // A wheel that ends the interpreter, and one whose folder is gone.
    let exits = folders.wheel("exits", &[("tool.py", "print('bye')\nimport os\nos._exit(3)\n")]);
    let error = give(&flows.executor, "3", &[&exits]).err().unwrap().to_string();
    assert!(error.contains("bye"), "{error}");
    let error = give(&flows.executor, "4", &[&folders.folder.path().join("none")]).err().unwrap();
    assert!(matches!(error, PythonError::Folder { .. }), "{error}");
    assert_eq!(flows.template_pid(), template);
    let status = flows.status();
    assert_eq!((&status["generation"], &status["starts"]), (&json!("1"), &json!(1)));
    assert_eq!(output(&flows.run("tell"), "tell"), "1");
    assert_eq!(let_on(&mut run, &go), "1");
    assert!(kept.is_held());
}

#[test]
fn a_template_that_has_died_comes_back_with_the_same_code() {
    let folders = CodeFolders::new();
    let (flows, kept) = stage_with(&folders, "1");
    for _ in 0..2 {
        kill(flows.template_pid());
        let run = flows.run("tell");
        assert_eq!((output(&run, "tell"), &*wheels(&run).unwrap().generation), (json!("1"), "1"));
    }
    assert_eq!(flows.status()["starts"], 3);
    assert!(kept.is_held());
}

#[test]
fn a_template_that_dies_as_soon_as_it_is_ready_comes_back_with_the_new_code() {
    let folders = CodeFolders::new();
    let (flows, _kept) = stage_with(&folders, "1");
    // The template waits for orders by a poll, right after its word that it is ready.
    let text = format!(
        "VERSION = '2'\nimport os, select\nmarker = {:?}\n
if not os.path.exists(marker):
    open(marker, 'w').close()
    select.poll = lambda: os._exit(7)
",
        flows.path("died")
    );
    write_flows(flows.folder.path(), &format!("import tool\n{FLOWS}"));
    let _kept = give(&flows.executor, "2", &[&folders.wheel("dying", &[("tool.py", &text)])]).unwrap();
    assert_eq!(output(&flows.run("tell"), "tell"), "2");
    assert_eq!(flows.status()["generation"], "2");
    assert_eq!(flows.status()["starts"], 3);
}

#[test]
fn without_its_interpreter_a_worker_keeps_what_it_has() {
    use std::os::unix::fs::PermissionsExt;
    let folders = CodeFolders::new();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("python");
    let text = format!("#!/bin/sh\nexec '{}' \"$@\"\n", V08.path().display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let flows = PythonFlows::with_settings(FLOWS, |settings| {
        settings.interpreter = script.display().to_string();
    });
    let kept = give(&flows.executor, "1", &[&folders.tool("1")]).unwrap();
    std::fs::remove_file(&script).unwrap();
    let error = give(&flows.executor, "2", &[&folders.tool("2")]).err().unwrap();
    assert!(matches!(error, PythonError::NoInterpreter { .. }), "{error}");
    assert_eq!(output(&flows.run("tell"), "tell"), "1");
    assert!(kept.is_held());
}

#[test]
fn wheels_are_searched_before_all_else_in_their_order() {
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(FLOWS);
    std::fs::write(flows.path("tool.py"), "VERSION = 'beside the flows'\n").unwrap();
    assert_eq!(output(&flows.run("tell"), "tell"), "beside the flows");
    let (one, two) = (folders.tool("1"), folders.tool("2"));
    let _kept = give(&flows.executor, "g", &[&two, &one]).unwrap();
    assert_eq!(output(&flows.run("tell"), "tell"), "2");
    let paths = output(&flows.run("path"), "path");
    let expected = json!([two, one, flows.folder.path(), paths[0]]);
    assert_eq!(json!(paths.as_array().unwrap()[1..5]), expected, "{paths}");
}

#[test]
fn code_stays_until_the_last_run_has_ended_also_when_its_template_was_killed() {
    let folders = CodeFolders::new();
    let (flows, kept) = stage_with(&folders, "1");
    let (mut run, go) = waiting(&flows, "go");
    let kept_two = give(&flows.executor, "2", &[&folders.tool("2")]).unwrap();
    assert!(kept.is_held());
    assert_eq!(let_on(&mut run, &go), "1");
    kept.let_go();
    let (mut run, go) = waiting(&flows, "go-again");
    kill(flows.template_pid());
    let (three, kept_three) = code("3", &[&folders.tool("3")]);
    flows.executor.use_code(three).unwrap();
    assert!(kept_two.is_held(), "its template is dead, its run is not");
    assert_eq!(let_on(&mut run, &go), "2", "what it imports late is from its own wheels");
    kept_two.let_go();
    assert!(kept_three.is_held());
}

/// A wheel whose import waits for a file.
fn slow(folders: &CodeFolders, version: &str, go: &Path) -> PathBuf {
    let text = format!(
        "import os, time\nVERSION = '{version}'\nopen({:?}, 'w').close()\n
while not os.path.exists({go:?}): time.sleep(0.01)\n",
        go.with_extension("begun")
    );
    folders.wheel(&format!("slow-{version}"), &[("tool.py", &text)])
}

fn begun(go: &Path) {
    let begun = go.with_extension("begun");
    eventually(PATIENCE, "the template imports", || begun.exists().then_some(()));
}

#[test]
fn runs_go_on_to_start_while_new_code_is_loaded() {
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(&format!("import tool\n{FLOWS}"));
    let kept = give(&flows.executor, "1", &[&folders.tool("1")]).unwrap();
    let go = flows.path("go");
    let (next, _kept) = code("2", &[&slow(&folders, "2", &go)]);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| flows.executor.use_code(next));
        begun(&go);
        assert_eq!(output(&flows.run("tell"), "tell"), "1");
        assert!(!changing.is_finished() && kept.is_held());
        std::fs::write(&go, "").unwrap();
        changing.join().unwrap().unwrap();
    });
    assert_eq!(output(&flows.run("tell"), "tell"), "2");
    kept.let_go();
}

#[test]
fn code_that_comes_while_a_template_starts_follows_it() {
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(&format!("import tool\n{FLOWS}"));
    let go = flows.path("go");
    std::fs::write(&go, "").unwrap();
    let kept = give(&flows.executor, "1", &[&slow(&folders, "1", &go)]).unwrap();
    std::fs::remove_file(&go).unwrap();
    std::fs::remove_file(go.with_extension("begun")).unwrap();
    kill(flows.template_pid());
    let mut run = flows.start("tell", json!({}));
    begun(&go);
    let (next, _kept) = code("2", &[&folders.tool("2")]);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| flows.executor.use_code(next));
        // Whether it waits already makes no difference to what must come of it.
        std::fs::write(&go, "").unwrap();
        changing.join().unwrap().unwrap();
    });
    run.finish();
    assert_eq!(output(&run, "tell"), wheels(&run).unwrap().generation.as_str());
    assert_eq!(output(&flows.run("tell"), "tell"), "2");
    kept.let_go();
}

#[test]
fn a_run_that_was_not_forked_yet_tells_the_code_that_it_gets() {
    let folders = CodeFolders::new();
    let (flows, first) = stage_with(&folders, "1");
    for (how, expected, next) in [(Signal::CONT, "1", "2"), (Signal::KILL, "3", "3")] {
        let old = flows.template_pid();
        signal(old, Signal::STOP);
        let mut runs = [(); 3].map(|()| flows.start("tell", json!({})));
        // They have been given to the old one, or will be given to the new.
        let kept = give(&flows.executor, next, &[&folders.tool(next)]).unwrap();
        signal(old, how);
        for run in &mut runs {
            run.finish();
            let has = output(run, "tell");
            assert_eq!(has, wheels(run).unwrap().generation.as_str());
            assert!(has == expected || has == next, "{has}");
        }
        assert_eq!(output(&flows.run("tell"), "tell"), next);
        assert!(kept.is_held());
    }
    first.let_go();
}

#[test]
fn the_last_of_several_callers_counts() {
    let folders = CodeFolders::new();
    let (flows, first) = stage_with(&folders, "0");
    let mut kept: Vec<Kept> = std::thread::scope(|scope| {
        let callers: Vec<_> = (1..=3)
            .map(|n| {
                let path = folders.tool(&n.to_string());
                let executor = &flows.executor;
                scope.spawn(move || give(executor, &n.to_string(), &[&path]).unwrap())
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let generation = flows.status()["generation"].as_str().unwrap().to_owned();
    assert_eq!(output(&flows.run("tell"), "tell"), generation.as_str());
    let present = kept.remove(generation.parse::<usize>().unwrap() - 1);
    kept.iter().chain([&first]).for_each(Kept::let_go);
    assert!(present.is_held());
}

#[test]
fn a_start_is_given_up_when_the_worker_stops() {
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(&format!("import tool\n{FLOWS}"));
    let kept = give(&flows.executor, "1", &[&folders.tool("1")]).unwrap();
    let go = flows.path("go");
    let (next, next_kept) = code("2", &[&slow(&folders, "2", &go)]);
    let (source, signal) = stop_channel();
    std::thread::scope(|scope| {
        let executor = &flows.executor;
        let changing = scope.spawn(move || executor.use_code_unless_stopped(next, &signal));
        begun(&go);
        let before = Instant::now();
        drop(source);
        let error = changing.join().unwrap().unwrap_err();
        assert!(matches!(error, PythonError::Stopped), "{error}");
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    });
    assert!(kept.is_held() && !next_kept.is_held());
    assert_eq!(output(&flows.run("tell"), "tell"), "1");
}

#[test]
fn the_end_of_a_worker_ends_runs_and_templates_of_all_generations() {
    let folders = CodeFolders::new();
    let (flows, first) = stage_with(&folders, "1");
    let mut kept = vec![first];
    let mut runs = Vec::new();
    let mut templates = Vec::new();
    for generation in ["2", "3", "4"] {
        runs.push(waiting(&flows, &format!("never-{generation}")).0);
        templates.push(flows.template_pid());
        kept.push(give(&flows.executor, generation, &[&folders.tool(generation)]).unwrap());
    }
    templates.push(flows.template_pid());
    assert_eq!(flows.status()["older_templates"], 3);
    assert!(kept.iter().all(Kept::is_held) && templates.iter().all(|pid| is_running(*pid)));
    runs.iter_mut().for_each(|run| run.execution.kill(Duration::ZERO));
    drop((runs, flows));
    assert!(!kept.iter().any(Kept::is_held) && !templates.iter().any(|pid| is_running(*pid)));
}

#[test]
fn a_template_that_ends_slowly_holds_no_run_up() {
    let folders = CodeFolders::new();
    let flows = PythonFlows::with(&format!("import tool\n{FLOWS}"));
    let text = "VERSION = '1'\nimport atexit, time\natexit.register(time.sleep, 3600)\n";
    let stubborn = folders.wheel("stubborn", &[("tool.py", text)]);
    let kept = give(&flows.executor, "1", &[&stubborn]).unwrap();
    let (mut run, go) = waiting(&flows, "go");
    let template = flows.template_pid();
    let _kept = give(&flows.executor, "2", &[&folders.tool("2")]).unwrap();
    assert_eq!(let_on(&mut run, &go), "1");
    drop(run);
    assert!(is_running(template) && kept.is_held(), "the run did not wait for its end");
    kept.let_go();
    assert!(!is_running(template), "it was killed before its code was let go");
}
