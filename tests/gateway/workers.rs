//! `GET /workers` and `PATCH /workers/{id}`: who works, who is hidden, who is forgotten.

use std::time::{Duration, Instant};

use pyoco_server::bus::Operation;
use pyoco_server::model::clock;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, with_flags};
use crate::support::http::Response;
use crate::support::jetstream;
use crate::support::runs::main_flow;
use crate::support::wait::{PATIENCE, eventually};

/// A record as the Python worker 0.5.1 writes it.
pub fn python_record(worker_id: &str, state: &str, seen: f64) -> Value {
    json!({"worker_id": worker_id, "instance_id": "e2cc194e76f341849e07c4c1c7166b5d", "state": state,
        "hidden": false, "tags": ["default"], "last_seen_at": seen, "last_heartbeat_at": seen,
        "heartbeat_at": seen, "current_run_id": null, "last_run_id": "815e0d6d",
        "last_run_status": "COMPLETED", "last_run_started_at": seen - 2.0,
        "last_run_finished_at": seen - 1.0, "stopped_at": null, "stop_reason": null,
        "updated_at": seen, "wheel_sync": {"enabled": false, "last_result": "disabled",
        "last_error": null, "installed_wheels": []}})
}

fn put(cluster: &Cluster, worker_id: &str, record: &Value) {
    cluster.bus.workers().put(worker_id, record.to_string().as_bytes()).unwrap();
}

