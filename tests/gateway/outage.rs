//! NATS goes away and comes back: requests fail soon and clearly, and all goes on by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::stage::{Gateway, Stage, connect, ids, main_flow, wait_count};
use crate::support::http::{self, Response};
use crate::support::nats::NatsServer;
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
fn assert_alive_but_not_ready(address: SocketAddr) {
    for path in ["/health", "/healthz", "/livez"] {
        let answer = timed(|| http::get(address, path));
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"status":"ok"}"#));
    }
    let answer = timed(|| http::get(address, "/readyz"));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    let body = answer.json();
    assert_eq!(body["status"], "unavailable", "{body}");
    let checks = body["checks"].as_object().unwrap();
    assert!(checks.values().any(|check| check["status"] == "unavailable"), "{body}");
    assert!(checks.contains_key("nats") && checks.contains_key("run_index"), "{body}");
}

fn wait_ready(address: SocketAddr) {
    eventually(PATIENCE, "the gateway to be ready again", || {
        (http::get(address, "/readyz").status == 200).then_some(())
    });
}

#[test]
fn without_nats_every_request_is_answered_503_in_time_and_with_it_all_goes_on() {
    let mut stage = Stage::start_with(&TIMEOUT);
    let run_id = stage.submit(&main_flow());
    stage.nats.stop();
    eventually(PATIENCE, "the gateway to notice", || {
        (stage.get("/readyz").status == 503).then_some(())
    });
    assert_alive_but_not_ready(stage.address());
    let path = format!("/runs/{run_id}");
    let paths =
        ["/runs", "/runs?limit=1&cursor=", "/runs?include=full", &path, &format!("{path}/tasks")];
    for path in paths {
        assert_unavailable(path, &timed(|| stage.get(path)));
    }
    assert_unavailable("submit", &timed(|| stage.post("/runs", &main_flow())));
    assert_unavailable("cancel", &timed(|| stage.post_nothing(&format!("{path}/cancel"))));
    // What is wrong with a request is still told first.
    assert_eq!(timed(|| stage.get("/runs?limit=0")).status, 422);
    assert_eq!(timed(|| stage.get("/nope")).status, 404);

    stage.nats.restart();
    wait_ready(stage.address());
    assert_eq!(stage.get(&path).json()["status"], "PENDING");
    let second = stage.submit(&main_flow());
    assert_eq!(ids(&stage.get("/runs").json()), [second, run_id.clone()]);
    assert_eq!(stage.post_nothing(&format!("{path}/cancel")).json()["status"], "CANCELLING");
}

#[test]
fn a_frozen_nats_is_noticed_and_forgiven() {
    let stage = Stage::start_with(&TIMEOUT);
    let run_id = stage.submit(&main_flow());
    stage.nats.pause();
    // At first nobody can know; each request has its own deadline.
    assert_unavailable("submit", &timed(|| stage.post("/runs", &main_flow())));
    assert_unavailable("cancel", &timed(|| stage.post_nothing(&format!("/runs/{run_id}/cancel"))));
    assert_unavailable("unknown run", &timed(|| stage.get("/runs/nope")));
    eventually(PATIENCE, "the gateway to notice", || {
        let ready = timed(|| stage.get("/readyz")).json();
        (ready["checks"]["nats"]["status"] == "unavailable").then_some(())
    });
    assert_alive_but_not_ready(stage.address());
    // The best of some, so that one bad moment of the machine does not count.
    let quickest = (0..5).map(|_| {
        let asked = Instant::now();
        assert_unavailable("submit", &timed(|| stage.post("/runs", &main_flow())));
        asked.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_secs(1), "waited although NATS was known to be away");
    eventually(PATIENCE, "lists to be refused", || {
        (timed(|| stage.get("/runs")).status == 503).then_some(())
    });
    stage.nats.resume();
    wait_ready(stage.address());
    stage.submit(&main_flow());
    // The cancel that was answered 503 may have been stored, and no submit may.
    eventually(PATIENCE, "two runs", || (ids(&stage.get("/runs").json()).len() == 2).then_some(()));
}

#[test]
fn a_gateway_may_be_there_before_nats() {
    let mut nats = NatsServer::start();
    nats.stop();
    let gateway = Gateway::start(&nats, &TIMEOUT);
    assert_alive_but_not_ready(gateway.address);
    assert_unavailable("list", &timed(|| http::get(gateway.address, "/runs")));
    assert_unavailable(
        "submit",
        &timed(|| http::post_json(gateway.address, "/runs", &main_flow())),
    );
    nats.restart();
    wait_ready(gateway.address);
    assert_eq!(http::get(gateway.address, "/runs").text(), "[]");
    assert_eq!(http::post_json(gateway.address, "/runs", &main_flow()).status, 200);
}

#[test]
fn what_others_wrote_while_a_gateway_was_away_is_in_its_index() {
    let stage = Stage::start();
    let mut asleep = Gateway::start(&stage.nats, &[]);
    asleep.wait_ready();
    let kept: Vec<String> = (0..5).map(|_| stage.submit(&main_flow())).collect();
    wait_count(asleep.address, 5);
    asleep.process.signal(Signal::STOP);
    let mut written: Vec<String> = (0..200).map(|_| stage.submit(&main_flow())).collect();
    let (_, revision) = stage.snapshot(&kept[0]);
    stage.bus.runs().delete(&kept[0], revision).unwrap();
    stage.put_run(&kept[1], 5.0, crate::stage::completed);
    written.extend_from_slice(&kept[1..]);
    std::thread::sleep(Duration::from_secs(3));
    asleep.process.signal(Signal::CONT);
    wait_count(asleep.address, written.len());
    written.sort();
    let mut listed = crate::stage::all_pages(asleep.address, "limit=200");
    listed.sort();
    assert_eq!(listed, written);
    let list = http::get(asleep.address, "/runs?status=COMPLETED").json();
    assert_eq!(ids(&list), [kept[1].as_str()]);
}

#[test]
fn what_others_wrote_right_after_a_restart_of_nats_is_in_the_index() {
    let mut stage = Stage::start();
    for round in 1..=3u32 {
        stage.nats.restart();
        // A bus of its own may be there long before the gateway is back.
        let bus = connect(&stage.nats);
        for n in 0..40 {
            let run_id = format!("run-{round}-{n}");
            let document = crate::stage::document(&run_id, f64::from(round * 100 + n), |_| {});
            bus.runs().put(&run_id, &document).unwrap();
        }
        stage.wait_count(40 * round as usize);
    }
}

/// Somebody replaces the store: what is not there any more is not shown any more.
#[test]
fn a_bucket_that_was_replaced_is_read_anew() {
    let stage = Stage::start();
    stage.submit(&main_flow());
    stage.submit(&main_flow());
    crate::jetstream::call(&stage.nats, "STREAM.DELETE.KV_pyoco_runs", &serde_json::Value::Null);
    eventually(PATIENCE, "an empty list", || {
        let list = stage.get("/runs");
        (list.status == 200 && list.text() == "[]").then_some(())
    });
    let run_id = stage.submit(&main_flow());
    eventually(PATIENCE, "the new run", || {
        (ids(&stage.get("/runs").json()) == [run_id.as_str()]).then_some(())
    });
}
