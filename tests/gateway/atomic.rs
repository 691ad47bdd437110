//! A submit is whole or not there: both the snapshot and the job, or neither.

use std::time::{Duration, Instant};

use pyoco_server::bus::Operation;
use serde_json::json;

use crate::jetstream;
use crate::stage::{Stage, ids, main_flow, post_form};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn a_full_queue_refuses_the_submit_and_leaves_no_run() {
    let stage = Stage::start();
    let kept = stage.submit(&main_flow());
    jetstream::limit_jobs(&stage.nats, 1);
    let form: &[(&str, Option<&str>, &[u8])] =
        &[("workflow", Some("f"), b"flow: {graph: a}"), ("flow_name", None, b"m")];
    for _ in 0..3 {
        for answer in [stage.post("/runs", &main_flow()), post_form(stage.address(), form)] {
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert_eq!(answer.header("retry-after"), Some("1"));
            let body = answer.json();
            assert_eq!(body["err_id"], "ERR-PYOCO-0003");
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.starts_with("nats unavailable: "), "{detail}");
        }
    }
    // The snapshot was written before the queue refused; what is left of each is a tombstone.
    assert_eq!(ids(&stage.get("/runs?limit=200").json()), [kept.as_str()]);
    assert_eq!(jetstream::messages(&stage.nats, "KV_pyoco_runs"), 7, "six tombstones and a run");
    let tombstones =
        jetstream::call(&stage.nats, "STREAM.INFO.KV_pyoco_runs", &json!({"subjects_filter": ">"}));
    for (subject, _) in tombstones["state"]["subjects"].as_object().unwrap() {
        let run_id = subject.strip_prefix("$KV.pyoco_runs.").unwrap();
        if run_id != kept {
            let message = jetstream::last(&stage.nats, "KV_pyoco_runs", subject).unwrap();
            assert!(message.headers.contains("KV-Operation:DEL"), "{}", message.headers);
            stage.assert_gone(run_id);
        }
    }
    assert_eq!(jetstream::messages(&stage.nats, "PYOCO_WORK"), 1);
    // With room again, submits go on by themselves.
    jetstream::limit_jobs(&stage.nats, 100);
    let next = stage.submit(&main_flow());
    assert_eq!(ids(&stage.get("/runs").json()), [next, kept]);
}

#[test]
fn a_missing_queue_is_made_again() {
    let stage = Stage::start();
    stage.submit(&main_flow());
    jetstream::call(&stage.nats, "STREAM.DELETE.PYOCO_WORK", &json!(null));
    stage.submit(&main_flow());
    assert_eq!(jetstream::messages(&stage.nats, "PYOCO_WORK"), 1);
}

/// The frozen server stores the snapshot or not; the gateway cannot know. It finds out and cleans up
/// once the server goes on.
#[test]
fn a_submit_whose_outcome_was_unknown_is_taken_back_later() {
    let stage = Stage::start_with(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    stage.submit(&main_flow());
    stage.nats.pause();
    let begun = Instant::now();
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let post = || {
        let body = main_flow().to_string();
        crate::support::http::request(stage.address(), "POST", "/runs", &headers, body.as_bytes())
    };
    let answer = post();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    stage.nats.resume();
    // The write was in the server's socket, so it is carried out now, and then undone.
    eventually(PATIENCE, "the undo", || {
        let info = jetstream::call(&stage.nats, "STREAM.INFO.KV_pyoco_runs", &json!(null));
        (info["state"]["last_seq"].as_u64().unwrap() >= 3).then_some(())
    });
    eventually(PATIENCE, "one run in the list", || {
        let ready = stage.get("/readyz").status == 200;
        (ready && ids(&stage.get("/runs").json()).len() == 1).then_some(())
    });
    // The key is free again.
    let answer = eventually(PATIENCE, "the key to be free", || {
        let answer = post();
        (answer.status == 200).then_some(answer)
    });
    let run_id = answer.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(stage.newest(&run_id).unwrap().operation, Operation::Put);
    assert_eq!(jetstream::messages(&stage.nats, "PYOCO_WORK"), 2);
}
