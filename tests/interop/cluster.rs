//! The cluster of these tests, and waits that the Python worker needs.

use std::time::Duration;

use pyoco_server::model::clock;

use crate::flows::{FLOWS_PY, STEPS_PY};
use crate::support::cluster::{Cluster, Gateway};

/// Longest wait for a run: a delivery that the Python worker loses comes again after 30 s.
const RUN_DEADLINE: Duration = Duration::from_secs(75);

/// A nats-server, and a folder with the flows. Gateways and workers of either side are put on it.
pub fn cluster_with_flows() -> Cluster {
    let cluster = Cluster::new().run_deadline(RUN_DEADLINE).start();
    cluster.write("flows.py", FLOWS_PY);
    cluster.write("steps.py", STEPS_PY);
    cluster
}

/// Waits until nothing is written to ended runs any more, which moves them in lists: the Python worker
/// repeats the last snapshot of a run for half a second.
pub fn wait_at_rest(gateway: &Gateway, run_ids: &[&str]) {
    for run_id in run_ids {
        gateway.wait_run(run_id, "to rest", |run| {
            run["updated_at"].as_f64().is_some_and(|at| clock::now() - at > 1.5)
        });
    }
}

/// Waits until a task of a run is RUNNING.
pub fn wait_task(gateway: &Gateway, run_id: &str, task: &str) {
    gateway.wait_run(run_id, "to execute its task", |run| run["tasks"][task] == "RUNNING");
}

/// The same for a run of the Python worker, which must not be cancelled at once: what it writes a quarter of
/// a second after a task has started overwrites a cancel that came in between.
pub fn wait_python_task(gateway: &Gateway, run_id: &str, task: &str) {
    gateway.wait_run(run_id, "to execute its task", |run| {
        let started = run["task_records"][task]["started_at"].as_f64();
        let written = run["heartbeat_at"].as_f64();
        let is_late = started.zip(written).is_some_and(|(began, now)| now > began + 0.2);
        run["tasks"][task] == "RUNNING" && is_late
    });
}
