//! API keys while NATS is away.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::desk;
use crate::house::{self, ASKING, House};
use crate::stage::Gateway;
use crate::support::http;
use crate::support::nats::NatsServer;
use crate::support::wait::{PATIENCE, eventually};

/// What an answer takes at most that needs nothing of NATS; on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_gateway_that_never_saw_the_keys_lets_nobody_in() {
    let mut nats = NatsServer::start();
    let made = desk::make(&nats, "t", "operator");
    let key = desk::text(&made);
    nats.stop();
    let mut gateway = Gateway::start(&nats, &ASKING);
    for _ in 0..20 {
        let began = Instant::now();
        let answer = house::get(gateway.address, &key, "/metrics");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.json()["err_id"], "ERR-PYOCO-0003");
    }
    assert_eq!(http::get(gateway.address, "/metrics").status, 401, "that much is known");
    assert_eq!(http::get(gateway.address, "/health").status, 200);
    let ready = http::get(gateway.address, "/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["checks"]["api_keys"], json!({"status": "unavailable"}));
    nats.restart();
    gateway.wait_ready();
    assert_eq!(house::get(gateway.address, &key, "/metrics").status, 200);
}

#[test]
fn a_known_key_is_believed_for_a_while_and_an_unknown_one_is_not() {
    let mut house = House::start();
    let key = house.key_text("t", "operator");
    let fresh = desk::text(&desk::make(&house.nats, "t", "operator"));
    house.wait_status(&fresh, "/runs", 200);
    let unknown = format!("pyoco_{}.{}", "0".repeat(24), "s".repeat(43));
    house.nats.stop();
    eventually(PATIENCE, "the outage to be seen", || {
        (http::get(house.address(), "/readyz").status == 503).then_some(())
    });
    let began = Instant::now();
    for (key, path, status) in [
        (&key, "/metrics", 200),
        (&unknown, "/metrics", 403),
        (&key, "/runs/7c4d1b92-1f0e-4a57-9a0e-000000000000", 503),
    ] {
        assert_eq!(house.get(key, path).status, status, "{path}");
    }
    assert_eq!(house.post(&key, "/runs", &json!({"flow_name": "m"})).status, 503);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    house.nats.restart();
    eventually(PATIENCE, "everything to be back", || {
        (house.post(&key, "/runs", &json!({"flow_name": "m"})).status == 200).then_some(())
    });
    // Revoked while the gateway could hear nothing of it: it hears of it now.
    let made = house.key("t", "viewer");
    house.wait_status(&desk::text(&made), "/runs", 200);
    desk::json(&house.nats, &["revoke", "--key-id", &desk::id(&made)]);
    house.wait_status(&desk::text(&made), "/runs", 403);
}
