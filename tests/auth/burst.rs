//! Floods of wrong keys: they cost little, and nobody else notices.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;

/// Hashes that wrong secrets of one key from one address may cost in the time of a test: what is there
/// at once, and what comes back meanwhile.
const MOST_HASHES: f64 = 40.0;

#[test]
fn a_flood_of_wrong_secrets_is_limited_and_known_keys_go_on() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let victim = cluster.key("t", "operator");
    let viewer = cluster.key_text("u", "viewer");
    let victims_text = victim.text();
    let before = cluster.as_key(&viewer).metric("pyoco_auth_hashes_total");
    let mut statuses = BTreeMap::new();
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let flood = |thread: usize| {
            let (cluster, key_id) = (&cluster, victim.id());
            move || {
                let wrong = |n: usize| format!("pyoco_{key_id}.{:0>43}", thread * 1_000 + n);
                let ask = |n: usize| cluster.as_key(&wrong(n)).get("/runs").status;
                (0..100).map(ask).collect::<Vec<u16>>()
            }
        };
        let floods: Vec<_> = (0..8).map(|thread| scope.spawn(flood(thread))).collect();
        // Those whose key is known already are not asked to wait.
        for _ in 0..50 {
            assert_eq!(cluster.as_key(&victims_text).get("/runs").status, 200);
            assert_eq!(cluster.as_key(&viewer).get("/runs").status, 200);
        }
        floods.into_iter().flat_map(|flood| flood.join().unwrap()).collect()
    });
    answers.into_iter().for_each(|status| *statuses.entry(status).or_insert(0) += 1);
    let hashes = cluster.as_key(&viewer).metric("pyoco_auth_hashes_total") - before;
    assert!(hashes <= MOST_HASHES, "{hashes} hashes: {statuses:?}");
    assert!(statuses.keys().all(|status| [403, 429, 503].contains(status)), "{statuses:?}");
    assert!(statuses[&429] > 500, "{statuses:?}");

    let wrong = format!("pyoco_{}.{}", victim.id(), "z".repeat(43));
    let answer = cluster.as_key(&wrong).get("/runs");
    assert_eq!(answer.status, 429, "{}", answer.text());
    let answer_json = answer.json();
    assert_eq!(answer_json["detail"], "too many invalid api keys");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    // And it is true.
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(cluster.as_key(&wrong).get("/runs").status, 403);
}

#[test]
fn what_is_no_key_or_nobodys_costs_no_hash() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let viewer = cluster.key_text("t", "viewer");
    let before = cluster.as_key(&viewer).metric("pyoco_auth_hashes_total");
    for n in 0..300 {
        let unknown = format!("pyoco_{n:0>24}.{}", "s".repeat(43));
        assert_eq!(cluster.as_key(&unknown).get("/runs").status, 403);
        assert_eq!(cluster.as_key(&format!("nonsense-{n}")).get("/runs").status, 403);
    }
    assert_eq!(cluster.as_key(&viewer).metric("pyoco_auth_hashes_total"), before);
    assert!(cluster.as_key(&viewer).metric("pyoco_auth_checks_total{outcome=\"invalid\"}") >= 600.0);
}

#[test]
fn many_good_keys_at_once_all_get_in() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let keys: Vec<_> = (0..8).map(|_| (cluster.admin().create("t", "viewer")).text()).collect();
    cluster.as_key(&keys[7]).wait_answer("/runs", 200);
    std::thread::scope(|scope| {
        for key in &keys {
            scope.spawn(|| assert_eq!(cluster.as_key(key).get("/runs").json(), json!([])));
        }
    });
    assert_eq!(cluster.as_key(&keys[0]).metric("pyoco_auth_hashes_total"), 8.0);
}
