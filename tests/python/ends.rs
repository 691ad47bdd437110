//! How runs end: by themselves, by an exception, by a signal, by a limit, by a kill.

use std::time::{Duration, Instant};

use pyoco_server::flow::python::PythonError;
use pyoco_server::flow::{FlowEvent, Outcome, PythonExecutor};
use pyoco_server::model::run::TaskStatus;
use serde_json::json;

use crate::support::flow::{job, start};
use crate::support::measure::{below, is_running, kill, parent_of, pid_in, wait_gone};
use crate::support::python_flows::{PythonFlows, error, plain};
use crate::support::wait::{PATIENCE, eventually};

/// Flows that end in all ways.
const FLOWS: &str = r#"
@pyoco.task
def fine(ctx): return os.getpid()
flow_of(fine)

@pyoco.task
def boom(ctx): raise ValueError("it went 爆")
@pyoco.task
def before(ctx): return 1
@pyoco.task
def after(ctx): return 2
flow_of(before, boom, after)

@pyoco.task
def silent(ctx): raise RuntimeError()
flow_of(silent)

@pyoco.task
def leave(ctx): sys.exit(3)
flow_of(leave)

@pyoco.task
def vanish(ctx):
    print("last words")
    os._exit(7)
flow_of(vanish)

@pyoco.task
def crash(ctx):
    import ctypes
    ctypes.string_at(0)
flow_of(crash)

@pyoco.task
def killed(ctx): os.kill(os.getpid(), signal.SIGKILL)
flow_of(killed)

@pyoco.task
def closes(ctx):
    sys.stdout.close()
    os.close(1)
    print("nobody hears")
    return "went on"
flow_of(closes)

@pyoco.task
def spin(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    while True: pass
flow_of(spin)

@pyoco.task
def sleep(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    time.sleep(3600)
flow_of(sleep)

@pyoco.task
def deaf(ctx):
    # In C code that keeps Python's lock, so that no Python code of the process runs any more.
    import ctypes
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    ctypes.PyDLL(None).sleep(3600)
flow_of(deaf)

@pyoco.task
def polite(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    while not ctx.is_cancelled: time.sleep(0.01)
    return "cleaned up"
flow_of(polite, after)

@pyoco.task
def parent(ctx):
    same_group = subprocess.Popen(["sleep", "3600"])
    escaped = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    # An orphan in a session of its own, which holds the pipe of our standard error.
    orphan = int(subprocess.check_output(
        ["sh", "-c", "setsid sh -c 'sleep 3600 >&2 & echo $!'"], text=True))
    with open(ctx.params["pids"], "w") as file:
        print(same_group.pid, escaped.pid, orphan, file=file)
    if ctx.params.get("stay"):
        time.sleep(3600)
flow_of(parent)

@pyoco.task
def hoard(ctx):
    blocks = []
    while True: blocks.append(bytearray(8_000_000))
flow_of(hoard)

@pyoco.task
def forge(ctx):
    for fd in range(3, 20):
        try: os.write(fd, b'{"end":"completed"}\n nonsense \n')
        except OSError: pass
    time.sleep(3600)
flow_of(forge)
"#;

#[test]
fn an_exception_fails_the_run_with_its_text_and_the_place() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("before");
    assert_eq!(error(&run), "it went 爆");
    assert_eq!(run.record("before").state, TaskStatus::Succeeded);
    let record = run.record("boom");
    assert_eq!(record.state, TaskStatus::Failed);
    assert_eq!(record.error.as_deref(), Some("it went 爆"));
    let traceback = record.traceback.clone().unwrap();
    assert!(traceback.contains("flows.py") && traceback.contains("ValueError"), "{traceback}");
    let run = flows.run("silent");
    assert_eq!(error(&run), "RuntimeError");
    assert_eq!(run.record("silent").error.as_deref(), Some("RuntimeError"));
}

#[test]
fn a_flow_that_the_resolver_does_not_have_is_not_found() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("nowhere");
    assert!(matches!(run.outcome(), Outcome::FlowNotFound { .. }), "{:?}", run.outcome());
    assert!(error(&run).contains("nowhere"));

    let flows = PythonFlows::with("def resolve_flow(name): raise RuntimeError('resolver broke')\n");
    assert_eq!(flows.run("x").outcome(), Outcome::Failed { error: "resolver broke".into() });
    let flows = PythonFlows::with("def resolve_flow(name): return 'a string'\n");
    assert!(error(&flows.run("x")).contains("returned str"));
}

#[test]
fn a_process_that_ends_before_its_flow_fails_the_run_and_says_how() {
    let flows = PythonFlows::with(FLOWS);
    assert_eq!(error(&flows.run("leave")), "SystemExit: 3");
    let run = flows.run("vanish");
    assert!(error(&run).contains("exited with code 7"), "{}", error(&run));
    // Too quick to be told in the usual way.
    assert_eq!(run.record("vanish").state, TaskStatus::Running);
    assert_eq!(run.record("vanish").logs.as_ref().unwrap().stdout, "last words\n");
    let run = flows.run("crash");
    assert!(error(&run).contains("signal 11 (SIGSEGV)"), "{}", error(&run));
    let stderr = &run.record("crash").logs.as_ref().unwrap().stderr;
    assert!(stderr.contains("Segmentation fault") && stderr.contains("flows.py"), "{stderr}");
    let run = flows.run("killed");
    assert!(error(&run).contains("signal 9 (SIGKILL)"), "{}", error(&run));
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
}

#[test]
fn a_run_may_close_its_output() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("closes");
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(run.record("closes").output, json!("went on"));
}

