//! NATS goes away and comes back: requests fail soon and clearly, and all goes on by itself.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::cluster::{Cluster, with_env};
use crate::support::http::{Client, Response};
use crate::support::jetstream;
use crate::support::nats::NatsOptions;
use crate::support::runs::{completed, document, ids, main_flow};
use crate::support::wait::{PATIENCE, eventually};

/// What the gateway is given in these tests, and what a busy machine may add to it.
const TIMEOUT: [(&str, &str); 1] = [("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")];
const WITHIN: Duration = Duration::from_secs(4);

fn timed(question: impl FnOnce() -> Response) -> Response {
    let begun = Instant::now();
    let answer = question();
    assert!(begun.elapsed() < WITHIN, "took {:?}: {}", begun.elapsed(), answer.text());
    answer
}

fn assert_unavailable(what: &str, answer: &Response) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"), "{what}");
    let body = answer.json();
    assert_eq!(body["err_id"], "ERR-PYOCO-0003", "{what}: {body}");
    assert!(body["detail"].as_str().unwrap().starts_with("nats unavailable: "), "{what}: {body}");
}

/// Alive, not ready, and says of what.
fn assert_alive_but_not_ready(client: &Client) {
    for path in ["/health", "/healthz", "/livez"] {
        let answer = timed(|| client.get(path));
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"status":"ok"}"#));
    }
    let answer = timed(|| client.get("/readyz"));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    let body = answer.json();
    assert_eq!(body["status"], "unavailable", "{body}");
    let checks = body["checks"].as_object().unwrap();
    assert!(checks.values().any(|check| check["status"] == "unavailable"), "{body}");
    assert!(checks.contains_key("nats") && checks.contains_key("run_index"), "{body}");
}

#[test]
fn without_nats_every_request_is_answered_503_in_time_and_with_it_all_goes_on() {
    let mut cluster = Cluster::with_gateway_env(&TIMEOUT);
    let run_id = cluster.submit(&main_flow());
    cluster.nats.stop();
    cluster.wait_answer("/readyz", 503);
    assert_alive_but_not_ready(&cluster);
    let path = format!("/runs/{run_id}");
    let paths = ["/runs", "/runs?limit=1&cursor=", "/runs?include=full", &path, &format!("{path}/tasks")];
    for path in paths {
        assert_unavailable(path, &timed(|| cluster.get(path)));
    }
    assert_unavailable("submit", &timed(|| cluster.post("/runs", &main_flow())));
    assert_unavailable("cancel", &timed(|| cluster.post_nothing(&format!("{path}/cancel"))));
    // What is wrong with a request is still told first.
    assert_eq!(timed(|| cluster.get("/runs?limit=0")).status, 422);
    assert_eq!(timed(|| cluster.get("/nope")).status, 404);

    cluster.nats.restart();
    cluster.wait_ready();
    assert_eq!(cluster.get(&path).json()["status"], "PENDING");
    let second = cluster.submit(&main_flow());
    assert_eq!(ids(&cluster.get("/runs").json()), [second, run_id.clone()]);
    assert_eq!(cluster.post_nothing(&format!("{path}/cancel")).json()["status"], "CANCELLING");
}

#[test]
fn a_bucket_that_refuses_writes_makes_the_gateway_not_ready() {
    let cluster = Cluster::with_gateway();
    let last_sequence = || {
        let info = jetstream::call(&cluster.nats, "STREAM.INFO.KV_pyoco_runs", &json!({}));
        info["state"]["last_seq"].as_u64().unwrap()
    };
    let (before, began) = (last_sequence(), Instant::now());
    (0..100).for_each(|_| assert_eq!(timed(|| cluster.get("/readyz")).status, 200));
    let written = last_sequence() - before;
    assert!(written <= began.elapsed().as_secs() + 2, "{written} writes in {:?}", began.elapsed());

    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_msg_size"] = 8.into());
    cluster.wait_answer("/readyz", 503);
    assert_alive_but_not_ready(&cluster);
    let checks = cluster.get("/readyz").json()["checks"].clone();
    assert_eq!((&checks["nats"]["status"], &checks["run_index"]["status"]), (&json!("ok"), &json!("ok")));
    assert_eq!(checks["writes"]["status"], "unavailable");
    let reason = checks["writes"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("JetStream refused: "), "{reason}");
    jetstream::update(&cluster.nats, "KV_pyoco_runs", |config| config["max_msg_size"] = (-1).into());
    cluster.wait_ready();
    assert!(cluster.get("/readyz").json()["checks"]["writes"].get("reason").is_none());
}

#[test]
fn a_user_who_may_not_write_runs_makes_the_gateway_not_ready() {
    let lines = [
        "no_auth_user: all",
        "authorization { users: [ {user: all, password: all}, {user: reader, password: reader, \
         permissions: {publish: {deny: \"$KV.pyoco_runs.>\"}}} ] }",
    ];
    let nats =
        NatsOptions { config_lines: lines.iter().map(ToString::to_string).collect(), ..Default::default() };
    let cluster = Cluster::new().nats(nats).start();
    let reader = [("PYOCO_NATS_USER", "reader"), ("PYOCO_NATS_PASSWORD", "reader")];
    let gateway = cluster.spawn_gateway(with_env(&reader));
    eventually(PATIENCE, "the test of a write to fail alone", || {
        let checks = timed(|| gateway.get("/readyz")).json()["checks"].clone();
        let are_ok = checks["nats"]["status"] == "ok" && checks["run_index"]["status"] == "ok";
        (are_ok && checks["writes"]["status"] == "unavailable").then_some(())
    });
    let answer = timed(|| gateway.get("/readyz"));
    assert_eq!(answer.status, 503);
    let reason = answer.json()["checks"]["writes"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("$KV.pyoco_runs.pyoco_write_test"), "{reason}");
}

