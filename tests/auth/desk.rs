//! Where keys are made: `pyoco-server-admin api-key` against the nats-server of one test.

use pyoco_server::bus::Bus;
use serde_json::Value;

pub use crate::stage::connect;
use crate::support::nats::NatsServer;
use crate::support::process::{Binary, Finished, run};
use crate::support::wait::PATIENCE;

/// The pepper of all tests.
pub const PEPPER: &str = "pepper-of-the-tests";

/// The whole key of what `create` and `rotate` print.
pub fn text(made: &Value) -> String {
    made["api_key"].as_str().expect("no key").to_owned()
}

/// The id of the key.
pub fn id(made: &Value) -> String {
    made["key_id"].as_str().expect("no key id").to_owned()
}

/// What follows the dot.
pub fn secret(made: &Value) -> String {
    text(made).split_once('.').expect("no secret").1.to_owned()
}

/// Runs `api-key` with these arguments to its end.
pub fn finish(nats: &NatsServer, arguments: &[&str]) -> Finished {
    let mut command = Binary::Admin.command();
    command.env("PYOCO_AUTH_PEPPER", PEPPER).args(["--nats-url", &nats.url(), "api-key"]);
    run(command.args(arguments), b"", PATIENCE)
}

/// The same, which must succeed; what it prints.
pub fn json(nats: &NatsServer, arguments: &[&str]) -> Value {
    let finished = finish(nats, arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A key of a tenant in a role.
pub fn make(nats: &NatsServer, tenant: &str, role: &str) -> Value {
    json(nats, &["create", "--tenant", tenant, "--role", role])
}

/// The record of a key as it lies in its bucket.
pub fn record(bus: &Bus, key_id: &str) -> Value {
    let entry = bus.auth().get(&format!("api_keys.{key_id}")).unwrap().expect("no record");
    serde_json::from_slice(&entry.value).unwrap()
}
