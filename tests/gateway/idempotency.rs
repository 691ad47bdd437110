//! `Idempotency-Key`: a request that is sent twice is one run.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::forms::form;
use crate::support::http::Response;
use crate::support::jetstream;
use crate::support::runs::{accepted, completed, main_flow};

fn post(cluster: &Cluster, key: &str, body: &Value) -> Response {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    cluster.request("POST", "/runs", &headers, body.to_string().as_bytes())
}

fn run_id(answer: &Response) -> String {
    accepted(answer)
}

fn jobs(cluster: &Cluster) -> u64 {
    jetstream::messages(&cluster.nats, "PYOCO_WORK")
}

#[test]
fn the_same_key_is_the_same_run_and_one_job() {
    let cluster = Cluster::with_gateway();
    let body = json!({"flow_name": "m", "params": {"a": 1}, "tag": "gpu"});
    let first = run_id(&post(&cluster, "k1", &body));
    for _ in 0..3 {
        assert_eq!(run_id(&post(&cluster, "k1", &body)), first);
        assert_eq!(run_id(&post(&cluster, "  k1 ", &body)), first, "spaces around a header count not");
    }
    assert_eq!(jobs(&cluster), 1);
    assert_ne!(run_id(&post(&cluster, "k2", &body)), first);
    assert_ne!(run_id(&post(&cluster, "", &body)), run_id(&post(&cluster, "", &body)), "no key");
    assert_eq!(jobs(&cluster), 4);
    // Without a key nothing is the same.
    assert_ne!(cluster.submit(&body), cluster.submit(&body));
    let version = first.as_bytes()[14];
    assert_eq!((first.len(), version), (36, b'4'), "looks like any run id: {first}");
}

#[test]
fn the_key_of_another_request_is_422() {
    let cluster = Cluster::with_gateway();
    let first = run_id(&post(&cluster, "k", &json!({"flow_name": "m", "params": {"a": 1}})));
    for body in [
        json!({"flow_name": "n", "params": {"a": 1}}),
        json!({"flow_name": "m", "params": {"a": 2}}),
        json!({"flow_name": "m"}),
        json!({"flow_name": "m", "params": {"a": 1}, "tag": "gpu"}),
    ] {
        let answer = post(&cluster, "k", &body);
        assert_eq!(answer.status, 422, "{body}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["detail"], "idempotency key reused with another request");
        assert!(answer["reason"].as_str().unwrap().contains(&first), "{answer}");
    }
    let answer = post(&cluster, &"k".repeat(300), &main_flow());
    assert_eq!((answer.status, &answer.json()["detail"]), (422, &json!("invalid idempotency key")));
    assert_eq!(jobs(&cluster), 1);
}

#[test]
fn sixteen_at_once_are_one_run() {
    let cluster = Cluster::with_gateway();
    for round in 0..10 {
        let key = format!("round {round}");
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let posts: Vec<_> = (0..16).map(|_| scope.spawn(|| post(&cluster, &key, &main_flow()))).collect();
            posts.into_iter().map(|post| post.join().unwrap()).collect()
        });
        let runs: HashSet<String> = answers.iter().map(run_id).collect();
        assert_eq!(runs.len(), 1, "round {round}");
        assert_eq!(jobs(&cluster), round + 1);
    }
}

#[test]
fn a_key_is_free_again_after_its_submit_was_undone() {
    let cluster = Cluster::with_gateway();
    cluster.submit(&main_flow());
    jetstream::limit_jobs(&cluster.nats, 1);
    for _ in 0..2 {
        assert_eq!(post(&cluster, "k", &main_flow()).status, 503);
    }
    jetstream::limit_jobs(&cluster.nats, 100);
    let first = run_id(&post(&cluster, "k", &main_flow()));
    assert_eq!(run_id(&post(&cluster, "k", &main_flow())), first);
    assert_eq!(cluster.get(&format!("/runs/{first}")).json()["status"], "PENDING");
    assert_eq!(jobs(&cluster), 2);
}

/// The first request was answered 503 after its job had been stored; a worker has met the job,
/// found the run withdrawn and left it. The second request must not rely on that job.
#[test]
fn a_job_that_was_dropped_meanwhile_is_queued_anew() {
    let cluster = Cluster::with_gateway();
    let first = run_id(&post(&cluster, "k", &main_flow()));
    let (_, revision) = cluster.snapshot(&first);
    cluster.bus.runs().delete(&first, revision).unwrap();
    let job = jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.default").unwrap();
    cluster.bus.queue().remove_job(job.seq).unwrap();
    assert_eq!(run_id(&post(&cluster, "k", &main_flow())), first);
    assert_eq!(jobs(&cluster), 1, "a run without a job never ends");
    let again = jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.default").unwrap();
    assert_eq!(again.json()["run_id"], first.as_str());
    assert_eq!(run_id(&post(&cluster, "k", &main_flow())), first);
    assert_eq!(jobs(&cluster), 1);
}

#[test]
fn the_key_of_a_run_that_has_ended_still_answers_with_it() {
    let cluster = Cluster::with_gateway();
    let run = run_id(&post(&cluster, "k", &main_flow()));
    let job = jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.default").unwrap();
    cluster.bus.queue().remove_job(job.seq).unwrap();
    let (mut snapshot, revision) = cluster.snapshot(&run);
    completed(&mut snapshot);
    let document = pyoco_server::model::json::to_wire(&snapshot).unwrap();
    cluster.bus.runs().update(&run, &document, revision).unwrap();
    let answer = post(&cluster, "k", &main_flow()).json();
    assert_eq!(answer, json!({"run_id": run, "status": "COMPLETED"}));
    assert_eq!(jobs(&cluster), 0, "it must not run again");
}

#[test]
fn forms_have_keys_too() {
    let cluster = Cluster::with_gateway();
    let post = |yaml: &[u8]| {
        let (content_type, body) = form(&[("workflow", Some("f"), yaml), ("flow_name", None, b"m")]);
        let headers = [("Content-Type", content_type.as_str()), ("Idempotency-Key", "k")];
        cluster.request("POST", "/runs/yaml", &headers, &body)
    };
    let first = run_id(&post(b"flow: {graph: a}"));
    assert_eq!(run_id(&post(b"flow: {graph: a}")), first);
    assert_eq!(post(b"flow: {graph: b}").status, 422);
    assert_eq!(jobs(&cluster), 1);
}