#[test]
fn a_frozen_nats_is_noticed_and_forgiven() {
    let cluster = Cluster::with_gateway_env(&TIMEOUT);
    let run_id = cluster.submit(&main_flow());
    cluster.nats.pause();
    // At first nobody can know; each request has its own deadline.
    assert_unavailable("submit", &timed(|| cluster.post("/runs", &main_flow())));
    assert_unavailable("cancel", &timed(|| cluster.post_nothing(&format!("/runs/{run_id}/cancel"))));
    assert_unavailable("unknown run", &timed(|| cluster.get("/runs/nope")));
    eventually(PATIENCE, "the gateway to notice", || {
        let ready = timed(|| cluster.get("/readyz")).json();
        (ready["checks"]["nats"]["status"] == "unavailable").then_some(())
    });
    assert_alive_but_not_ready(&cluster);
    // The best of some, so that one bad moment of the machine does not count.
    let quickest = (0..5).map(|_| {
        let asked = Instant::now();
        assert_unavailable("submit", &timed(|| cluster.post("/runs", &main_flow())));
        asked.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_secs(1), "waited although NATS was known to be away");
    eventually(PATIENCE, "lists to be refused", || {
        (timed(|| cluster.get("/runs")).status == 503).then_some(())
    });
    cluster.nats.resume();
    cluster.wait_ready();
    cluster.submit(&main_flow());
    // The cancel that was answered 503 may have been stored, and no submit may.
    eventually(PATIENCE, "two runs", || (ids(&cluster.get("/runs").json()).len() == 2).then_some(()));
}

#[test]
fn a_gateway_may_be_there_before_nats() {
    let mut cluster = Cluster::new().start();
    cluster.nats.stop();
    let gateway = cluster.spawn_gateway(with_env(&TIMEOUT));
    assert_alive_but_not_ready(&gateway);
    assert_unavailable("list", &timed(|| gateway.get("/runs")));
    assert_unavailable("submit", &timed(|| gateway.post("/runs", &main_flow())));
    cluster.nats.restart();
    gateway.wait_ready();
    assert_eq!(gateway.get("/runs").text(), "[]");
    assert_eq!(gateway.post("/runs", &main_flow()).status, 200);
}

#[test]
fn what_others_wrote_while_a_gateway_was_away_is_in_its_index() {
    let cluster = Cluster::with_gateway();
    let asleep = cluster.another_gateway();
    let kept: Vec<String> = (0..5).map(|_| cluster.submit(&main_flow())).collect();
    asleep.wait_count(5);
    asleep.process.signal(Signal::STOP);
    let mut written: Vec<String> = (0..200).map(|_| cluster.submit(&main_flow())).collect();
    let (_, revision) = cluster.snapshot(&kept[0]);
    cluster.bus.runs().delete(&kept[0], revision).unwrap();
    cluster.put_run(&kept[1], 5.0, completed);
    written.extend_from_slice(&kept[1..]);
    std::thread::sleep(Duration::from_secs(3));
    asleep.process.signal(Signal::CONT);
    asleep.wait_count(written.len());
    written.sort();
    let mut listed = asleep.all_pages("limit=200");
    listed.sort();
    assert_eq!(listed, written);
    let list = asleep.get("/runs?status=COMPLETED").json();
    assert_eq!(ids(&list), [kept[1].as_str()]);
}

#[test]
fn what_others_wrote_right_after_a_restart_of_nats_is_in_the_index() {
    let mut cluster = Cluster::with_gateway();
    for round in 1..=3u32 {
        cluster.nats.restart();
        // A bus of its own may be there long before the gateway is back.
        let bus = cluster.connect();
        for n in 0..40 {
            let run_id = format!("run-{round}-{n}");
            let document = document(&run_id, f64::from(round * 100 + n), |_| {});
            bus.runs().put(&run_id, &document).unwrap();
        }
        cluster.wait_count(40 * round as usize);
    }
}

/// Somebody replaces the store: what is not there any more is not shown any more.
#[test]
fn a_bucket_that_was_replaced_is_read_anew() {
    let cluster = Cluster::with_gateway();
    cluster.submit(&main_flow());
    cluster.submit(&main_flow());
    jetstream::call(&cluster.nats, "STREAM.DELETE.KV_pyoco_runs", &serde_json::Value::Null);
    eventually(PATIENCE, "an empty list", || {
        let list = cluster.get("/runs");
        (list.status == 200 && list.text() == "[]").then_some(())
    });
    let run_id = cluster.submit(&main_flow());
    eventually(PATIENCE, "the new run", || {
        (ids(&cluster.get("/runs").json()) == [run_id.as_str()]).then_some(())
    });
}
