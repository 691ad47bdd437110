//! A key that is revoked, has expired or was changed: every gateway knows at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::desk;
use crate::house::{self, House};
use crate::support::wait::{PATIENCE, eventually};

/// From the end of the command to the last request that is let in.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_revoked_key_is_refused_on_every_gateway_within_a_second_and_its_streams_end() {
    let house = House::start();
    let second = house.another_gateway();
    let (made, other) = (house.key("t", "operator"), house.key_text("t", "operator"));
    let key = desk::text(&made);
    let addresses = [house.address(), second.address];
    let run_id = house.submit(&key);
    let watch = format!("/runs/{run_id}/watch?timeout_sec=600");
    let mut streams = Vec::new();
    for address in addresses {
        eventually(PATIENCE, "the run on both", || {
            (house::get(address, &key, &format!("/runs/{run_id}")).status == 200).then_some(())
        });
        for path in ["/events", &watch] {
            streams.push(house::stream(address, &key, path));
        }
    }
    let mut others = house::stream(house.address(), &other, "/events");
    desk::json(&house.nats, &["revoke", "--key-id", &desk::id(&made)]);
    let revoked = Instant::now();
    for address in addresses {
        eventually(AT_ONCE, "403", || {
            (house::get(address, &key, "/runs").status == 403).then_some(())
        });
    }
    for stream in &mut streams {
        // The end of a chunked answer; or 20 s of silence, which would be no end.
        stream.take_until(b"\r\n0\r\n\r\n").unwrap();
    }
    assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
    let answer = house::get(second.address, &key, &watch);
    assert_eq!(house::detail(&answer), "invalid api key");
    let next = house.submit(&other);
    others.take_until(next.as_bytes()).unwrap();
}

#[test]
fn a_key_that_expires_ends_its_streams() {
    let house = House::start();
    let create = ["create", "--tenant", "t", "--role", "viewer", "--expires-in", "3s"];
    let key = desk::text(&desk::json(&house.nats, &create));
    house.wait_status(&key, "/runs", 200);
    let mut events = house::stream(house.address(), &key, "/events");
    events.take_until(b"\r\n0\r\n\r\n").unwrap();
    assert_eq!(house.get(&key, "/runs").status, 403);
}

#[test]
fn a_rotated_key_hands_over() {
    let house = House::start();
    let old = house.key("t", "submitter");
    let run_id = house.submit(&desk::text(&old));
    let rotate = |key_id: &str, more: &[&str]| {
        let new = desk::json(&house.nats, &[&["rotate", "--key-id", key_id], more].concat());
        house.wait_status(&desk::text(&new), &format!("/runs/{run_id}"), 200);
        new
    };
    let second = rotate(&desk::id(&old), &["--overlap", "3s"]);
    assert_eq!(house.get(&desk::text(&old), "/runs").status, 200, "still good");
    house.wait_status(&desk::text(&old), "/runs", 403);
    rotate(&desk::id(&second), &[]);
    house.wait_status(&desk::text(&second), "/runs", 403);
}

#[test]
fn a_record_that_was_changed_or_deleted_counts_at_once() {
    let house = House::start();
    let made = house.key("t", "operator");
    let (key, record_key) = (desk::text(&made), format!("api_keys.{}", desk::id(&made)));
    let keys = house.bus.auth();
    let submit = || house.post(&key, "/runs", &json!({"flow_name": "m"})).status;
    assert_eq!(submit(), 200);
    let mut record = desk::record(&house.bus, &desk::id(&made));
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
        eventually(AT_ONCE, &format!("a changed {field} to count"), || {
            (submit() == 403).then_some(())
        });
        assert_eq!(house.get(&key, "/runs").status, reading, "{field}");
        record = good.clone();
        keys.put(&record_key, record.to_string().as_bytes()).unwrap();
        eventually(AT_ONCE, "the good record", || (submit() == 200).then_some(()));
    }
    // The gateway may note the use of the key in this moment.
    eventually(AT_ONCE, "the record to be deleted", || {
        let revision = keys.get(&record_key).unwrap().unwrap().revision;
        keys.delete(&record_key, revision).ok()
    });
    house.wait_status(&key, "/runs", 403);
}
