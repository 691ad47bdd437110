//! Lists read their own writes, stay in order while runs change, and survive a new gateway.

use pyoco_server::model::run::RunStatus;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::runs::{ids, main_flow};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn a_client_sees_its_own_writes_at_once() {
    let cluster = Cluster::with_gateway();
    let submit = || {
        let run_id = cluster.submit(&main_flow());
        assert_eq!(ids(&cluster.get("/runs?limit=1").json()), [run_id.as_str()]);
        assert_eq!(cluster.get(&format!("/runs/{run_id}")).json()["status"], "PENDING");
        run_id
    };
    let runs: Vec<String> = (0..50).map(|_| submit()).collect();
    // Later: the end of a cancel, which the gateway writes by itself, moves its run to the top.
    for run_id in runs {
        assert_eq!(cluster.post_nothing(&format!("/runs/{run_id}/cancel")).status, 200);
        let list = cluster.get("/runs?status=CANCELLING&limit=1").json();
        assert_eq!(ids(&list), [run_id]);
    }
}

#[test]
fn order_is_by_time_then_by_id_and_a_change_moves_a_run_to_the_top() {
    let cluster = Cluster::with_gateway();
    for (run_id, at) in [("b", 10.0), ("c", 10.0), ("a", 10.0), ("old", 9.0), ("new", 11.5)] {
        cluster.put_run(run_id, at, |_| {});
    }
    cluster.wait_count(5);
    assert_eq!(ids(&cluster.get("/runs").json()), ["new", "c", "b", "a", "old"]);
    cluster.put_run("old", 12.0, |run| run.status = RunStatus::Running);
    let first = eventually(PATIENCE, "the change to be listed", || {
        let list = cluster.get("/runs").json();
        (list[0]["run_id"] == "old").then_some(list)
    });
    assert_eq!(ids(&first), ["old", "new", "c", "b", "a"]);
    assert_eq!(first[0]["status"], "RUNNING");
    // A run whose time is unknown is the oldest.
    cluster.put("none", br#"{"run_id":"none","status":"PENDING"}"#);
    cluster.wait_count(6);
    assert_eq!(ids(&cluster.get("/runs").json())[5], "none");
}

#[test]
fn runs_are_found_by_their_worker_and_by_any_text_of_them() {
    let cluster = Cluster::with_gateway();
    cluster.put_run("a-1", 10.0, |run| run.worker_id = Some("Worker-1".into()));
    cluster.put_run("b-2", 11.0, |run| {
        run.flow_name = "Import".into();
        run.error = Some("no row 4711 für Ärzte".into());
    });
    cluster.put_run("c-3", 12.0, |run| run.tags = vec!["Team-A".into(), "worker".into()]);
    cluster.wait_count(3);
    for (query, expected) in [
        ("q=WORKER", vec!["c-3", "a-1"]),
        ("q=4711", vec!["b-2"]),
        ("q=%C3%A4rzte", vec!["b-2"]),
        ("q=team-a&worker=", vec!["c-3"]),
        ("q=-2", vec!["b-2"]),
        ("q=", vec!["c-3", "b-2", "a-1"]),
        ("q=nowhere", vec![]),
        ("worker=Worker-1", vec!["a-1"]),
        ("worker=worker-1", vec![]),
        ("worker=Worker-1&q=import", vec![]),
    ] {
        assert_eq!(ids(&cluster.get(&format!("/runs?{query}")).json()), expected, "{query}");
    }
}

#[test]
fn two_gateways_and_one_started_later_show_the_same() {
    let cluster = Cluster::with_gateway();
    let second = cluster.another_gateway();
    let mut expected: Vec<String> = (0..30).map(|_| cluster.submit(&main_flow())).collect();
    let deleted = expected.swap_remove(7);
    let (_, revision) = cluster.snapshot(&deleted);
    cluster.bus.runs().delete(&deleted, revision).unwrap();
    cluster.wait_count(29);
    second.wait_count(29);
    let third = cluster.another_gateway();
    // What is ready is complete, from the first answer on.
    let list = third.get("/runs?limit=200").json();
    assert_eq!(list, cluster.get("/runs?limit=200").json());
    assert_eq!(list, second.get("/runs?limit=200").json());
    let mut listed = ids(&list);
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    cluster.assert_gone(&deleted);
}

#[test]
fn a_runs_worker_is_shown_beside_it() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC", "2")]);
    cluster.put_run("r", 1.0, |run| {
        run.status = RunStatus::Running;
        run.worker_id = Some("w".into());
    });
    let shown = cluster.wait_status("r", "RUNNING");
    assert_eq!(shown["worker_alive"], false);
    for field in ["worker_state", "worker_heartbeat_at", "worker_hidden", "worker_tags"] {
        assert_eq!(shown.get(field), Some(&json!(null)), "{field}");
    }
    let record = |state: &str, seen: f64| json!({"worker_id": "w", "instance_id": "i", "state": state, "tags": ["default"], "last_seen_at": seen, "hidden": true});
    let now = pyoco_server::model::clock::now();
    for (state, seen, shown_state, alive) in [
        ("RUNNING", now, "RUNNING", true),
        // What its clock says does not count, and its silence does.
        ("RUNNING", now - 3600.0, "RUNNING", true),
        ("RUNNING", now - 3600.0, "DISCONNECTED", false),
        ("STOPPED_GRACEFUL", now - 3600.0, "STOPPED_GRACEFUL", false),
        ("IDLE", now, "IDLE", true),
    ] {
        if shown_state != "DISCONNECTED" {
            cluster.bus.workers().put("w", record(state, seen).to_string().as_bytes()).unwrap();
        }
        let shown = eventually(PATIENCE, shown_state, || {
            let run = cluster.get("/runs/r").json();
            (run["worker_state"] == shown_state && run["worker_heartbeat_at"] == seen).then_some(run)
        });
        assert_eq!(shown["worker_alive"], alive, "{state}");
        assert_eq!((&shown["worker_hidden"], &shown["worker_tags"]), (&json!(true), &json!(["default"])));
    }
}
