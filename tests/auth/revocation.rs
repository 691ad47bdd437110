//! A key that is revoked, has expired or was changed: every gateway knows at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::submit;
use crate::support::cluster::Cluster;
use crate::support::http::Client;
use crate::support::wait::{PATIENCE, eventually};

/// From the end of the command to the last request that is let in.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_revoked_key_is_refused_on_every_gateway_within_a_second_and_its_streams_end() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let second = cluster.another_gateway();
    let (made, other) = (cluster.key("t", "operator"), cluster.key_text("t", "operator"));
    let key = made.text();
    let addresses = [cluster.address, second.address];
    let run_id = submit(&cluster.as_key(&key));
    let watch = format!("/runs/{run_id}/watch?timeout_sec=600");
    let mut streams = Vec::new();
    for address in addresses {
        eventually(PATIENCE, "the run on both", || {
            (Client::to(address).as_key(&key).get(&format!("/runs/{run_id}")).status == 200).then_some(())
        });
        for path in ["/events", &watch] {
            streams.push(Client::to(address).as_key(&key).open_stream(path));
        }
    }
    let mut others = cluster.as_key(&other).open_stream("/events");
    cluster.admin().revoke(&made);
    let revoked = Instant::now();
    for address in addresses {
        eventually(AT_ONCE, "403", || {
            (Client::to(address).as_key(&key).get("/runs").status == 403).then_some(())
        });
    }
    for stream in &mut streams {
        // The end of a chunked answer; or 20 s of silence, which would be no end.
        stream.take_until(b"\r\n0\r\n\r\n").unwrap();
    }
    assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
    let answer = second.as_key(&key).get(&watch);
    assert_eq!(answer.json()["detail"], "invalid api key");
    let next = submit(&cluster.as_key(&other));
    others.take_until(next.as_bytes()).unwrap();
}

#[test]
fn a_key_that_expires_ends_its_streams() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let create = ["create", "--tenant", "t", "--role", "viewer", "--expires-in", "3s"];
    let key = (cluster.admin().key(&create)).text();
    cluster.as_key(&key).wait_answer("/runs", 200);
    let mut events = cluster.as_key(&key).open_stream("/events");
    events.take_until(b"\r\n0\r\n\r\n").unwrap();
    assert_eq!(cluster.as_key(&key).get("/runs").status, 403);
}

#[test]
fn a_rotated_key_hands_over() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let old = cluster.key("t", "submitter");
    let run_id = submit(&cluster.as_key(&old.text()));
    let rotate = |key_id: &str, more: &[&str]| {
        let new = cluster.admin().key(&[&["rotate", "--key-id", key_id], more].concat());
        cluster.as_key(&new.text()).wait_answer(&format!("/runs/{run_id}"), 200);
        new
    };
    let second = rotate(&old.id(), &["--overlap", "3s"]);
    assert_eq!(cluster.as_key(&old.text()).get("/runs").status, 200, "still good");
    cluster.as_key(&old.text()).wait_answer("/runs", 403);
    rotate(&second.id(), &[]);
    cluster.as_key(&second.text()).wait_answer("/runs", 403);
}

#[test]
fn a_record_that_was_changed_or_deleted_counts_at_once() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let made = cluster.key("t", "operator");
    let (key, record_key) = (made.text(), format!("api_keys.{}", made.id()));
    let keys = cluster.bus.auth();
    let submit = || cluster.as_key(&key).post("/runs", &json!({"flow_name": "m"})).status;
    assert_eq!(submit(), 200);
    let mut record = made.record(&cluster.bus);
    let good = record.clone();
    for (field, value, reading) in [
        ("role", json!("viewer"), 200),
        ("role", json!("emperor"), 403),
        ("expires_at", json!(1.0), 403),
        ("phc", json!("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA"), 403),
        ("kdf", json!("plain"), 403),
    ] {
        record[field] = value;
        keys.put(&record_key, record.to_string().as_bytes()).unwrap();
        eventually(AT_ONCE, &format!("a changed {field} to count"), || (submit() == 403).then_some(()));
        assert_eq!(cluster.as_key(&key).get("/runs").status, reading, "{field}");
        record = good.clone();
        keys.put(&record_key, record.to_string().as_bytes()).unwrap();
        eventually(AT_ONCE, "the good record", || (submit() == 200).then_some(()));
    }
    // The gateway may note the use of the key in this moment.
    eventually(AT_ONCE, "the record to be deleted", || {
        let revision = keys.get(&record_key).unwrap().unwrap().revision;
        keys.delete(&record_key, revision).ok()
    });
    cluster.as_key(&key).wait_answer("/runs", 403);
}
