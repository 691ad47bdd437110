//! Keys and the pepper are nowhere but where their owners have put them.

use serde_json::{Value, json};

use crate::desk::{self, PEPPER};
use crate::house::{self, House};
use crate::jetstream;
use crate::support::http;
use crate::support::process::{Binary, run};
use crate::support::wait::PATIENCE;

#[test]
fn no_secret_is_in_a_log_a_stream_or_an_answer() {
    let house = House::start_with(&[("PYOCO_LOG_LEVEL", "trace")]);
    let made = house.key("t", "operator");
    let key = desk::text(&made);
    let wrong = format!("pyoco_{}.{}", desk::id(&made), "wrongwrongwrongwrongwrong");
    let malformed = "pyoco_malformedmalformedmalformed";
    let mut said = String::new();
    let run_id = house.submit(&key);
    for presented in [&key, &wrong, malformed] {
        for path in
            ["/runs", "/runs/x", "/workers", "/metrics", &format!("/runs/{run_id}"), "/nope"]
        {
            said += &house.get(presented, path).text();
        }
        said += &house.post(presented, &format!("/runs/{run_id}/cancel"), &json!({})).text();
        said += &house.post(presented, "/runs", &json!({"flow_name": 5})).text();
        // In places where it does not belong.
        said += &http::get(house.address(), &format!("/runs?key={presented}")).text();
    }
    drop(house::stream(house.address(), &key, "/events"));
    let used = format!("http://{}", house.address());
    let mut client = Binary::Client.command();
    client.env("PYOCO_API_KEY", &key).args(["--server", &used, "get", &run_id]);
    let client = run(&mut client, b"", PATIENCE);
    assert_eq!(client.code, Some(0), "{client:?}");
    let mut refused = Binary::Client.command();
    refused.args(["--server", &used, "--api-key", &wrong, "get", &run_id]);
    let refused = run(&mut refused, b"", PATIENCE);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("invalid api key"), "{refused:?}");
    said += &[client.stdout, client.stderr, refused.stdout, refused.stderr].concat();
    let rotated = desk::finish(&house.nats, &["rotate", "--key-id", &desk::id(&made)]);
    said += &rotated.stderr;
    let successor: Value = serde_json::from_str(&rotated.stdout).unwrap();
    said += &desk::finish(&house.nats, &["list"]).stdout;

    let logs = house.gateway.process.stderr() + &house.gateway.process.stdout();
    assert!(logs.contains("answered the holder of an API key"), "the log says who");
    let mut stored = String::new();
    let streams = jetstream::call(&house.nats, "STREAM.NAMES", &Value::Null);
    for stream in streams["streams"].as_array().unwrap() {
        stored += &jetstream::everything(&house.nats, stream.as_str().unwrap());
    }
    assert!(stored.contains("$argon2id$") && stored.contains(&run_id), "{stored}");
    for secret in [
        &*desk::secret(&made),
        &desk::secret(&successor),
        "wrongwrong",
        "malformedmalformed",
        PEPPER,
    ] {
        for (place, text) in [("logs", &logs), ("answers", &said), ("streams", &stored)] {
            assert!(!text.contains(secret), "{secret} is in the {place}: {text}");
        }
    }
}

#[test]
fn what_was_kept_opens_nothing_without_the_pepper() {
    let house = House::start_with(&[("PYOCO_AUTH_PEPPER", "another one")]);
    let made = desk::make(&house.nats, "t", "admin");
    // That it is known shows by the hash that it takes.
    house.wait_status(&desk::text(&made), "/runs", 403);
    let mut command = Binary::Admin.command();
    command.env("PYOCO_AUTH_PEPPER", "another one");
    command.args(["--nats-url", &house.nats.url(), "api-key", "create", "--tenant", "t"]);
    let good: Value = serde_json::from_str(&run(&mut command, b"", PATIENCE).stdout).unwrap();
    let good = desk::text(&good);
    house.wait_status(&good, "/runs", 200);
    assert_eq!(house.get(&desk::text(&made), "/runs").status, 403);
    assert_eq!(house.metric(&good, "pyoco_auth_hashes_total"), 2.0, "both were looked at");
}
