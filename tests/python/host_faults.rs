//! Faults of the machine that a worker runs on: they fail no run, and the worker says so and takes no jobs
//! until they are mended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Worker, with_flags};
use crate::support::measure::{descriptors, signal};
use crate::support::python::V08;
use crate::support::python_flows::{PythonFlows, error, write_flows};
use crate::support::wait::{PATIENCE, eventually};
use pyoco_server::flow::{Executor, Outcome};

/// Runs beside a healthy worker.
const RUNS: usize = 30;
/// From the mend of a cause to the first job; the pause before a check may have grown.
const RECOVERY: Duration = Duration::from_secs(25);
/// For what is stopped.
const SOON: Duration = Duration::from_secs(3);

const FLOWS: &str = r#"
@pyoco.task
def short(ctx): time.sleep(0.02)
flow_of(short)

@pyoco.task
def assassin(ctx):
    shim = os.getppid()
    with open(f"/proc/{shim}/stat") as stat: template = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(template, signal.SIGKILL)
flow_of(assassin)

def resolve_flow(name):
    # As a module does whose import starts threads until there are none left.
    if name == "greedy":
        import resource
        with open("/proc/self/statm") as sizes: size = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**22, size + 2**22))
        while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return FLOWS[name]
"#;

/// A broken worker beside a healthy one.
struct Pair {
    cluster: Cluster,
    broken: Worker,
    healthy: Worker,
    /// A link of a kind: the interpreter of the broken one.
    interpreter: PathBuf,
}

impl Pair {
    fn start() -> Pair {
        let cluster = Cluster::new().quick().gateway().start();
        let resolver = write_flows(cluster.folder(), FLOWS);
        let interpreter = cluster.folder().join("python");
        write_interpreter(&interpreter);
        let start = |id: &str, python: &Path| {
            let python = python.display().to_string();
            let flags = ["--python", &python, "--flow-resolver", &resolver, "--concurrency", "2"];
            cluster.start_worker(id, with_flags(&flags))
        };
        let (broken, healthy) = (start("broken", &interpreter), start("healthy", &V08.path()));
        Pair { broken, healthy, cluster, interpreter }
    }

    fn template(&self) -> u32 {
        let ready = self
            .cluster
            .wait_record("broken", "has a template", |record| record["python"]["state"] == "ready");
        ready["python"]["pid"].as_u64().unwrap().try_into().unwrap()
    }

    fn submit(&self) -> Vec<String> {
        (0..RUNS).map(|_| self.cluster.submit_flow("default", "short", json!({}))).collect()
    }

    /// All of them complete, most of them elsewhere, and everybody sees why.
    fn is_unavailable(&self, runs: &[String], reason: &str) {
        let record = eventually(PATIENCE, "it is unavailable", || {
            let workers = self.cluster.get("/workers?state=UNAVAILABLE").json();
            workers.as_array().unwrap().first().cloned()
        });
        assert_eq!(record["worker_id"], "broken", "{record}");
        let told = record["unavailable_reason"].as_str().unwrap();
        assert!(told.contains(reason), "{told}");
        let metrics = self.cluster.get("/metrics").text();
        assert!(metrics.contains("pyoco_worker_healthy{worker=\"broken\"} 0\n"), "{metrics}");
        assert!(metrics.contains("pyoco_worker_healthy{worker=\"healthy\"} 1\n"), "{metrics}");
        for run_id in runs {
            self.cluster.ended_as(run_id, "COMPLETED");
        }
        assert!(self.broken.stderr().contains("this worker cannot execute runs"));
    }

    /// After the mend it takes jobs again; the other one is stopped, so nobody else can.
    fn recovers(mut self) {
        self.healthy.stop(PATIENCE);
        let run_id = self.cluster.submit_flow("default", "short", json!({}));
        let ended = eventually(RECOVERY, "it takes jobs again", || {
            let run = self.cluster.get(&format!("/runs/{run_id}")).json();
            (run["status"] != "PENDING" && run["status"] != "RUNNING").then_some(run)
        });
        assert_eq!((&ended["status"], &ended["worker_id"]), (&json!("COMPLETED"), &json!("broken")));
        self.cluster.wait_record("broken", "is well", |record| record["unavailable_reason"] == Value::Null);
    }
}

