//! Keys and the pepper are nowhere but where their owners have put them.

use serde_json::{Value, json};

use crate::submit;
use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::keys::PEPPER;
use crate::support::process::{Binary, run};
use crate::support::wait::PATIENCE;

#[test]
fn no_secret_is_in_a_log_a_stream_or_an_answer() {
    let cluster = Cluster::new().with_keys().gateway().envs(&[("PYOCO_LOG_LEVEL", "trace")]).start();
    let made = cluster.key("t", "operator");
    let key = made.text();
    let wrong = format!("pyoco_{}.{}", made.id(), "wrongwrongwrongwrongwrong");
    let malformed = "pyoco_malformedmalformedmalformed";
    let mut said = String::new();
    let run_id = submit(&cluster.as_key(&key));
    for presented in [&key, &wrong, malformed] {
        for path in ["/runs", "/runs/x", "/workers", "/metrics", &format!("/runs/{run_id}"), "/nope"] {
            said += &cluster.as_key(presented).get(path).text();
        }
        said += &cluster.as_key(presented).post(&format!("/runs/{run_id}/cancel"), &json!({})).text();
        said += &cluster.as_key(presented).post("/runs", &json!({"flow_name": 5})).text();
        // In places where it does not belong.
        said += &cluster.get(&format!("/runs?key={presented}")).text();
    }
    drop(cluster.as_key(&key).open_stream("/events"));
    let used = format!("http://{}", cluster.address);
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
    let rotated = cluster.admin().keys(&["rotate", "--key-id", &made.id()]);
    said += &rotated.stderr;
    let successor: Value = serde_json::from_str(&rotated.stdout).unwrap();
    said += &cluster.admin().keys(&["list"]).stdout;

    let logs = cluster.gateways[0].process.stderr() + &cluster.gateways[0].process.stdout();
    assert!(logs.contains("answered the holder of an API key"), "the log says who");
    let mut stored = String::new();
    let streams = jetstream::call(&cluster.nats, "STREAM.NAMES", &Value::Null);
    for stream in streams["streams"].as_array().unwrap() {
        stored += &jetstream::everything(&cluster.nats, stream.as_str().unwrap());
    }
    assert!(stored.contains("$argon2id$") && stored.contains(&run_id), "{stored}");
    for secret in [
        &*made.secret(),
        successor["api_key"].as_str().unwrap().split_once('.').unwrap().1,
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
    let cluster = Cluster::new().with_keys().gateway().envs(&[("PYOCO_AUTH_PEPPER", "another one")]).start();
    let made = cluster.admin().create("t", "admin");
    // That it is known shows by the hash that it takes.
    cluster.as_key(&made.text()).wait_answer("/runs", 403);
    let good = cluster.admin().with_pepper("another one").create("t", "operator").text();
    cluster.as_key(&good).wait_answer("/runs", 200);
    assert_eq!(cluster.as_key(&made.text()).get("/runs").status, 403);
    assert_eq!(cluster.as_key(&good).metric("pyoco_auth_hashes_total"), 2.0, "both were looked at");
}
