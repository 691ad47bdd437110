//! `pyoco-server-admin api-key`.

use pyoco_server::model::clock;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::keys::Admin;
use crate::support::nats::NatsServer;
use crate::support::process::{Binary, run};
use crate::support::wait::PATIENCE;

#[test]
fn a_key_is_printed_once_and_kept_as_a_hash() {
    let cluster = Cluster::new().start();
    let (admin, bus) = (cluster.admin(), &cluster.bus);
    let before = clock::now();
    let made = admin.key(&[
        "create",
        "--tenant",
        "team-a",
        "--role",
        "viewer",
        "--expires-in",
        "90d",
        "--note",
        "nö",
    ]);
    let keys: Vec<&String> = made.as_object().unwrap().keys().collect();
    let expected = ["key_id", "tenant_id", "api_key", "created_at", "role", "expires_at", "note"];
    assert_eq!(keys, expected);
    assert_eq!(
        (&made["tenant_id"], &made["role"], &made["note"]),
        (&json!("team-a"), &json!("viewer"), &json!("nö"))
    );
    let lasts = made["expires_at"].as_f64().unwrap() - before;
    assert!((90.0 * 86_400.0..90.0 * 86_400.0 + 60.0).contains(&lasts), "{lasts}");
    assert_eq!((made.id().len(), made.secret().len()), (24, 43));

    let record = made.record(bus);
    assert_eq!((&record["kdf"], &record["iterations"]), (&json!("argon2id"), &json!(2)));
    assert!(record["phc"].as_str().unwrap().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_eq!((&record["salt_b64"], &record["hash_b64"]), (&json!(""), &json!("")));
    assert_eq!(record["revoked_at"], Value::Null);
    assert!(!record.to_string().contains(&made.secret()));

    let second = admin.key(&["create", "--tenant", "team-b"]);
    assert_eq!((&second["role"], &second["expires_at"]), (&json!("operator"), &Value::Null));
    let finished = admin.keys(&["list"]);
    for secret in ["argon2", "phc", "hash", "salt", &made.secret(), &second.secret()] {
        assert!(!finished.stdout.contains(secret), "{secret} in {}", finished.stdout);
    }
    let list: Value = serde_json::from_str(&finished.stdout).unwrap();
    let ids: Vec<&Value> = list.as_array().unwrap().iter().map(|key| &key["key_id"]).collect();
    assert_eq!(ids, [&made["key_id"], &second["key_id"]], "the oldest first");
    assert_eq!((&list[0]["note"], &list[0]["last_used_at"]), (&json!("nö"), &Value::Null));
}

#[test]
fn a_revoked_key_stays_in_the_list_and_an_unknown_one_is_2() {
    let nats = NatsServer::start();
    let admin = Admin::ours(&nats);
    let made = admin.create("t", "admin");
    let key_id = made.id();
    let revoked = admin.keys_json(&["revoke", "--key-id", &key_id]);
    assert_eq!(revoked["key_id"], key_id.as_str());
    assert!(revoked["revoked_at"].is_f64(), "{revoked}");
    assert_eq!(admin.keys_json(&["revoke", "--key-id", &key_id]), revoked, "the first one stays");
    assert_eq!(admin.keys_json(&["list"])[0]["revoked_at"], revoked["revoked_at"]);
    for command in ["revoke", "rotate"] {
        for unknown in ["000000000000000000000000", "no key", "*", ""] {
            let finished = admin.keys(&[command, "--key-id", unknown]);
            assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
            assert!(finished.stderr.contains(r#"{"error":"not_found","key_id":"#), "{finished:?}");
        }
    }
    let finished = admin.keys(&["rotate", "--key-id", &key_id]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("is revoked or has expired"), "{finished:?}");
}

#[test]
fn a_rotated_key_has_a_successor_like_it() {
    let cluster = Cluster::new().start();
    let (admin, bus) = (cluster.admin(), &cluster.bus);
    let create = ["create", "--tenant", "t", "--role", "submitter", "--expires-in", "10d"];
    let old = admin.key(&[&create[..], &["--note", "ci"]].concat());
    let new = admin.key(&["rotate", "--key-id", &old.id()]);
    assert_ne!(new.id(), old.id());
    assert_eq!(
        (&new["tenant_id"], &new["role"], &new["note"]),
        (&json!("t"), &json!("submitter"), &json!("ci"))
    );
    let lasts = new["expires_at"].as_f64().unwrap() - new["created_at"].as_f64().unwrap();
    assert!((lasts - 864_000.0).abs() < 60.0, "{lasts}");
    assert_eq!(new["replaces"]["key_id"], old["key_id"]);
    assert!(old.record(bus)["revoked_at"].is_f64());

    let newest = admin.key(&["rotate", "--key-id", &new.id(), "--overlap", "1h"]);
    let record = new.record(bus);
    assert_eq!(record["revoked_at"], Value::Null);
    let left = record["expires_at"].as_f64().unwrap() - clock::now();
    assert!((3500.0..=3600.0).contains(&left), "{left}");
    assert_eq!(newest["replaces"]["expires_at"], record["expires_at"]);
}

#[test]
fn what_cannot_be_a_key_is_refused_before_anything_is_stored() {
    let nats = NatsServer::start();
    let admin = Admin::ours(&nats);
    let long = "n".repeat(257);
    for arguments in [
        &["create"][..],
        &["create", "--tenant", "a b"],
        &["create", "--tenant", "a.b"],
        &["create", "--tenant", ""],
        &["create", "--tenant", &long],
        &["create", "--tenant", "t", "--role", "root"],
        &["create", "--tenant", "t", "--expires-in", "soon"],
        &["create", "--tenant", "t", "--expires-in", "0d"],
        &["create", "--tenant", "t", "--note", &long],
    ] {
        let finished = admin.keys(arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
        assert!(finished.stderr.starts_with("ERR-PYOCO-0018"), "{finished:?}");
    }
    assert_eq!(admin.keys_json(&["list"]), json!([]));
    let mut command = Binary::Admin.command();
    let away = ["--nats-url", "nats://127.0.0.1:1", "api-key", "list"];
    let finished = run(command.args(away), b"", PATIENCE);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("ERR-PYOCO-0003: cannot reach NATS"), "{finished:?}");
}
