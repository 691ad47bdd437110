//! `POST /runs/{id}/cancel`: asks once, keeps what was said first, never waits for a worker.

use std::time::{Duration, Instant};

use pyoco_server::model::run::RunStatus;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::runs::main_flow;

fn cancel(cluster: &Cluster, run_id: &str, body: Option<&Value>) -> http::Response {
    let path = format!("/runs/{run_id}/cancel");
    match body {
        Some(body) => cluster.post(&path, body),
        None => cluster.post_nothing(&path),
    }
}

#[test]
fn a_pending_run_is_cancelling_at_once_and_cancelled_soon_without_any_worker() {
    let cluster = Cluster::with_gateway();
    let run_id = cluster.submit(&json!({"flow_name": "m", "params": {"é": "日本"}}));
    let answer = cancel(&cluster, &run_id, Some(&json!({"reason": "nö"})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = answer.json();
    assert_eq!((&shown["status"], &shown["cancel_reason"]), (&json!("CANCELLING"), &json!("nö")));
    assert_eq!(shown["params"], json!({"é": "日本"}));
    assert_eq!(shown["cancel_requested_at"], shown["updated_at"]);
    assert!(shown.get("task_records").is_none() && shown.get("delivery").is_none());

    let begun = Instant::now();
    let ended = cluster.wait_status(&run_id, "CANCELLED");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(ended["cancel_requested_at"], shown["cancel_requested_at"]);
    assert_eq!(ended["cancel_reason"], "nö");
    assert!(ended["end_time"].is_f64() && ended["start_time"].is_null(), "{ended}");
    // Its job meets a run that has ended, and is left.
    let (snapshot, revision) = cluster.snapshot(&run_id);
    assert_eq!(snapshot.status, RunStatus::Cancelled);
    let again = cancel(&cluster, &run_id, Some(&json!({"reason": "later"}))).json();
    assert_eq!(again, ended);
    assert_eq!(cluster.snapshot(&run_id).1, revision, "a run that has ended was written");
}

#[test]
fn the_first_request_wins() {
    let cluster = Cluster::with_gateway();
    // A worker has it, so that nobody completes the cancel meanwhile.
    cluster.put_run("r", 1.0, |run| {
        run.status = RunStatus::Running;
        run.worker_id = Some("w".into());
    });
    cluster.wait_count(1);
    let first = cancel(&cluster, "r", Some(&json!({"reason": "one"}))).json();
    let revision = cluster.snapshot("r").1;
    assert_eq!((&first["status"], &first["worker_id"]), (&json!("CANCELLING"), &json!("w")));
    for body in [None, Some(json!({"reason": "two"})), Some(json!({"reason": null}))] {
        let answer = cancel(&cluster, "r", body.as_ref());
        assert_eq!((answer.status, answer.json()), (200, first.clone()));
    }
    assert_eq!(cluster.snapshot("r").1, revision, "written again");
}

#[test]
fn bodies_are_optional_and_checked() {
    let cluster = Cluster::with_gateway();
    let text = "Input should be a valid string";
    let run_id = cluster.submit(&main_flow());
    for (body, kind, loc, msg) in [
        (&b"{bad"[..], "json_invalid", json!(["body", 1]), "JSON decode error"),
        (
            b"[1]",
            "model_attributes_type",
            json!(["body"]),
            "Input should be a valid dictionary or object to extract fields from",
        ),
        (b"{\"reason\":5}", "string_type", json!(["body", "reason"]), text),
        (b"{\"reason\":[\"x\"]}", "string_type", json!(["body", "reason"]), text),
    ] {
        let headers = [("Content-Type", "application/json")];
        let path = format!("/runs/{run_id}/cancel");
        let answer = cluster.request("POST", &path, &headers, body);
        assert_eq!(answer.status, 422, "{}", answer.text());
        let problem = &answer.json()["detail"][0];
        assert_eq!(problem["type"], kind);
        assert_eq!((&problem["loc"], &problem["msg"]), (&loc, &json!(msg)));
    }
    assert_eq!(cluster.get(&format!("/runs/{run_id}")).json()["status"], "PENDING");
    for body in [json!({}), json!(null), json!({"reason": ""}), json!({"zzz": 1})] {
        let run_id = cluster.submit(&main_flow());
        let answer = cancel(&cluster, &run_id, Some(&body));
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        assert!(answer.json().get("cancel_reason").is_none(), "{body}");
    }
    // A web page of somebody else can send plain text without being asked, but not JSON.
    let path = format!("/runs/{run_id}/cancel");
    let headers = [("Content-Type", "text/plain")];
    let answer = cluster.request("POST", &path, &headers, b"{}");
    assert_eq!(answer.status, 422, "{}", answer.text());
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let cluster = Cluster::with_gateway();
    let run_id = cluster.submit(&main_flow());
    let shown = cancel(&cluster, &run_id, Some(&json!({"reason": "日".repeat(2000)}))).json();
    let reason = shown["cancel_reason"].as_str().unwrap();
    assert!(reason.len() <= 1024 && reason.ends_with("… (truncated)"), "{} bytes", reason.len());
}

#[test]
fn runs_that_are_not_there_are_404() {
    let cluster = Cluster::with_gateway();
    let gone = cluster.submit(&main_flow());
    let (_, revision) = cluster.snapshot(&gone);
    cluster.bus.runs().delete(&gone, revision).unwrap();
    for run_id in ["nope", "a.b", "%20", "a..b", "*", "%3E", "%0d%0aPUB", "%ff", &gone, &"x".repeat(300)] {
        for answer in [
            cancel(&cluster, run_id, None),
            cluster.get(&format!("/runs/{run_id}")),
            cluster.get(&format!("/runs/{run_id}/tasks")),
        ] {
            assert_eq!(answer.status, 404, "{run_id}: {}", answer.text());
            let body = answer.json();
            assert_eq!(body["detail"], "run not found", "{run_id}");
            assert_eq!(body["err_id"], "ERR-PYOCO-0005");
        }
    }
    // A slash makes another path.
    assert_eq!(cluster.get("/runs/a%2Fb").json(), json!({"detail": "Not Found"}));
}

/// A worker that never carries a cancel out does not keep the run CANCELLING for ever.
#[test]
fn a_cancel_that_no_worker_carries_out_is_completed() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_CANCEL_GRACE_PERIOD_SEC", "0")]);
    cluster.put_run("r", 1.0, |run| {
        run.status = RunStatus::Running;
        run.worker_id = Some("gone".into());
    });
    cluster.wait_count(1);
    assert_eq!(cancel(&cluster, "r", None).json()["status"], "CANCELLING");
    let ended = cluster.wait_status("r", "CANCELLED");
    assert_eq!(ended["worker_id"], "gone");
}
