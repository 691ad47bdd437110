//! The audit: every change leaves a line that says who, what, to which thing, and what came of it.

use serde_json::{Value, json};

use crate::desk;
use crate::house::House;
use crate::support::http;
use crate::support::nats::NatsServer;
use crate::support::process::{Binary, Finished, run};
use crate::support::wait::PATIENCE;

fn audit(nats: &NatsServer, arguments: &[&str]) -> Finished {
    let mut command = Binary::Admin.command();
    command.args(["--nats-url", &nats.url(), "audit"]).args(arguments);
    run(&mut command, b"", PATIENCE)
}

/// What `pyoco-server-admin audit` prints with these arguments.
pub fn entries(nats: &NatsServer, arguments: &[&str]) -> Vec<Value> {
    let finished = audit(nats, arguments);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words(entry: &Value) -> (&str, &str, &str) {
    let word = |name: &str| entry[name].as_str().unwrap_or_default();
    (word("action"), word("object"), word("outcome"))
}

#[test]
fn who_changes_something_is_noted() {
    let house = House::start();
    let made = house.key("team-a", "operator");
    let (key, key_id) = (desk::text(&made), desk::id(&made));
    let viewer = house.key("team-a", "viewer");
    let run_id = house.submit(&key);
    let cancelled = house.post(&key, &format!("/runs/{run_id}/cancel"), &json!({}));
    assert_eq!(cancelled.status, 200);
    // What is not allowed is noted, too; what changes nothing is not, nor what strangers try.
    assert_eq!(house.post(&desk::text(&viewer), "/runs", &json!({"flow_name": "x"})).status, 403);
    assert_eq!(house.get(&key, "/runs").status, 200);
    let wrong = format!("pyoco_{key_id}.{}", "x".repeat(32));
    assert_eq!(house.post(&wrong, "/runs", &json!({"flow_name": "x"})).status, 403);
    desk::json(&house.nats, &["revoke", "--key-id", &desk::id(&viewer)]);

    let all = entries(&house.nats, &[]);
    let told: Vec<_> = all.iter().map(words).collect();
    let viewer_id = desk::id(&viewer);
    assert_eq!(
        told,
        [
            ("key.create", key_id.as_str(), "done"),
            ("key.create", viewer_id.as_str(), "done"),
            ("run.submit", run_id.as_str(), "done"),
            ("run.cancel", run_id.as_str(), "done"),
            ("run.submit", "", "refused"),
            ("key.revoke", viewer_id.as_str(), "done"),
        ]
    );
    let submit = &all[2];
    assert_eq!(submit["actor"], format!("api_key:{key_id}"));
    assert_eq!((&submit["tenant_id"], &submit["status"]), (&json!("team-a"), &json!(200)));
    assert_eq!(submit["address"], "127.0.0.1");
    assert!(submit["request_id"].is_string() && submit["time"].as_f64().unwrap() > 1e9);
    assert!(all[0]["actor"].as_str().unwrap().starts_with("cli:"), "{}", all[0]);
    // No secret is in it.
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains(&desk::secret(&made)) && !text.contains(&desk::secret(&viewer)));

    let mine = entries(&house.nats, &["--actor", &format!("api_key:{key_id}")]);
    assert_eq!(
        mine.iter().map(|entry| words(entry).0).collect::<Vec<_>>(),
        ["run.submit", "run.cancel"]
    );
    assert_eq!(entries(&house.nats, &["--action", "run.cancel"]).len(), 1);
    assert_eq!(entries(&house.nats, &["--action", "key"]).len(), 3);
    assert_eq!(words(&entries(&house.nats, &["--limit", "1"])[0]).0, "key.revoke");
    assert_eq!(audit(&house.nats, &["--since", "soon"]).code, Some(1));
}

#[test]
fn a_stretch_of_time_is_found_and_an_empty_audit_is_empty() {
    let nats = NatsServer::start();
    assert!(entries(&nats, &[]).is_empty());
    let bus = desk::connect(&nats);
    let log = bus.audit();
    for n in 0..20 {
        log.append(
            "run.submit",
            json!({"time": n, "actor": "a", "action": "run.submit", "outcome": "done"})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
    }
    // The time of the entry's storing counts, which nobody can make up.
    assert_eq!(log.since(0.0).unwrap(), 1);
    assert_eq!(log.since(f64::MAX).unwrap(), 21);
    assert_eq!(entries(&nats, &["--since", "1h"]).len(), 20);
    assert!(log.append("run submit", b"{}").is_err());
}

#[test]
fn without_keys_the_address_is_all_that_is_known() {
    let nats = NatsServer::start();
    let mut gateway = crate::stage::Gateway::start(&nats, &[]);
    gateway.wait_ready();
    let headers = [("Content-Type", "application/json"), ("User-Agent", "a test")];
    let body = br#"{"flow_name": "main"}"#;
    assert_eq!(http::request(gateway.address, "POST", "/runs", &headers, body).status, 200);
    let all = entries(&nats, &[]);
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0]["actor"], &all[0]["user_agent"]), (&json!("anonymous"), &json!("a test")));
}
