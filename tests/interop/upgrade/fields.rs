//! What one side writes and the other does not know: it stays, or nothing depends on it.

use pyoco_server::model::clock;
use pyoco_server::model::job::requeued;
use pyoco_server::model::json as wire;
use serde_json::{Value, json};

use super::oracle::{self, Oracle};
use super::{Fleet, Older, SOON, This};
use crate::support::cluster::{Cluster, Options};
use crate::support::jetstream;
use crate::support::previous::Previous;
use crate::support::python::package_program;
use crate::support::runs::{document, new_job};
use crate::support::wait::{PATIENCE, eventually};

/// A cluster on the resources of this release, which both releases then use.
fn fleet(previous: Previous) -> (Fleet, Oracle) {
    let cluster = Cluster::new().envs(&SOON).start();
    let file = cluster.folder().join("executed");
    let fleet = Fleet::new(previous, cluster, &oracle::flows(&file));
    fleet.admin(This, "init");
    (fleet, Oracle::new(file))
}

/// A snapshot with fields of this release, and some that no release knows. Its worker has given the job back.
fn released(run_id: &str, tag: &str, job_seq: u64) -> Value {
    let mut run: Value = serde_json::from_slice(&document(run_id, clock::now(), |_| {})).unwrap();
    let fields = json!({
        "tag": tag, "tags": [tag], "flow_name": "note", "status": "RUNNING", "worker_id": "gone",
        "start_time": clock::now(), "attempt": 11, "lost_attempts": 3, "job_seq": job_seq, "later": {"a": [1]},
        "delivery": {
            // A message that is gone.
            "ack": "$JS.ACK.PYOCO_WORK.pyoco_workers_x.11.999.11.1700000000000000000.0",
            "instance_id": "i", "heartbeat_sec": 0.5, "rescued": true, "released": true, "later": 1,
        },
    });
    run.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    run
}