fn list(cluster: &Cluster, query: &str) -> Vec<(String, String)> {
    let answer = cluster.get(&format!("/workers?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let records = answer.json();
    records.as_array().unwrap().iter().map(|w| (text(&w["worker_id"]), text(&w["state"]))).collect()
}

fn ids(cluster: &Cluster, query: &str) -> Vec<String> {
    list(cluster, query).into_iter().map(|(id, _)| id).collect()
}

fn wait_all(cluster: &Cluster, count: usize) {
    eventually(PATIENCE, &format!("{count} workers"), || {
        (list(cluster, "scope=all&include_hidden=true").len() == count).then_some(())
    });
}

fn patch(cluster: &Cluster, worker_id: &str, body: &str) -> Response {
    cluster.send_json("PATCH", &format!("/workers/{worker_id}"), body)
}

#[test]
fn records_are_listed_by_their_derived_state_the_newest_first() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC", "3")]);
    assert_eq!(cluster.get("/workers").text(), "[]");
    put(&cluster, "lost", &python_record("lost", "IDLE", clock::now() - 100.0));
    put(&cluster, "bare", &json!({"worker_id": "bare"}));
    eventually(PATIENCE, "a worker that is silent is lost", || {
        (list(&cluster, "scope=all").iter().all(|(_, state)| state == "DISCONNECTED")).then_some(())
    });
    wait_all(&cluster, 2);
    let now = clock::now();
    let python = python_record("idle", "IDLE", now - 1.0);
    put(&cluster, "idle", &python);
    put(&cluster, "running", &python_record("running", "RUNNING", now - 2.0));
    put(&cluster, "stopped", &python_record("stopped", "STOPPED_GRACEFUL", now - 3.0));
    put(&cluster, "odd", &json!({"worker_id": "other", "state": "NAPPING", "last_seen_at": now, "zzz": [1]}));
    let mut hidden = python_record("hidden", "IDLE", now);
    hidden["hidden"] = true.into();
    put(&cluster, "hidden", &hidden);
    cluster.bus.workers().put("garbage", b"not json").unwrap();
    wait_all(&cluster, 7);

    assert_eq!(ids(&cluster, ""), ["odd", "idle", "running"]);
    assert_eq!(ids(&cluster, "scope=ACTIVE&limit=2"), ["odd", "idle"]);
    let all = list(&cluster, "scope=all");
    let all: Vec<_> = all.iter().map(|(id, state)| (id.as_str(), state.as_str())).collect();
    assert_eq!(
        all,
        [
            ("odd", "IDLE"),
            ("idle", "IDLE"),
            ("running", "RUNNING"),
            ("stopped", "STOPPED_GRACEFUL"),
            ("lost", "DISCONNECTED"),
            ("bare", "DISCONNECTED"),
        ]
    );
    assert_eq!(ids(&cluster, "include_hidden=yes&limit=1"), ["hidden"]);
    assert_eq!(ids(&cluster, "state=disconnected&scope=all"), ["lost", "bare"]);
    assert_eq!(ids(&cluster, "state=DISCONNECTED"), [""; 0]);
    assert_eq!(ids(&cluster, "state=RUNNING&scope=&limit=+1"), ["running"]);
    // Nothing of a record is lost.
    let shown = cluster.get("/workers").json();
    assert_eq!(shown[0]["zzz"], json!([1]));
    for (field, value) in python.as_object().unwrap() {
        assert_eq!(&shown[1][field], value, "{field}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let cluster = Cluster::with_gateway();
    for query in ["scope=some", "state=BUSY"] {
        let answer = cluster.get(&format!("/workers?{query}"));
        let body = answer.json();
        assert_eq!((answer.status, &body["detail"]), (422, &json!("invalid workers request")));
        assert_eq!(body["err_id"], "ERR-PYOCO-0019");
        assert!(body["reason"].as_str().unwrap().starts_with(query.split('=').next().unwrap()));
    }
    for (query, kind) in [
        ("limit=0", "greater_than_equal"),
        ("limit=501", "less_than_equal"),
        ("limit=x", "int_parsing"),
        ("include_hidden=maybe", "bool_parsing"),
    ] {
        let answer = cluster.get(&format!("/workers?{query}"));
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!(kind)));
    }
    put(&cluster, "w", &python_record("w", "IDLE", clock::now()));
    for (body, kind) in [
        ("", "missing"),
        ("{}", "missing"),
        ("[]", "model_attributes_type"),
        (r#"{"hidden":null}"#, "bool_type"),
        (r#"{"hidden":"perhaps"}"#, "bool_parsing"),
        (r#"{"hidden":2}"#, "bool_parsing"),
    ] {
        let answer = patch(&cluster, "w", body);
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!(kind)), "{body}");
    }
    for worker_id in ["nope", "a%20b", "x*"] {
        let answer = patch(&cluster, worker_id, r#"{"hidden":true}"#);
        let body = answer.json();
        assert_eq!((answer.status, &body["detail"]), (404, &json!("worker not found")), "{worker_id}");
        assert_eq!(body["err_id"], "ERR-PYOCO-0020");
    }
    assert_eq!(cluster.get("/workers/w").status, 405);
}

#[test]
fn hiding_is_seen_at_once_and_touches_nothing_else() {
    let cluster = Cluster::with_gateway();
    let mut record = python_record("w", "IDLE", clock::now());
    record["zzz"] = json!({"of": "another version"});
    put(&cluster, "w", &record);
    wait_all(&cluster, 1);
    for (body, hidden) in [(r#"{"hidden":true}"#, true), (r#"{"hidden":"no"}"#, false)] {
        let answer = patch(&cluster, "w", body).json();
        assert_eq!((&answer["worker_id"], &answer["hidden"]), (&json!("w"), &json!(hidden)));
        assert_eq!(ids(&cluster, "").len(), usize::from(!hidden));
        assert_eq!(ids(&cluster, "include_hidden=1"), ["w"]);
        let stored = cluster.bus.workers().get("w").unwrap().unwrap();
        let stored: Value = serde_json::from_slice(&stored.value).unwrap();
        let mut expected = record.clone();
        expected["hidden"] = hidden.into();
        expected["updated_at"] = answer["updated_at"].clone();
        assert_eq!(stored, expected);
    }
}

/// Both write the same record, many times a second.
#[test]
fn a_live_worker_and_an_operator_lose_nothing_to_each_other() {
    let cluster = Cluster::with_gateway();
    let quick = [("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0.01")];
    let _worker = cluster.spawn_worker("w", with_flags(&["--tags", "default"]).envs(&quick));
    wait_all(&cluster, 1);
    let stored = || -> Value {
        let entry = cluster.bus.workers().get("w").unwrap().unwrap();
        serde_json::from_slice(&entry.value).unwrap()
    };
    let instance = stored()["instance_id"].clone();
    for n in 0..40 {
        let hidden = n % 2 == 0;
        let answer = patch(&cluster, "w", &json!({"hidden": hidden}).to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let before = stored()["last_seen_at"].as_f64().unwrap();
        // The worker goes on writing, and keeps what the operator has said.
        eventually(PATIENCE, "the worker's next record", || {
            let record = stored();
            assert_eq!(record["hidden"], hidden);
            (record["last_seen_at"].as_f64().unwrap() > before).then_some(())
        });
    }
    assert_eq!(stored()["instance_id"], instance);
    // Also what it says of its runs.
    let run_id = cluster.submit(&main_flow());
    eventually(PATIENCE, "the run in the record", || {
        assert_eq!(patch(&cluster, "w", r#"{"hidden":true}"#).status, 200);
        (stored()["last_run_id"] == run_id.as_str()).then_some(())
    });
}

#[test]
fn old_records_are_removed_and_live_ones_stay() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKERS_RETENTION_SEC", "4")]);
    let now = clock::now();
    put(&cluster, "old", &python_record("old", "STOPPED_GRACEFUL", now - 100.0));
    put(&cluster, "lost", &python_record("lost", "RUNNING", now - 100.0));
    // Its clock is ahead, and it is gone for as long as the others.
    put(&cluster, "ahead", &python_record("ahead", "IDLE", now + 3600.0));
    put(&cluster, "timeless", &json!({"worker_id": "timeless"}));
    eventually(PATIENCE, "the old ones to go", || {
        // It lives, and its clock is a week behind.
        put(&cluster, "new", &python_record("new", "IDLE", clock::now() - 604_800.0));
        let left = ids(&cluster, "scope=all");
        (left == ["new"]).then_some(())
    });
    for worker_id in ["old", "lost", "ahead", "timeless"] {
        let newest = cluster.bus.workers().newest(worker_id).unwrap().unwrap();
        assert_eq!(newest.operation, Operation::Delete, "{worker_id}");
    }
    assert_eq!(patch(&cluster, "old", r#"{"hidden":true}"#).status, 404);
}

/// A bucket with a TTL, as the Python side makes it, tells nobody what it forgets.
#[test]
fn a_record_that_has_expired_is_forgotten_too() {
    let cluster = Cluster::with_gateway_env(&[
        ("PYOCO_WORKERS_RETENTION_SEC", "4"),
        ("PYOCO_WORKERS_KV_TTL_SEC", "2"),
        ("PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC", "1"),
    ]);
    jetstream::wait_bucket(&cluster.nats, "pyoco_workers");
    put(&cluster, "w", &python_record("w", "IDLE", clock::now()));
    wait_all(&cluster, 1);
    eventually(PATIENCE, "the record to expire", || {
        cluster.bus.workers().newest("w").unwrap().is_none().then_some(())
    });
    wait_all(&cluster, 0);
}

#[test]
fn without_nats_workers_are_refused_in_time() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    put(&cluster, "w", &python_record("w", "IDLE", clock::now()));
    wait_all(&cluster, 1);
    cluster.nats.stop();
    let begun = std::time::Instant::now();
    cluster.wait_answer("/workers", 503);
    assert_eq!(patch(&cluster, "w", r#"{"hidden":true}"#).status, 503);
    assert!(begun.elapsed() < Duration::from_secs(10));
    cluster.nats.restart();
    cluster.wait_answer("/workers?scope=all", 200);
    assert_eq!(ids(&cluster, "scope=all"), ["w"]);
}

fn state(cluster: &Cluster, worker_id: &str) -> String {
    let all = list(cluster, "scope=all&include_hidden=1");
    all.into_iter().find(|(id, _)| id == worker_id).map(|(_, state)| state).unwrap_or_default()
}

#[test]
fn states_follow_what_arrives_and_not_the_clocks_of_workers() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC", "3")]);
    // One wrote long ago, as far as NATS knows.
    put(&cluster, "gone", &python_record("gone", "IDLE", clock::now() + 3600.0));
    let begun = Instant::now();
    let clocks = [("behind", -3600.0), ("slow", -60.0), ("ahead", 3600.0)];
    eventually(PATIENCE, "writers are alive beyond the timeout, whatever their clocks say", || {
        for (worker_id, offset) in clocks {
            put(&cluster, worker_id, &python_record(worker_id, "IDLE", clock::now() + offset));
        }
        let is_alive = |worker_id: &str| state(&cluster, worker_id) == "IDLE";
        let all_alive = clocks.iter().all(|(worker_id, _)| is_alive(worker_id));
        (all_alive && begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    assert_eq!(cluster.metric("pyoco_workers_alive_total"), 3.0);
    assert_eq!(state(&cluster, "gone"), "DISCONNECTED");
    // A gateway that starts now knows it by the clock of NATS.
    let gateway = &mut cluster.gateways[0];
    gateway.stop();
    gateway.restart();
    assert_eq!(state(&cluster, "gone"), "DISCONNECTED");
    // They fall silent, too. An operator's word about one is no sign of life.
    eventually(PATIENCE, "silent workers are lost", || {
        clocks.iter().all(|(worker_id, _)| state(&cluster, worker_id) == "DISCONNECTED").then_some(())
    });
    assert_eq!(patch(&cluster, "ahead", r#"{"hidden":true}"#).status, 200);
    assert_eq!(state(&cluster, "ahead"), "DISCONNECTED");
    assert_eq!(cluster.metric("pyoco_workers_alive_total"), 0.0);
}
