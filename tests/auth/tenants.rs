//! What a tenant sees of the others: nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::submit;
use crate::support::cluster::Cluster;
use crate::support::http::Connection;
use crate::support::jetstream;
use crate::support::runs::{accepted, document, ids};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn runs_carry_their_tenant_and_lists_hold_ones_own() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let (a, b) = (cluster.key("a", "operator"), cluster.key("b", "submitter"));
    let (a_key, b_key) = (a.text(), b.text());
    let mut mine = Vec::new();
    for _ in 0..5 {
        mine.insert(0, submit(&cluster.as_key(&a_key)));
        submit(&cluster.as_key(&b_key));
    }
    // Made while nobody was asked for a key: nobody's.
    let free = document("free", 9e9, |_| {});
    cluster.bus.runs().put("free", &free).unwrap();

    let run = cluster.as_key(&a_key).get(&format!("/runs/{}", mine[0])).json();
    assert_eq!((&run["tenant_id"], &run["api_key_id"]), (&json!("a"), &a["key_id"]));
    let job = jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.default").unwrap().json();
    assert_eq!(job["tenant_id"], "b");
    assert_eq!(job["api_key_id"], b["key_id"]);

    assert_eq!(ids(&cluster.as_key(&a_key).get("/runs").json()), mine);
    assert_eq!(ids(&cluster.as_key(&a_key).get("/runs?include=full&limit=2").json()), mine[..2]);
    let paged = cluster.as_key(&a_key).all_pages("limit=2");
    assert_eq!(paged, mine, "no empty and no short page");
    // A cursor out of another tenant's list opens nothing.
    let theirs = cluster.as_key(&b_key).get("/runs?limit=1&cursor=").json();
    let cursor = theirs["next_cursor"].as_str().unwrap();
    let page = cluster.as_key(&a_key).get(&format!("/runs?limit=200&cursor={cursor}")).json();
    assert!(ids(&page).iter().all(|id| mine.contains(id)), "{page}");
    assert_eq!(cluster.as_key(&a_key).get("/runs/free").status, 404);
    let admin = cluster.key_text("c", "admin");
    assert_eq!(cluster.as_key(&admin).get("/runs").json(), json!([]), "a role does not cross tenants");
}

#[test]
fn a_cancel_names_the_key() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let (submitter, canceller) = (cluster.key_text("t", "submitter"), cluster.key("t", "operator"));
    let run_id = submit(&cluster.as_key(&submitter));
    let path = format!("/runs/{run_id}/cancel");
    let answer = cluster.as_key(&canceller.text()).post(&path, &json!({"reason": "no need"}));
    let by = format!("api_key:{}", canceller.id());
    assert_eq!(answer.json()["cancel_requested_by"], by.as_str());
    let again = cluster.as_key(&submitter).post(&path, &json!({})).json();
    assert_eq!(again["cancel_requested_by"], by.as_str(), "the first one counts");
}

#[test]
fn idempotency_keys_are_a_tenants_own() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let post = |key: &str| {
        let headers = [("X-API-Key", key), ("Content-Type", "application/json"), ("Idempotency-Key", "k")];
        let body = br#"{"flow_name":"m"}"#;
        let answer = cluster.request("POST", "/runs", &headers, body);
        accepted(&answer)
    };
    let (a, a2, b) = (
        cluster.key_text("a", "operator"),
        cluster.key_text("a", "submitter"),
        cluster.key_text("b", "operator"),
    );
    let run = post(&a);
    assert_eq!(post(&a2), run, "another key of the same tenant");
    assert_ne!(post(&b), run);
}

#[test]
fn streams_tell_ones_own_runs_alone() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let (a, b) = (cluster.key_text("a", "viewer"), cluster.key_text("b", "operator"));
    let a_writer = cluster.key_text("a", "submitter");
    let mut events = cluster.as_key(&a).open_stream("/events");
    let theirs: Vec<String> = (0..3).map(|_| submit(&cluster.as_key(&b))).collect();
    let mine = submit(&cluster.as_key(&a_writer));
    let cancel = |run_id: &str| cluster.as_key(&b).post(&format!("/runs/{run_id}/cancel"), &json!({}));
    assert!(theirs.iter().all(|run_id| cancel(run_id).status == 200));
    let told = events.take_until(mine.as_bytes()).unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(theirs.iter().all(|run_id| !told.contains(run_id)), "{told}");
    assert!(!told.contains("\"reset\""), "{told}");

    let mut watch = cluster.as_key(&a).open_stream(&format!("/runs/{mine}/watch"));
    let snapshot = watch.take_until(b"\"tenant_id\":\"a\"").unwrap();
    assert!(String::from_utf8(snapshot).unwrap().contains("event: snapshot"));
}

/// The median times of 404s for two paths, asked in turns over one connection.
fn medians(cluster: &Cluster, key: &str, method: &str, paths: [&str; 2]) -> [Duration; 2] {
    const ROUNDS: usize = 201;
    let mut connection = Connection::open(cluster.address);
    let mut times: [Vec<Duration>; 2] = Default::default();
    for round in 0..ROUNDS * 2 {
        // Each is the first as often as the second.
        let which = (round + round / 2) % 2;
        let path = paths[which];
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: 0\r\n\r\n");
        let began = Instant::now();
        connection.send(head.as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 404, "{path}");
        times[which].push(began.elapsed());
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

#[test]
fn the_time_of_a_404_does_not_tell_whether_somebody_else_has_the_run() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let (a, b) = (cluster.key_text("a", "operator"), cluster.key_text("b", "operator"));
    // A large one: to read it would take its time.
    let large = json!({"flow_name": "m", "params": {"x": "y".repeat(200_000)}});
    let answer: Value = cluster.as_key(&b).post("/runs", &large).json();
    let hidden = format!("/runs/{}", answer["run_id"].as_str().unwrap());
    let absent = "/runs/7c4d1b92-1f0e-4a57-9a0e-000000000000";
    for (method, what) in [("GET", ""), ("POST", "/cancel")] {
        let paths = [&*format!("{hidden}{what}"), &*format!("{absent}{what}")];
        let [hidden, absent] = medians(&cluster, &a, method, paths);
        let ratio = hidden.as_secs_f64() / absent.as_secs_f64();
        assert!((0.6..1.67).contains(&ratio), "{what}: {hidden:?} of others, {absent:?} of nobody");
    }
}

#[test]
fn the_last_use_of_a_key_is_noted_and_costs_no_second_hash() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let key = cluster.key_text("t", "viewer");
    let used = eventually(PATIENCE, "the use in the list", || {
        cluster.admin().keys_json(&["list"])[0]["last_used_at"].as_f64()
    });
    let age = pyoco_server::model::clock::now() - used;
    assert!((0.0..60.0).contains(&age), "{age}");
    let hashes = cluster.as_key(&key).metric("pyoco_auth_hashes_total");
    for _ in 0..20 {
        assert_eq!(cluster.as_key(&key).get("/runs").status, 200);
    }
    assert_eq!(cluster.as_key(&key).metric("pyoco_auth_hashes_total"), hashes);
    assert_eq!(hashes, 1.0);
}