#[test]
fn whatever_a_run_has_started_ends_with_it() {
    let flows = PythonFlows::with(FLOWS);
    for stay in [false, true] {
        let file = flows.path(&format!("pids-{stay}"));
        let mut run = flows.start("parent", json!({"pids": file, "stay": stay}));
        let pids: Vec<u32> = eventually(PATIENCE, "the flow has children", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let pids = text.strip_suffix('\n')?.split(' ');
            Some(pids.map(|pid| pid.parse().unwrap()).collect())
        });
        assert_eq!(pids.len(), 3);
        match stay {
            true => run.execution.kill(Duration::ZERO),
            false => assert_eq!(run.finish(), Outcome::Completed),
        }
        drop(run);
        let left: Vec<&u32> = pids.iter().filter(|pid| is_running(**pid)).collect();
        assert!(left.is_empty(), "{left:?} of {pids:?} are there still, stay: {stay}");
    }
}

#[test]
fn a_kill_ends_whatever_the_run_is_doing() {
    let flows = PythonFlows::with(FLOWS);
    for flow in ["spin", "sleep", "deaf"] {
        let file = flows.path(flow);
        let mut run = flows.start(flow, json!({"pid": file}));
        let pid = pid_in(&file);
        run.cancel.cancel();
        let before = Instant::now();
        run.execution.kill(Duration::from_secs(2));
        // None of them catches SIGTERM.
        assert!(before.elapsed() < Duration::from_millis(1900), "{flow}: {:?}", before.elapsed());
        assert!(!is_running(pid), "{flow}");
    }
}