/// A link would not find the packages beside the interpreter.
fn write_interpreter(path: &Path) {
    fs::write(path, format!("#!/bin/sh\nexec '{}' \"$@\"\n", V08.path().display())).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_removed_interpreter_fails_no_run() {
    let pair = Pair::start();
    let template = pair.template();
    fs::remove_file(&pair.interpreter).unwrap();
    signal(template, Signal::KILL);
    let runs = pair.submit();
    // It is found by the start of a template, or by a look at the machine after a run.
    pair.is_unavailable(&runs, "the Python interpreter");
    write_interpreter(&pair.interpreter);
    pair.recovers();
}

#[test]
fn a_removed_working_directory_fails_no_run() {
    let pair = Pair::start();
    pair.template();
    let folder = pair.broken.folder.path().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    let runs = pair.submit();
    pair.is_unavailable(&runs, "working directory");
    // Another directory under the name of the first.
    fs::create_dir(&folder).unwrap();
    pair.recovers();
}

#[test]
fn a_lack_of_descriptors_fails_no_run() {
    let pair = Pair::start();
    pair.template();
    let pid = Pid::from_raw(pair.broken.pid().try_into().unwrap());
    let before = getrlimit(Resource::Nofile);
    let open = descriptors(pair.broken.pid()) as u64;
    let limit = |count| {
        let limit = Rlimit { current: Some(count), maximum: before.maximum };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    limit(open / 2);
    let runs = pair.submit();
    pair.is_unavailable(&runs, "open files");
    limit(before.current.unwrap_or(1024));
    pair.recovers();
}

#[test]
fn an_unwritable_working_directory_ends_the_start() {
    let cluster = Cluster::new().quick().start();
    let resolver = write_flows(cluster.folder(), FLOWS);
    // What pyoco wants to be a folder is a file; for root no folder is unwritable.
    let python = V08.path().display().to_string();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("artifacts"), "").unwrap();
    let mut command = cluster.place(crate::support::process::Binary::Worker.command());
    command.args(["--python", &python, "--flow-resolver", &resolver]).current_dir(place.path());
    let ended = crate::support::process::run(&mut command, b"", PATIENCE);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("artifacts"), "{ended:?}");
}

#[test]
fn the_check_goes_the_way_of_a_run() {
    let (_stop, stopped) = pyoco_server::thread::stop_channel();
    let flows = PythonFlows::with(FLOWS);
    flows.executor.check(&stopped).unwrap();
    assert_eq!(flows.status()["starts"], 1);
    // A template that has lost its means is replaced, since a new one may have them.
    let template = flows.template_pid();
    let limit = Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Pid::from_raw(template.try_into().unwrap()), Resource::Nofile, limit).unwrap();
    let run = flows.run("short");
    assert!(matches!(run.outcome(), Outcome::HostFault { has_begun: false, .. }), "{}", error(&run));
    flows.executor.check(&stopped).unwrap_err();
    flows.executor.check(&stopped).unwrap();
    assert_eq!(flows.run("short").outcome(), Outcome::Completed);
}

#[test]
fn a_check_that_waits_for_a_frozen_template_ends_with_the_worker() {
    let flows = PythonFlows::with(FLOWS);
    flows.executor.warm_up().unwrap();
    let template = flows.template_pid();
    signal(template, Signal::STOP);
    let (stop, stopped) = pyoco_server::thread::stop_channel();
    let executor = flows.executor.clone();
    let check = std::thread::spawn(move || executor.check(&stopped));
    // It waits for a minute, and nothing tells when it has begun to.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!check.is_finished());
    drop(stop);
    eventually(SOON, "the check ends", || check.is_finished().then_some(()));
    signal(template, Signal::KILL);
}

#[test]
fn a_flow_that_breaks_its_machine_before_its_tasks_are_known_ends() {
    let flows = PythonFlows::with(FLOWS);
    let run = flows.run("greedy");
    assert!(matches!(run.outcome(), Outcome::HostFault { has_begun: true, .. }), "{}", error(&run));
    let cluster = Cluster::new().quick().gateway().start();
    let resolver = write_flows(cluster.folder(), FLOWS);
    let python = V08.path().display().to_string();
    let flags = ["--python", &python, "--flow-resolver", &resolver, "--concurrency", "2"];
    let _worker = cluster.start_worker("w1", with_flags(&flags));
    let run_id = cluster.submit_flow("default", "greedy", json!({}));
    let ended = eventually(RECOVERY, "it ends", || {
        let run = cluster.get(&format!("/runs/{run_id}")).json();
        (run["status"] != "PENDING" && run["status"] != "RUNNING").then_some(run)
    });
    assert_eq!(ended["status"], "FAILED", "{ended}");
    assert!(ended["error"].as_str().unwrap().contains("can't start new thread"), "{ended}");
    let other = cluster.submit_flow("default", "short", json!({}));
    cluster.ended_as(&other, "COMPLETED");
}

#[test]
fn a_flow_that_kills_the_template_again_and_again_is_no_fault_of_the_host() {
    let cluster = Cluster::new().quick().gateway().start();
    let resolver = write_flows(cluster.folder(), FLOWS);
    let python = V08.path().display().to_string();
    let flags = ["--python", &python, "--flow-resolver", &resolver, "--concurrency", "2"];
    let worker = cluster.start_worker("w1", with_flags(&flags));
    for _ in 0..4 {
        let killer = cluster.submit_flow("default", "assassin", json!({}));
        let ended = cluster.ended(&killer);
        assert_ne!(ended["status"], "CANCELLED");
        let other = cluster.submit_flow("default", "short", json!({}));
        assert_eq!(cluster.ended_as(&other, "COMPLETED")["attempt"], 1);
    }
    assert!(!worker.stderr().contains("cannot execute runs"), "{}", worker.stderr());
}