#[test]
fn a_cancel_keeps_what_its_gateway_does_not_know() {
    let Some(previous) = Previous::find() else { return };
    let (fleet, _) = fleet(previous);
    let cluster = &fleet.cluster;
    let (older, newer) = (fleet.gateway(Older), fleet.gateway(This));
    let python = cluster.start_python_gateway(Options::default());
    for (gateway, keeps_delivery) in [(&older, false), (&newer, true), (&python, true)] {
        let run_id = uuid::Uuid::new_v4().to_string();
        let before = released(&run_id, "x", 7);
        cluster.put(&run_id, before.to_string().as_bytes());
        assert_eq!(gateway.cancel(&run_id)["status"], "CANCELLING");
        let after = cluster.stored(&run_id).unwrap();
        for field in ["attempt", "lost_attempts", "job_seq", "later", "params", "worker_id"] {
            assert_eq!(after[field], before[field], "{field}: {after}");
        }
        // The older release drops what it does not know of a delivery. A cancelled run is not executed again,
        // so nothing depends on it.
        let (delivery, kept) = (&after["delivery"], &before["delivery"]);
        assert_eq!(delivery["ack"], kept["ack"], "{after}");
        assert_eq!(delivery == kept, keeps_delivery, "{after}");
        let ended = newer.ended_as(&run_id, "CANCELLED");
        let stored = cluster.stored(&run_id).unwrap();
        assert_eq!((&stored["later"], &stored["lost_attempts"]), (&before["later"], &json!(3)), "{ended}");
    }

    // What an operator says of a worker through any gateway stays beside what its worker says.
    let record = json!({
        "worker_id": "w", "instance_id": "i", "state": "IDLE", "tags": ["x"], "hidden": false,
        "last_seen_at": clock::now(), "unavailable_reason": "no threads", "later": {"a": 1},
    });
    for gateway in [&older, &newer, &python] {
        cluster.bus.workers().put("w", record.to_string().as_bytes()).unwrap();
        eventually(PATIENCE, "the gateway hides the worker", || {
            let answer = gateway.send_json("PATCH", "/workers/w", r#"{"hidden": true}"#);
            (answer.status == 200).then_some(())
        });
        let after = cluster.record("w").unwrap();
        assert_eq!(after["hidden"], true, "{after}");
        for field in ["state", "instance_id", "unavailable_reason", "later"] {
            assert_eq!(after[field], record[field], "{field}: {after}");
        }
    }
}

#[test]
fn a_job_that_one_release_gives_back_is_done_by_the_other() {
    let Some(previous) = Previous::find() else { return };
    let (fleet, oracle) = fleet(previous);
    let cluster = &fleet.cluster;
    let before = fleet.resources();
    let at_once = ["--drain-timeout-sec", "0"];
    let given_back = |release, worker_id: &str, token: &str| {
        let mut worker = fleet.worker(release, worker_id, "cross", &at_once);
        let run_id = cluster.queue("cross", "note", json!({"token": token, "sec": 60}));
        eventually(PATIENCE, "the run executes", || oracle.executions().contains_key(token).then_some(()));
        assert_eq!(worker.stop(PATIENCE).code(), Some(0));
        let snapshot = cluster.stored(&run_id).unwrap();
        assert_eq!(snapshot["status"], "RUNNING", "{snapshot}");
        (run_id, snapshot)
    };

    // This release says that it has given the job back; the older one needs no such word and keeps the rest.
    let (forth, snapshot) = given_back(This, "newer-1", "held-1");
    assert_eq!(snapshot["delivery"]["released"], true, "{snapshot}");
    let seq = snapshot["job_seq"].clone();
    assert!(seq.is_u64(), "{snapshot}");
    let mut older = fleet.worker(Older, "older-1", "cross,anew", &[]);
    let ended = cluster.wait_stored(&forth, "COMPLETED");
    assert_eq!((&ended["worker_id"], &ended["job_seq"]), (&json!("older-1"), &seq), "{ended}");
    assert_eq!(ended.get("lost_attempts"), None, "{ended}");

    // A job that was published anew is no worker's alone: the snapshot names it, and fields stay.
    let program = package_program("pyoco-worker");
    let _python = cluster.start_python_worker_with(program, "anew-python", Options::default());
    let published_anew = |tag: &str, token: &str| {
        let run_id = uuid::Uuid::new_v4().to_string();
        let job = new_job(&run_id, tag, "note", json!({"token": token, "sec": 0.1}));
        let revision = cluster.store_pending(&job);
        let payload = requeued(&wire::to_wire(&job).unwrap(), revision, 0).unwrap();
        let seq = jetstream::publish(&cluster.nats, "pyoco.work.unserved", &payload);
        let subject = format!("pyoco.work.{tag}");
        // The next message has the next sequence; the snapshot names it before a worker can have it.
        cluster.put(&run_id, released(&run_id, tag, seq + 1).to_string().as_bytes());
        assert_eq!(jetstream::publish(&cluster.nats, &subject, &payload), seq + 1);
        jetstream::call(&cluster.nats, "STREAM.MSG.DELETE.PYOCO_WORK", &json!({"seq": seq}));
        run_id
    };
    let ours = cluster.wait_stored(&published_anew("anew", "anew-1"), "COMPLETED");
    assert_eq!((&ours["lost_attempts"], &ours["later"]), (&json!(3), &json!({"a": [1]})), "{ours}");
    // A Python worker writes what it knows, and nothing else. The run ends, once, all the same.
    let theirs = cluster.wait_stored(&published_anew("anew-python", "anew-2"), "COMPLETED");
    assert_eq!((theirs.get("job_seq"), theirs.get("later")), (None, None), "{theirs}");
    assert_eq!(older.stop(PATIENCE).code(), Some(0));

    // The older release does not say that it gives back, so it counts as an attempt, one of 20.
    let (back, snapshot) = given_back(Older, "older-2", "held-2");
    assert_eq!(snapshot["delivery"].get("released"), None, "{snapshot}");
    let mut newer = fleet.worker(This, "newer-2", "cross", &[]);
    let ended = cluster.wait_stored(&back, "COMPLETED");
    assert_eq!((&ended["worker_id"], &ended["lost_attempts"]), (&json!("newer-2"), &json!(1)), "{ended}");

    cluster.wait_queue_empty();
    let executions = oracle.executions();
    let counts = ["held-1", "held-2", "anew-1", "anew-2"].map(|token| executions[token]);
    assert_eq!(counts, [2, 2, 1, 1]);
    // The older release uses what this one has made as it is.
    fleet.admin(Older, "doctor");
    fleet.assert_well();
    fleet.assert_has(&before);
    assert_eq!(newer.stop(PATIENCE).code(), Some(0));
}