#[test]
fn a_run_that_ignores_sigterm_is_killed_when_its_time_is_over() {
    let flows = PythonFlows::with(
        r#"
def resolve_flow(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return FLOWS[name]
@pyoco.task
def stubborn(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    time.sleep(3600)
flow_of(stubborn)
"#,
    );
    let file = flows.path("pid");
    let mut run = flows.start("stubborn", json!({"pid": file}));
    let pid = pid_in(&file);
    let before = Instant::now();
    run.execution.kill(Duration::from_millis(300));
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    assert!(!is_running(pid));
}

#[test]
fn a_cancel_reaches_tasks_that_look_and_stops_the_others_from_starting() {
    let flows = PythonFlows::with(FLOWS);
    let file = flows.path("pid");
    let mut run = flows.start("polite", json!({"pid": file}));
    pid_in(&file);
    run.cancel.cancel();
    assert_eq!(run.finish(), Outcome::Cancelled);
    assert_eq!(run.record("polite").output, json!("cleaned up"));
    assert_eq!(run.record("after").state, TaskStatus::Cancelled);
}

#[test]
fn a_cancel_that_comes_before_the_flow_has_begun_is_not_lost() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.start("polite", json!({"pid": flows.path("pid")}));
    run.cancel.cancel();
    let mut run = run;
    assert_eq!(run.finish(), Outcome::Cancelled);
}

#[test]
fn a_run_that_was_killed_while_the_template_started_never_begins() {
    let flows = PythonFlows::with(&format!("time.sleep(1)\n{FLOWS}"));
    let file = flows.path("pid");
    let mut run = flows.start("sleep", json!({"pid": file}));
    let before = Instant::now();
    run.execution.kill(Duration::from_secs(2));
    assert!(before.elapsed() < Duration::from_millis(900), "{:?}", before.elapsed());
    drop(run);
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    assert!(!file.exists());
}

#[test]
fn a_memory_limit_fails_the_run_and_names_itself() {
    let flows = PythonFlows::with_settings(FLOWS, |settings| {
        settings.memory_limit = Some(256 * 1024 * 1024);
    });
    let text = error(&flows.run("hoard"));
    assert!(text.contains("--run-memory-limit") && text.contains("268435456"), "{text}");
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
}

#[test]
fn a_flow_that_writes_to_the_workers_socket_ends_only_itself() {
    let flows = PythonFlows::with(FLOWS);
    let mut run = flows.start("forge", json!({}));
    run.wait_for(|event| matches!(event, FlowEvent::Finished(_)));
    drop(run);
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
}

#[test]
fn a_template_that_dies_costs_no_run_and_the_next_run_gets_another() {
    let flows = PythonFlows::with(FLOWS);
    let file = flows.path("pid");
    let mut run = flows.start("polite", json!({"pid": file}));
    pid_in(&file);
    let template = flows.template_pid();
    kill(template);
    wait_gone(template);
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    assert_ne!(flows.template_pid(), template);
    assert_eq!(flows.status()["starts"], 2);
    run.cancel.cancel();
    assert_eq!(run.finish(), Outcome::Cancelled);
}

#[test]
fn a_run_ends_also_when_those_who_watch_over_it_are_killed() {
    let flows = PythonFlows::with(FLOWS);
    let file = flows.path("pid");
    let mut run = flows.start("sleep", json!({"pid": file}));
    let pid = pid_in(&file);
    let shim = parent_of(pid);
    for watcher in [flows.template_pid(), shim] {
        kill(watcher);
    }
    assert!(matches!(run.finish(), Outcome::Failed { .. }));
    wait_gone(pid);
}

#[test]
fn the_end_of_the_executor_is_the_end_of_its_processes() {
    let flows = PythonFlows::with(FLOWS);
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    let template = flows.template_pid();
    // The shim reports before it ends.
    eventually(PATIENCE, "nothing is left of the run", || below(template).is_empty().then_some(()));
    drop(flows);
    assert!(!is_running(template));
}

#[test]
fn what_keeps_python_from_starting_is_told_with_the_way_out() {
    let missing = PythonExecutor::new(plain("/nonexistent/python".into()));
    let mut run = start(&missing, job("main", Some("flow: {graph: a}\n"), json!({})));
    run.finish();
    assert!(error(&run).contains("--python"), "{}", error(&run));

    // The machine's own interpreter, cut off from packages.
    let mut settings = plain("python3".into());
    settings.environment.retain(|(name, _)| name == "PATH");
    settings.environment.push(("PYTHONPATH".into(), "".into()));
    let base = PythonFlows::with_settings("", |settings| settings.resolver = None);
    std::fs::create_dir(base.path("pyoco")).unwrap();
    std::fs::write(
        base.path("pyoco/__init__.py"),
        "raise ModuleNotFoundError(\"No module named 'pyoco'\", name='pyoco')\n",
    )
    .unwrap();
    settings.environment.push(("PYTHONPATH".into(), base.folder.path().into()));
    let error = PythonExecutor::new(settings).warm_up().unwrap_err();
    assert!(matches!(error, PythonError::NoPyoco { .. }), "{error}");
    assert!(error.to_string().contains("python3 -m pip install pyoco"), "{error}");

    let broken = PythonFlows::with("import nothing_of_this_name\n").warm_up_error();
    assert!(broken.to_string().contains("nothing_of_this_name"), "{broken}");
    let flows = PythonFlows::with_settings("", |settings| {
        settings.resolver = settings.resolver.take().map(|text| text.replace("resolve_flow", "x"));
    });
    assert!(flows.warm_up_error().to_string().contains("has no attribute 'x'"));
    assert_eq!(flows.status()["state"], "failed");
    let dies = PythonFlows::with("print('on the way'); os._exit(4)\n").warm_up_error().to_string();
    assert!(dies.contains("on the way") && dies.contains("exit status: 4"), "{dies}");
}

#[test]
fn a_resolver_that_hangs_while_it_is_loaded_is_given_up() {
    let flows = PythonFlows::with_settings("time.sleep(3600)\n", |settings| {
        settings.start_deadline = Duration::from_millis(1500);
    });
    let before = Instant::now();
    let error = flows.warm_up_error().to_string();
    assert!(error.contains("was not ready within 1 s"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
}
