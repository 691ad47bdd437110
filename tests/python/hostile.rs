//! Resolvers that do what they should not, and starts that fail: the error says what it was.

use std::time::{Duration, Instant};

use pyoco_server::flow::Outcome;
use serde_json::json;

use crate::support::measure::{below, is_running, pid_in};
use crate::support::python_flows::{PythonFlows, error};
use crate::support::wait::{PATIENCE, eventually};

const FLOWS: &str = r#"
@pyoco.task
def fine(ctx): return os.getpid()
flow_of(fine)

@pyoco.task
def spin(ctx):
    with open(ctx.params["pid"], "w") as file: print(os.getpid(), file=file)
    while True: pass
flow_of(spin)
"#;

#[test]
fn a_resolver_that_prints_for_ever_keeps_nobody_from_working() {
    let flows = PythonFlows::with(&format!(
        "def chatter():
    while True: os.write(2, b'chatter\\n' * 1000)
threading.Thread(target=chatter, daemon=True).start()
{FLOWS}"
    ));
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    let template = flows.template_pid();
    let before = Instant::now();
    drop(flows);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert!(!is_running(template));
}

#[test]
fn what_a_resolver_does_to_signals_stays_without_effect() {
    let flows = PythonFlows::with(&format!(
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
{FLOWS}
@pyoco.task
def child(ctx): return subprocess.run(['sh', '-c', 'exit 3']).returncode
flow_of(child)
"
    ));
    let run = flows.run("child");
    assert_eq!(run.record("child").output, json!(3));
    let file = flows.path("pid");
    let mut run = flows.start("spin", json!({"pid": file}));
    pid_in(&file);
    let before = Instant::now();
    run.execution.kill(Duration::from_secs(5));
    assert!(before.elapsed() < Duration::from_secs(4), "SIGTERM does not reach the run");
    let template = flows.template_pid();
    eventually(PATIENCE, "no zombie is left", || below(template).is_empty().then_some(()));
}

#[test]
fn a_run_that_cannot_be_forked_says_so() {
    let flows = PythonFlows::with(
        "
real, template = os.fork, os.getpid()
def fork():
    if os.getpid() == template: return real()
    raise BlockingIOError(11, 'Resource temporarily unavailable')
os.fork = fork
",
    );
    let run = flows.run("fine");
    assert!(error(&run).contains("Resource temporarily unavailable"), "{}", error(&run));
}

#[test]
fn a_resolver_that_holds_all_descriptors_costs_runs_and_not_the_template() {
    let flows = PythonFlows::with(&format!(
        "import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
held = []
def resolve_flow(name): return FLOWS[name]
def hold():
    try:
        while True: held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError: pass
    os.close(held.pop())
    os.close(held.pop())
threading.Timer(0.3, hold).start()
{FLOWS}"
    ));
    assert_eq!(flows.run("fine").outcome(), Outcome::Completed);
    let template = flows.template_pid();
    eventually(PATIENCE, "descriptors run out", || {
        (std::fs::read_dir(format!("/proc/{template}/fd")).unwrap().count() > 150).then_some(())
    });
    let text = error(&flows.run("fine"));
    assert!(text.contains("descriptors"), "{text}");
    assert_eq!(flows.status()["starts"], 1);
}

#[test]
fn a_resolver_with_a_thousand_files_does_not_disturb_the_end_of_a_run() {
    let flows = PythonFlows::with(&format!(
        "import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [os.open('/dev/null', os.O_RDONLY) for _ in range(1500)]
{FLOWS}
@pyoco.task
def leave(ctx): subprocess.Popen(['sleep', '3600'])
flow_of(leave)
@pyoco.task
def die(ctx):
    subprocess.Popen(['sleep', '3600'])
    os._exit(9)
flow_of(die)
"
    ));
    assert_eq!(flows.run("leave").outcome(), Outcome::Completed);
    let text = error(&flows.run("die"));
    assert!(text.contains("code 9"), "{text}");
}

#[test]
fn an_error_of_the_resolver_may_be_long_and_in_any_language() {
    for letter in ["失", "😀", "\\n"] {
        let flows = PythonFlows::with(&format!("def f(): raise RuntimeError('{letter}' * 50_000)\nf()\n"));
        let text = flows.warm_up_error().to_string();
        assert!(text.contains("RuntimeError"), "{}", text.len());
    }
}

#[test]
fn a_template_starts_where_there_is_no_folder_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("python");
    let flows = PythonFlows::with_settings(FLOWS, |settings| {
        let real = std::mem::replace(&mut settings.interpreter, script.display().to_string());
        let gone = "cd \"$(mktemp -d)\" && rmdir \"$PWD\"";
        std::fs::write(&script, format!("#!/bin/sh\n{gone}\nexec {real} \"$@\"\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&script, mode).unwrap();
    });
    // Pyoco wants to make a folder for artifacts.
    let text = error(&flows.run("fine"));
    assert!(text.contains("artifacts"), "{text}");
}
