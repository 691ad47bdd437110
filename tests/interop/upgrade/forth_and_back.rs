//! The whole way: the older release, both, this one, both, the older one, under load and with deaths.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use super::oracle::{self, MIXED, Oracle, PYTHON, RUST};
use super::{Fleet, Older, SOON, This};
use crate::support::cluster::{Cluster, Options, Worker};
use crate::support::http::Client;
use crate::support::jetstream;
use crate::support::previous::Previous;
use crate::support::process::Running;
use crate::support::python::package_program;
use crate::support::runs::ids;
use crate::support::wait::{PATIENCE, eventually};

/// For a drain, whose runs take a tenth of a second.
const DRAIN: Duration = Duration::from_secs(20);

/// What a run shows of itself over HTTP, whichever gateway is asked.
const SHOWN: [&str; 11] = [
    "run_id",
    "flow_name",
    "tag",
    "tags",
    "status",
    "params",
    "tasks",
    "start_time",
    "end_time",
    "error",
    "cancel_requested_at",
];

#[test]
fn every_accepted_run_ends_on_the_way_forth_and_back() {
    let Some(previous) = Previous::find() else { return };
    let cluster = Cluster::new().envs(&SOON).start();
    let oracle = Oracle::new(cluster.folder().join("executed"));
    let flows = oracle::flows(&cluster.folder().join("executed"));
    let fleet = Fleet::new(previous, cluster, &flows);
    let oracle = &oracle;
    std::thread::scope(|scope| {
        let _end = EndOnDrop(oracle);
        // The older release alone, beside Python.
        fleet.admin(Older, "init");
        let before = fleet.resources();
        let started = scope.spawn(|| fleet.cluster.start_python_gateway(Options::default()));
        let program = package_program("pyoco-worker");
        let _python = fleet.cluster.start_python_worker_with(program, MIXED, Options::default());
        let mut older = fleet.gateway(Older);
        let client = older.client();
        let first = scope.spawn(move || oracle.client("older", &client, true));
        let mut killed = fleet.worker(Older, "older-1", &format!("{MIXED},{RUST},forth"), &[]);
        let mut drained = fleet.worker(Older, "older-2", &format!("{MIXED},{RUST}"), &[]);
        let python = started.join().unwrap();
        let client = python.client();
        let second = scope.spawn(move || oracle.client(PYTHON, &client, false));
        let forth = oracle.hold(&older, "forth");
        oracle.wait_executions(5);

        // Both, on what the older release has made.
        fleet.assert_well();
        let mut newer = fleet.gateway(This);
        let client = newer.client();
        let third = scope.spawn(move || oracle.client("newer", &client, true));
        let mut newer_killed = fleet.worker(This, "newer-1", &format!("{MIXED},{RUST},back"), &[]);
        let mut newer_drained = fleet.worker(This, "newer-2", &format!("{MIXED},{RUST},forth"), &[]);
        oracle.wait_executions(10);
        let mut twice = kill(&fleet, &mut killed);
        assert!(twice.contains(&forth));
        drain(&mut drained);
        older.stop();

        // This release alone.
        oracle.wait_executions(10);
        let back = oracle.hold(&newer, "back");

        // Both again. This release takes over the run of a worker of the older one.
        older.restart();
        let mut last = fleet.worker(Older, "older-3", &format!("{MIXED},{RUST},back"), &[]);
        oracle.wait_executions(10);
        let taken = kill(&fleet, &mut newer_killed);
        assert!(taken.contains(&back));
        twice.extend(taken);
        let run = newer.ended_as(&forth, "COMPLETED");
        assert_eq!((&run["worker_id"], &run["lost_attempts"]), (&"newer-2".into(), &1.into()), "{run}");
        drain(&mut newer_drained);
        newer.stop();

        // The older release alone. It takes over the run of a worker of this one.
        oracle.wait_executions(10);
        let run = older.ended_as(&back, "COMPLETED");
        assert_eq!(run["worker_id"], "older-3", "{run}");

        oracle.end();
        for client in [first, second, third] {
            client.join().unwrap();
        }
        let ended = all_ended(&fleet, oracle);
        oracle.assert_right(&ended, &twice);
        fleet.cluster.wait_queue_empty();
        assert_eq!(fleet.cluster.dlq(), Vec::<Value>::new());

        // Each gateway shows the same, and nobody has changed what the first `init` has made.
        newer.restart();
        newer.wait_live();
        let count = oracle.accepted().len();
        let executed = oracle.executions().len();
        println!("{count} runs accepted, {executed} executed, {} of killed workers", twice.len());
        let pages = [&older, &newer, &python].map(|gateway| all_pages(gateway));
        for ids in &pages {
            assert_eq!(ids.len(), count);
            assert_eq!(ids, &pages[0]);
        }
        for run_id in pages[0].iter().step_by(7).chain([&forth, &back]) {
            let [older, newer, python] = [&older, &newer, &python].map(|gateway| {
                let run = gateway.get_json(&format!("/runs/{run_id}"));
                SHOWN.map(|field| run.get(field).cloned().unwrap_or_default())
            });
            assert_eq!(older, newer);
            assert_eq!(python, newer);
        }
        // The cursor of one gateway is understood by the other one.
        for (first, second) in [(&older, &newer), (&newer, &older)] {
            let page = first.get_json("/runs?limit=5&cursor=");
            let cursor = page["next_cursor"].as_str().unwrap();
            let page = second.get_json(&format!("/runs?limit=5&cursor={cursor}"));
            assert_eq!(ids(&page), pages[0][5..10]);
        }
        fleet.assert_well();
        fleet.admin(Older, "doctor");
        fleet.assert_has(&before);
        drain(&mut last);
    });
}

/// SIGKILL; the runs that the worker had at that moment, as NATS knows them.
fn kill(fleet: &Fleet, worker: &mut Worker) -> HashSet<String> {
    worker.kill();
    let id = worker.id.clone();
    let runs = stored(fleet).into_iter();
    runs.filter(|run| run["worker_id"] == id.as_str() && run["end_time"].is_null())
        .map(|run| run["run_id"].as_str().unwrap().to_owned())
        .collect()
}

fn drain(worker: &mut Running) {
    assert_eq!(worker.stop(DRAIN).code(), Some(0));
}

fn stored(fleet: &Fleet) -> Vec<Value> {
    let stored = jetstream::all(&fleet.cluster.nats, "KV_pyoco_runs", "$KV.pyoco_runs.>");
    stored.iter().filter(|message| !message.data.is_empty()).map(jetstream::Stored::json).collect()
}

/// Waits for the end of every run that was accepted; how each has ended.
fn all_ended(fleet: &Fleet, oracle: &Oracle) -> BTreeMap<String, String> {
    eventually(PATIENCE, "every accepted run has ended", || {
        let ended: BTreeMap<String, String> = stored(fleet)
            .iter()
            .filter(|run| ["COMPLETED", "FAILED", "CANCELLED"].iter().any(|end| run["status"] == *end))
            .map(|run| ["run_id", "status"].map(|field| run[field].as_str().unwrap().to_owned()))
            .map(|[run_id, status]| (run_id, status))
            .collect();
        oracle.accepted().iter().all(|run| ended.contains_key(&run.run_id)).then_some(ended)
    })
}

/// The Python gateway sometimes finds no run at all for a moment, and says so with a 503.
fn all_pages(gateway: &Client) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = gateway.wait_answer(&format!("/runs?limit=200&cursor={cursor}"), 200).json();
        all.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return all,
        }
    }
}

/// The clients end when the test does, also when it fails.
struct EndOnDrop<'a>(&'a Oracle);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
