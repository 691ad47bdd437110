//! What a run has started ends with it, and has its time to do so; nothing of it asks at a terminal.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pyoco_server::flow::Outcome;
use serde_json::json;

use crate::support::measure::wait_gone;
use crate::support::python::V08;
use crate::support::python_flows::PythonFlows;
use crate::support::wait::{PATIENCE, eventually};

const FLOWS: &str = r#"
import atexit, logging.handlers, multiprocessing.shared_memory

@pyoco.task
def asks(ctx):
    told = {}
    try: told["tty"] = open("/dev/tty").name
    except OSError as error: told["tty"] = type(error).__name__
    import getpass
    try: told["getpass"] = getpass.getpass()
    except BaseException as error: told["getpass"] = type(error).__name__
    told["shell"] = subprocess.run("read line < /dev/tty", shell=True).returncode != 0
    told["leads"] = os.getsid(0) == os.getpid()
    return told
flow_of(asks)

SLOW = """
import os, signal, sys, time
def end(*_):
    time.sleep(1)
    open(sys.argv[1], "w").write("cleaned up")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + ".up", "w").close()
while True: time.sleep(60)
"""
def slow_child(path):
    child = subprocess.Popen([sys.executable, "-c", SLOW, path])
    while not os.path.exists(path + ".up"): time.sleep(0.01)
    return child
@pyoco.task
def leaves(ctx): return slow_child(ctx.params["path"]).pid
flow_of(leaves)
@pyoco.task
def waits(ctx): slow_child(ctx.params["path"]).wait()
flow_of(waits)

@pyoco.task
def shares(ctx):
    return multiprocessing.shared_memory.SharedMemory(create=True, size=1000).name
flow_of(shares)

@pyoco.task
def registers(ctx):
    memory = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(ctx.params["log"]))
    logger = logging.getLogger("buffered")
    logger.addHandler(memory)
    logger.warning("the last line")
    atexit.register(lambda: open(ctx.params["exit"], "w").close())
flow_of(registers)

@pyoco.task
def never_leaves(ctx):
    atexit.register(time.sleep, 3600)
    return os.getpid()
flow_of(never_leaves)

@pyoco.task
def forks(ctx):
    child = os.fork()
    if child == 0:
        print("from the child")
        return "the child returns"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
flow_of(forks)
@pyoco.task
def forks_badly(ctx):
    child = os.fork()
    if child == 0: raise ValueError("in the child")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
flow_of(forks_badly)
"#;

/// Puts the interpreter below a terminal, as a worker that was started in one does.
fn in_a_terminal(folder: &Path) -> String {
    let python = V08.path();
    let script = format!(
        "#!{python}
import fcntl, os, sys, termios
master, slave = os.openpty()
if os.fork() == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    if os.fork() == 0:
        os.execv({python:?}, [{python:?}, *sys.argv[1:]])
    os.wait()
    os._exit(0)
os.wait()
",
        python = python.to_str().unwrap()
    );
    let path = folder.join("in-a-terminal");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn nothing_asks_at_the_terminal_of_the_worker() {
    let place = tempfile::tempdir().unwrap();
    let flows =
        PythonFlows::with_settings(FLOWS, |settings| settings.interpreter = in_a_terminal(place.path()));
    let run = flows.run("asks");
    assert_eq!(run.outcome(), Outcome::Completed);
    let told = json!({"tty": "OSError", "getpass": "EOFError", "shell": true, "leads": true});
    assert_eq!(run.record("asks").output, told);
}

#[test]
fn what_a_run_has_left_may_clean_up() {
    let flows = PythonFlows::with(FLOWS);
    let path = flows.path("clean");
    let run = flows.run_with("leaves", json!({"path": path}));
    assert_eq!(run.outcome(), Outcome::Completed);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "cleaned up");
    wait_gone(run.record("leaves").output.as_u64().unwrap() as u32);
}

#[test]
fn children_have_their_grace_also_when_the_run_has_died_of_its_own() {
    let flows = PythonFlows::with(FLOWS);
    let path = flows.path("clean");
    let mut run = flows.start("waits", json!({"path": path}));
    eventually(PATIENCE, "the child is up", || flows.path("clean.up").exists().then_some(()));
    run.execution.kill(Duration::from_secs(2));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "cleaned up");
}

#[test]
fn shared_memory_goes_with_its_run() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("shares");
    let name = run.record("shares").output.as_str().unwrap().to_owned();
    assert!(!Path::new("/dev/shm").join(&name).exists(), "{name} is left");
}

#[test]
fn handlers_of_the_end_are_called_within_a_time() {
    let flows = PythonFlows::with(FLOWS);
    let (log, exit) = (flows.path("log"), flows.path("exit"));
    let run = flows.run_with("registers", json!({"log": log, "exit": exit}));
    assert_eq!(run.outcome(), Outcome::Completed);
    assert!(exit.exists());
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "the last line\n");
    let began = Instant::now();
    let run = flows.run("never_leaves");
    assert_eq!(run.outcome(), Outcome::Completed);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    wait_gone(run.record("never_leaves").output.as_u64().unwrap() as u32);
}

#[test]
fn a_copy_that_a_task_has_forked_ends_where_the_task_does() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("forks");
    assert_eq!((run.outcome(), &run.record("forks").output), (Outcome::Completed, &json!(0)));
    assert!(run.record("forks").logs.as_ref().unwrap().stdout.contains("from the child"));
    let run = flows.run("forks_badly");
    assert_eq!((run.outcome(), &run.record("forks_badly").output), (Outcome::Completed, &json!(1)));
}
