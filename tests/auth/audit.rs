//! The audit: every change leaves a line that says who, what, to which thing, and what came of it.

use serde_json::{Value, json};

use crate::submit;
use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::wait::{PATIENCE, eventually};

fn words(entry: &Value) -> (&str, &str, &str) {
    let word = |name: &str| entry[name].as_str().unwrap_or_default();
    (word("action"), word("object"), word("outcome"))
}

#[test]
fn who_changes_something_is_noted() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let made = cluster.key("team-a", "operator");
    let (key, key_id) = (made.text(), made.id());
    let viewer = cluster.key("team-a", "viewer");
    let run_id = submit(&cluster.as_key(&key));
    let cancelled = cluster.as_key(&key).post(&format!("/runs/{run_id}/cancel"), &json!({}));
    assert_eq!(cancelled.status, 200);
    // What is not allowed is noted, too; what changes nothing is not, nor what strangers try.
    assert_eq!(cluster.as_key(&viewer.text()).post("/runs", &json!({"flow_name": "x"})).status, 403);
    assert_eq!(cluster.as_key(&key).get("/runs").status, 200);
    let wrong = format!("pyoco_{key_id}.{}", "x".repeat(32));
    assert_eq!(cluster.as_key(&wrong).post("/runs", &json!({"flow_name": "x"})).status, 403);
    cluster.admin().revoke(&viewer);

    let admin = cluster.admin();
    let all = admin.audit(&[]);
    let told: Vec<_> = all.iter().map(words).collect();
    let viewer_id = viewer.id();
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
    assert!(!text.contains(&made.secret()) && !text.contains(&viewer.secret()));

    let mine = admin.audit(&["--actor", &format!("api_key:{key_id}")]);
    assert_eq!(mine.iter().map(|entry| words(entry).0).collect::<Vec<_>>(), ["run.submit", "run.cancel"]);
    assert_eq!(admin.audit(&["--action", "run.cancel"]).len(), 1);
    assert_eq!(admin.audit(&["--action", "key"]).len(), 3);
    assert_eq!(words(&admin.audit(&["--limit", "1"])[0]).0, "key.revoke");
    assert_eq!(admin.run(&["audit", "--since", "soon"]).code, Some(1));
}

#[test]
fn a_stretch_of_time_is_found_and_an_empty_audit_is_empty() {
    let cluster = Cluster::new().start();
    let admin = cluster.admin();
    assert!(admin.audit(&[]).is_empty());
    let log = cluster.bus.audit();
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
    assert_eq!(admin.audit(&["--since", "1h"]).len(), 20);
    assert!(log.append("run submit", b"{}").is_err());
}

#[test]
fn without_keys_the_address_is_all_that_is_known() {
    let cluster = Cluster::with_gateway();
    let headers = [("Content-Type", "application/json"), ("User-Agent", "a test")];
    let body = br#"{"flow_name": "main"}"#;
    assert_eq!(cluster.request("POST", "/runs", &headers, body).status, 200);
    let all = cluster.admin().audit(&[]);
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0]["actor"], &all[0]["user_agent"]), (&json!("anonymous"), &json!("a test")));
}

#[test]
fn an_entry_that_nats_does_not_acknowledge_is_stored_later_and_once() {
    let cluster = Cluster::with_gateway();
    // A stream in the place of the audit that takes everything, each repeat too, and acknowledges nothing.
    let silent = json!({"name": "SILENT", "subjects": ["pyoco.audit.>"], "no_ack": true,
        "duplicate_window": 100_000_000});
    jetstream::call(&cluster.nats, "STREAM.CREATE.SILENT", &silent);
    let run_id = submit(&cluster);
    let sent = || jetstream::all(&cluster.nats, "SILENT", "pyoco.audit.>");
    let ids = eventually(PATIENCE, "it is sent again", || {
        let ids: Vec<String> = sent().into_iter().map(|message| message.headers).collect();
        (ids.len() > 1).then_some(ids)
    });
    assert!(ids[0].contains("Nats-Msg-Id") && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    jetstream::call(&cluster.nats, "STREAM.DELETE.SILENT", &json!({}));
    let all = eventually(PATIENCE, "the entry is there", || {
        let all = cluster.admin().audit(&[]);
        (!all.is_empty()).then_some(all)
    });
    assert_eq!(all.iter().map(words).collect::<Vec<_>>(), [("run.submit", run_id.as_str(), "done")]);
}
