//! API keys while NATS is away.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::cluster::{ASKING, Cluster, with_env};
use crate::support::wait::{PATIENCE, eventually};

/// What an answer takes at most that needs nothing of NATS; on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_gateway_that_never_saw_the_keys_lets_nobody_in() {
    let mut cluster = Cluster::new().start();
    let key = cluster.admin().create("t", "operator").text();
    cluster.nats.stop();
    let gateway = cluster.spawn_gateway(with_env(&ASKING));
    // At its start it waits for NATS, for two seconds.
    assert_eq!(gateway.get("/health").status, 200);
    for _ in 0..20 {
        let began = Instant::now();
        let answer = gateway.as_key(&key).get("/metrics");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.json()["err_id"], "ERR-PYOCO-0003");
    }
    assert_eq!(gateway.get("/metrics").status, 401, "that much is known");
    assert_eq!(gateway.get("/health").status, 200);
    let ready = gateway.get("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["checks"]["api_keys"], json!({"status": "unavailable"}));
    cluster.nats.restart();
    gateway.wait_ready();
    assert_eq!(gateway.as_key(&key).get("/metrics").status, 200);
}

#[test]
fn a_known_key_is_believed_for_a_while_and_an_unknown_one_is_not() {
    let mut cluster = Cluster::new().with_keys().gateway().start();
    let key = cluster.key_text("t", "operator");
    let fresh = (cluster.admin().create("t", "operator")).text();
    cluster.as_key(&fresh).wait_answer("/runs", 200);
    let unknown = format!("pyoco_{}.{}", "0".repeat(24), "s".repeat(43));
    cluster.nats.stop();
    cluster.wait_answer("/readyz", 503);
    let began = Instant::now();
    for (key, path, status) in [
        (&key, "/metrics", 200),
        (&unknown, "/metrics", 403),
        (&key, "/runs/7c4d1b92-1f0e-4a57-9a0e-000000000000", 503),
    ] {
        assert_eq!(cluster.as_key(key).get(path).status, status, "{path}");
    }
    assert_eq!(cluster.as_key(&key).post("/runs", &json!({"flow_name": "m"})).status, 503);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    cluster.nats.restart();
    eventually(PATIENCE, "everything to be back", || {
        (cluster.as_key(&key).post("/runs", &json!({"flow_name": "m"})).status == 200).then_some(())
    });
    // Revoked while the gateway could hear nothing of it: it hears of it now.
    let made = cluster.key("t", "viewer");
    cluster.as_key(&made.text()).wait_answer("/runs", 200);
    cluster.admin().revoke(&made);
    cluster.as_key(&made.text()).wait_answer("/runs", 403);
}

/// A minute without a word of NATS, less what the test and the watch take to notice and to ask.
const BELIEVED: std::ops::Range<Duration> = Duration::from_secs(50)..Duration::from_secs(62);

#[test]
fn without_nats_for_a_minute_nobody_is_let_in() {
    let mut cluster = Cluster::new().with_keys().gateway().start();
    let key = cluster.key_text("t", "operator");
    let client = cluster.as_key(&key);
    let status = || client.get("/metrics").status;
    assert_eq!(status(), 200);
    cluster.nats.stop();
    let stopped = Instant::now();
    eventually(BELIEVED.end, "503", || (status() == 503).then_some(()));
    assert!(BELIEVED.contains(&stopped.elapsed()), "{:?}", stopped.elapsed());
    cluster.nats.restart();
    eventually(PATIENCE, "the key to be believed again", || (status() == 200).then_some(()));
}
