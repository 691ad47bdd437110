//! Rows that leave NATS without a word: an age, a limit, a purge by a tool.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::events::Events;
use crate::support::jetstream;
use crate::support::runs::{completed, document};
use crate::support::wait::eventually;
use crate::workers::python_record;

/// Twice the interval of the comparison.
const SOON: Duration = Duration::from_secs(15);

fn wait_runs(cluster: &Cluster, wanted: &[&str]) {
    eventually(SOON, &format!("the runs {wanted:?}"), || {
        let mut listed = crate::support::runs::ids(&cluster.get_json("/runs"));
        listed.sort();
        (listed == wanted).then_some(())
    });
    for run_id in wanted {
        assert_eq!(cluster.get(&format!("/runs/{run_id}")).status, 200, "{run_id}");
    }
    assert_eq!(cluster.metric("pyoco_runs{status=\"COMPLETED\"}"), wanted.len() as f64);
}

#[test]
fn runs_that_are_purged_or_grow_old_are_gone_from_lists_and_figures() {
    let cluster = Cluster::with_gateway();
    for run_id in ["a", "b", "c", "d"] {
        cluster.put(run_id, &document(run_id, 1.0, completed));
    }
    wait_runs(&cluster, &["a", "b", "c", "d"]);
    let mut stream: Events = cluster.events("/events");
    jetstream::call(&cluster.nats, "STREAM.PURGE.KV_pyoco_runs", &json!({"filter": "$KV.pyoco_runs.c"}));
    wait_runs(&cluster, &["a", "b", "d"]);
    assert_eq!(cluster.get("/runs/c").status, 404);
    assert_eq!(stream.named("run_removed").data["run_id"], "c");
    // A limit, and then an age.
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| {
        config["max_msgs"] = 2.into();
        config["discard"] = "old".into();
    });
    wait_runs(&cluster, &["b", "d"]);
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| {
        config["max_age"] = 1_000_000_000.into();
        config["duplicate_window"] = 1_000_000_000.into();
    });
    wait_runs(&cluster, &[]);
}

#[test]
fn workers_whose_records_expire_are_gone() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKERS_KV_TTL_SEC", "2")]);
    jetstream::wait_bucket(&cluster.nats, "pyoco_workers");
    let record = python_record("w", "IDLE", pyoco_server::model::clock::now());
    cluster.bus.workers().put("w", record.to_string().as_bytes()).unwrap();
    cluster.wait_worker("w");
    eventually(SOON, "the worker to be gone", || {
        (cluster.get("/workers?scope=all").text() == "[]").then_some(())
    });
    assert_eq!(cluster.metric("pyoco_workers{state=\"IDLE\"}"), 0.0);
}
