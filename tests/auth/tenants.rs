//! What a tenant sees of the others: nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::desk;
use crate::house::{self, House};
use crate::jetstream;
use crate::stage::ids;
use crate::support::http;
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn runs_carry_their_tenant_and_lists_hold_ones_own() {
    let house = House::start();
    let (a, b) = (house.key("a", "operator"), house.key("b", "submitter"));
    let (a_key, b_key) = (desk::text(&a), desk::text(&b));
    let mut mine = Vec::new();
    for _ in 0..5 {
        mine.insert(0, house.submit(&a_key));
        house.submit(&b_key);
    }
    // Made while nobody was asked for a key: nobody's.
    let free = crate::stage::document("free", 9e9, |_| {});
    house.bus.runs().put("free", &free).unwrap();

    let run = house.get(&a_key, &format!("/runs/{}", mine[0])).json();
    assert_eq!((&run["tenant_id"], &run["api_key_id"]), (&json!("a"), &a["key_id"]));
    let job = jetstream::last(&house.nats, "PYOCO_WORK", "pyoco.work.default").unwrap().json();
    assert_eq!(job["tenant_id"], "b");
    assert_eq!(job["api_key_id"], b["key_id"]);

    assert_eq!(ids(&house.get(&a_key, "/runs").json()), mine);
    assert_eq!(ids(&house.get(&a_key, "/runs?include=full&limit=2").json()), mine[..2]);
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = house.get(&a_key, &format!("/runs?limit=2&cursor={cursor}")).json();
        paged.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, mine, "no empty and no short page");
    // A cursor out of another tenant's list opens nothing.
    let theirs = house.get(&b_key, "/runs?limit=1&cursor=").json();
    let cursor = theirs["next_cursor"].as_str().unwrap();
    let page = house.get(&a_key, &format!("/runs?limit=200&cursor={cursor}")).json();
    assert!(ids(&page).iter().all(|id| mine.contains(id)), "{page}");
    assert_eq!(house.get(&a_key, "/runs/free").status, 404);
    let admin = house.key_text("c", "admin");
    assert_eq!(house.get(&admin, "/runs").json(), json!([]), "a role does not cross tenants");
}

#[test]
fn a_cancel_names_the_key() {
    let house = House::start();
    let (submitter, canceller) = (house.key_text("t", "submitter"), house.key("t", "operator"));
    let run_id = house.submit(&submitter);
    let path = format!("/runs/{run_id}/cancel");
    let answer = house.post(&desk::text(&canceller), &path, &json!({"reason": "no need"}));
    let by = format!("api_key:{}", desk::id(&canceller));
    assert_eq!(answer.json()["cancel_requested_by"], by.as_str());
    let again = house.post(&submitter, &path, &json!({})).json();
    assert_eq!(again["cancel_requested_by"], by.as_str(), "the first one counts");
}

#[test]
fn idempotency_keys_are_a_tenants_own() {
    let house = House::start();
    let post = |key: &str| {
        let headers =
            [("X-API-Key", key), ("Content-Type", "application/json"), ("Idempotency-Key", "k")];
        let body = br#"{"flow_name":"m"}"#;
        let answer = http::request(house.address(), "POST", "/runs", &headers, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["run_id"].as_str().unwrap().to_owned()
    };
    let (a, a2, b) = (
        house.key_text("a", "operator"),
        house.key_text("a", "submitter"),
        house.key_text("b", "operator"),
    );
    let run = post(&a);
    assert_eq!(post(&a2), run, "another key of the same tenant");
    assert_ne!(post(&b), run);
}

#[test]
fn streams_tell_ones_own_runs_alone() {
    let house = House::start();
    let (a, b) = (house.key_text("a", "viewer"), house.key_text("b", "operator"));
    let a_writer = house.key_text("a", "submitter");
    let mut events = house::stream(house.address(), &a, "/events");
    let theirs: Vec<String> = (0..3).map(|_| house.submit(&b)).collect();
    let mine = house.submit(&a_writer);
    let cancel = |run_id: &str| house.post(&b, &format!("/runs/{run_id}/cancel"), &json!({}));
    assert!(theirs.iter().all(|run_id| cancel(run_id).status == 200));
    let told = events.take_until(mine.as_bytes()).unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(theirs.iter().all(|run_id| !told.contains(run_id)), "{told}");
    assert!(!told.contains("\"reset\""), "{told}");

    let mut watch = house::stream(house.address(), &a, &format!("/runs/{mine}/watch"));
    let snapshot = watch.take_until(b"\"tenant_id\":\"a\"").unwrap();
    assert!(String::from_utf8(snapshot).unwrap().contains("event: snapshot"));
}

/// Times of requests for runs that are not there and for runs of others, in turns.
fn medians(ask: impl Fn(bool) -> u16) -> (Duration, Duration) {
    let time = |hidden| {
        let began = Instant::now();
        assert_eq!(ask(hidden), 404);
        began.elapsed()
    };
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..150 {
        times[0].push(time(true));
        times[1].push(time(false));
    }
    times.iter_mut().for_each(|times| times.sort());
    (times[0][75], times[1][75])
}

#[test]
fn the_time_of_a_404_does_not_tell_whether_somebody_else_has_the_run() {
    let house = House::start();
    let (a, b) = (house.key_text("a", "operator"), house.key_text("b", "operator"));
    // A large one: to read it would take its time.
    let large = json!({"flow_name": "m", "params": {"x": "y".repeat(200_000)}});
    let answer: Value = house.post(&b, "/runs", &large).json();
    let theirs = answer["run_id"].as_str().unwrap().to_owned();
    let absent = "7c4d1b92-1f0e-4a57-9a0e-000000000000";
    let id = |hidden| if hidden { theirs.as_str() } else { absent };
    for (what, (hidden, absent)) in [
        ("show", medians(|hidden| house.get(&a, &format!("/runs/{}", id(hidden))).status)),
        (
            "cancel",
            medians(|hidden| {
                house.post(&a, &format!("/runs/{}/cancel", id(hidden)), &json!({})).status
            }),
        ),
    ] {
        let ratio = hidden.as_secs_f64() / absent.as_secs_f64();
        assert!((0.7..1.4).contains(&ratio), "{what}: {hidden:?} of others, {absent:?} of nobody");
    }
}

#[test]
fn the_last_use_of_a_key_is_noted_and_costs_no_second_hash() {
    let house = House::start();
    let key = house.key_text("t", "viewer");
    let used = eventually(PATIENCE, "the use in the list", || {
        desk::json(&house.nats, &["list"])[0]["last_used_at"].as_f64()
    });
    let age = pyoco_server::model::clock::now() - used;
    assert!((0.0..60.0).contains(&age), "{age}");
    let hashes = house.metric(&key, "pyoco_auth_hashes_total");
    for _ in 0..20 {
        assert_eq!(house.get(&key, "/runs").status, 200);
    }
    assert_eq!(house.metric(&key, "pyoco_auth_hashes_total"), hashes);
    assert_eq!(hashes, 1.0);
}
