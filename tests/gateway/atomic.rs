//! A submit is whole or not there: both the snapshot and the job, or neither.

use std::time::{Duration, Instant};

use pyoco_server::bus::Operation;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::runs::{ids, main_flow};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn a_full_queue_refuses_the_submit_and_leaves_no_run() {
    let cluster = Cluster::with_gateway();
    let kept = cluster.submit(&main_flow());
    jetstream::limit_jobs(&cluster.nats, 1);
    let form: &[(&str, Option<&str>, &[u8])] =
        &[("workflow", Some("f"), b"flow: {graph: a}"), ("flow_name", None, b"m")];
    for _ in 0..3 {
        for answer in [cluster.post("/runs", &main_flow()), cluster.post_form("/runs/yaml", form)] {
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert_eq!(answer.header("retry-after"), Some("1"));
            let body = answer.json();
            assert_eq!(body["err_id"], "ERR-PYOCO-0003");
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.starts_with("nats unavailable: "), "{detail}");
        }
    }
    // The snapshot was written before the queue refused; what is left of each is a tombstone.
    // The index hears of a tombstone as of anything else: a moment later.
    eventually(PATIENCE, "one run in the list", || {
        (ids(&cluster.get("/runs?limit=200").json()) == [kept.as_str()]).then_some(())
    });
    let stored = jetstream::messages(&cluster.nats, "KV_pyoco_runs");
    assert_eq!(stored, 8, "six tombstones, a run, and the write test of /readyz");
    let tombstones =
        jetstream::call(&cluster.nats, "STREAM.INFO.KV_pyoco_runs", &json!({"subjects_filter": ">"}));
    for (subject, _) in tombstones["state"]["subjects"].as_object().unwrap() {
        let run_id = subject.strip_prefix("$KV.pyoco_runs.").unwrap();
        if run_id != kept {
            let message = jetstream::last(&cluster.nats, "KV_pyoco_runs", subject).unwrap();
            assert!(message.headers.contains("KV-Operation:DEL"), "{}", message.headers);
            cluster.assert_gone(run_id);
        }
    }
    assert_eq!(jetstream::messages(&cluster.nats, "PYOCO_WORK"), 1);
    // With room again, submits go on by themselves.
    jetstream::limit_jobs(&cluster.nats, 100);
    let next = cluster.submit(&main_flow());
    assert_eq!(ids(&cluster.get("/runs").json()), [next, kept]);
}

#[test]
fn a_missing_queue_is_made_again() {
    let cluster = Cluster::with_gateway();
    cluster.submit(&main_flow());
    jetstream::call(&cluster.nats, "STREAM.DELETE.PYOCO_WORK", &json!(null));
    cluster.submit(&main_flow());
    assert_eq!(jetstream::messages(&cluster.nats, "PYOCO_WORK"), 1);
}

/// The frozen server stores the snapshot or not; the gateway cannot know. It finds out and cleans up
/// once the server goes on.
#[test]
fn a_submit_whose_outcome_was_unknown_is_taken_back_later() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    cluster.submit(&main_flow());
    cluster.nats.pause();
    let begun = Instant::now();
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let post = || {
        let body = main_flow().to_string();
        cluster.request("POST", "/runs", &headers, body.as_bytes())
    };
    let answer = post();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    cluster.nats.resume();
    // The write was in the server's socket, so it is carried out now, and then undone.
    eventually(PATIENCE, "the undo", || {
        let info = jetstream::call(&cluster.nats, "STREAM.INFO.KV_pyoco_runs", &json!(null));
        (info["state"]["last_seq"].as_u64().unwrap() >= 3).then_some(())
    });
    eventually(PATIENCE, "one run in the list", || {
        let ready = cluster.get("/readyz").status == 200;
        (ready && ids(&cluster.get("/runs").json()).len() == 1).then_some(())
    });
    // The key is free again.
    let answer = eventually(PATIENCE, "the key to be free", || {
        let answer = post();
        (answer.status == 200).then_some(answer)
    });
    let run_id = answer.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(cluster.newest(&run_id).unwrap().operation, Operation::Put);
    assert_eq!(jetstream::messages(&cluster.nats, "PYOCO_WORK"), 2);
}
