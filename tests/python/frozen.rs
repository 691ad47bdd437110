//! A worker that stands still: no run of it goes on beside the one that another worker executes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Worker, with_flags};
use crate::support::measure::{below, signal, wait_gone};
use crate::support::python::V08;
use crate::support::python_flows::write_flows;
use crate::support::wait::{PATIENCE, eventually};

/// Notes its process and the time every 100 ms until it is let go.
const FLOWS: &str = r#"
@pyoco.task
def note(ctx):
    while not os.path.exists(ctx.params["go"]):
        with open(ctx.params["notes"], "a") as notes: print(os.getpid(), time.time(), file=notes)
        time.sleep(0.1)
flow_of(note)
"#;
/// Silence after which a gateway gives a job back, and what comes after it.
const RESCUED: Duration = Duration::from_secs(30);
/// What a run may do between the moment in which it goes on and its end: a line, or two.
const MOMENT: usize = 2;

struct Notes {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Notes {
    fn start() -> Notes {
        Notes::start_with(&[])
    }

    fn start_with(env: &[(&str, &str)]) -> Notes {
        let cluster = Cluster::new().quick().envs(env).gateway().start();
        Notes { cluster, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn worker(&self, id: &str) -> Worker {
        std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let resolver = write_flows(self.folder.path(), FLOWS);
        let python = V08.path().display().to_string();
        // A frozen worker with a free place would be given the job that it is to lose.
        let flags = ["--concurrency", "1", "--flow-resolver", &resolver, "--python", &python];
        self.cluster.start_worker(id, with_flags(&flags))
    }

    fn submit(&self) -> String {
        let params = json!({"notes": self.file("notes"), "go": self.file("go")});
        self.cluster.submit_flow("default", "note", params)
    }

    /// What each process of a run has noted, in the order in which they began.
    fn by_process(&self) -> Vec<(u32, Vec<f64>)> {
        let mut all: Vec<(u32, Vec<f64>)> = Vec::new();
        for line in std::fs::read_to_string(self.file("notes")).unwrap_or_default().lines() {
            let Some((pid, time)) = line.split_once(' ') else { continue };
            let (Ok(pid), Ok(time)) = (pid.parse(), time.parse()) else { continue };
            match all.iter_mut().find(|(known, _)| *known == pid) {
                Some((_, times)) => times.push(time),
                None => all.push((pid, vec![time])),
            }
        }
        all
    }

    /// Waits until so many processes have begun, and the last of them has noted some lines.
    fn wait_processes(&self, count: usize) -> u32 {
        eventually(RESCUED, &format!("{count} processes that note"), || {
            let all = self.by_process();
            (all.len() >= count && all[count - 1].1.len() >= 5).then(|| all[count - 1].0)
        })
    }

    fn let_go(&self) {
        write(&self.file("go"));
    }

    /// Of two processes the second one has begun after the first one had done its last.
    fn assert_apart(&self) {
        let all = self.by_process();
        let [(_, first), (_, second)] = &all[..] else { panic!("{all:?}") };
        assert!(first.last() < second.first(), "{:?} and {:?}", first.last(), second.first());
    }
}

fn write(path: &Path) {
    std::fs::write(path, "").unwrap();
}

#[test]
fn a_run_of_a_frozen_worker_ends_before_another_worker_begins_it() {
    let notes = Notes::start();
    let first = notes.worker("first");
    let run = notes.submit();
    let frozen = notes.wait_processes(1);
    let _second = notes.worker("second");
    first.signal(Signal::STOP);
    notes.wait_processes(2);
    notes.assert_apart();
    wait_gone(frozen);
    // The worker that goes on finds that it has lost the run, and says nothing of it.
    first.signal(Signal::CONT);
    let record = |record: &Value| record["current_run_ids"].as_array().is_none_or(Vec::is_empty);
    notes.cluster.wait_record("first", "leaves the run", record);
    notes.let_go();
    let history = notes.cluster.settled(&run, "COMPLETED");
    assert_eq!((&history.last()["worker_id"], &history.last()["attempt"]), (&json!("second"), &json!(2)));
    notes.assert_apart();
}

#[test]
fn a_run_that_was_frozen_with_its_worker_does_not_go_on() {
    let notes = Notes::start();
    let first = notes.worker("first");
    let run = notes.submit();
    let frozen = notes.wait_processes(1);
    let _second = notes.worker("second");
    // As a suspended machine: all of them at once, and the run goes on first.
    let mut processes: Vec<u32> = below(first.pid()).into_iter().map(|(pid, _)| pid).collect();
    processes.retain(|pid| *pid != frozen);
    assert!(processes.len() >= 2, "{processes:?}");
    processes.insert(0, frozen);
    processes.push(first.pid());
    processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let before = notes.by_process()[0].1.len();
    notes.wait_processes(2);
    processes.iter().for_each(|pid| signal(*pid, Signal::CONT));
    wait_gone(frozen);
    let noted = notes.by_process()[0].1.len();
    assert!(noted <= before + MOMENT, "{before} and then {noted} lines");
    notes.let_go();
    let history = notes.cluster.settled(&run, "COMPLETED");
    assert_eq!(history.last()["worker_id"], "second");
}

#[test]
fn a_run_that_no_other_worker_has_taken_is_given_back_and_begins_again() {
    let notes = Notes::start();
    let only = notes.worker("only");
    let run = notes.submit();
    let frozen = notes.wait_processes(1);
    only.signal(Signal::STOP);
    wait_gone(frozen);
    only.signal(Signal::CONT);
    notes.wait_processes(2);
    notes.assert_apart();
    notes.let_go();
    let history = notes.cluster.settled(&run, "COMPLETED");
    assert!(notes.cluster.dlq().is_empty(), "{:?}", notes.cluster.dlq());
    assert_eq!(history.last()["attempt"], 2);
}

#[test]
fn a_frozen_template_costs_no_run_that_has_begun() {
    let notes = Notes::start();
    let _only = notes.worker("only");
    let run = notes.submit();
    let process = notes.wait_processes(1);
    let template = notes.cluster.record("only").unwrap()["python"]["pid"].as_u64().unwrap() as u32;
    signal(template, Signal::STOP);
    // Longer than a lease.
    let begun = std::time::Instant::now();
    eventually(PATIENCE, "time for a lease to run out", || {
        (begun.elapsed() > Duration::from_secs(5)).then_some(())
    });
    notes.let_go();
    notes.cluster.wait_stored(&run, "COMPLETED");
    signal(template, Signal::CONT);
    wait_gone(process);
    assert_eq!(notes.by_process().len(), 1);
}

#[test]
fn a_worker_that_has_lost_nats_ends_its_runs_when_it_is_told_to() {
    let ack_wait = ("PYOCO_CONSUMER_ACK_WAIT_SEC", "4");
    let notes = Notes::start_with(&[
        ack_wait,
        ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "1"),
        ("PYOCO_LOST_NATS", "stop:2"),
    ]);
    let _only = notes.worker("only");
    let run = notes.submit();
    let process = notes.wait_processes(1);
    notes.cluster.nats.pause();
    wait_gone(process);
    notes.cluster.nats.resume();
    // It takes runs again, and this one from its beginning.
    notes.wait_processes(2);
    notes.assert_apart();
    notes.let_go();
    let history = notes.cluster.settled(&run, "COMPLETED");
    assert!(notes.cluster.dlq().is_empty(), "{:?}", notes.cluster.dlq());
    assert!(history.last()["attempt"].as_u64().unwrap() >= 2);
}
