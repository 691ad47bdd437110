//! API keys, tenants and roles, as users and operators meet them: real processes, a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod bearer;
mod burst;
mod commands;
mod matrix;
mod outage;
mod revocation;
mod secrets;
mod tenants;
mod wheels;

use serde_json::json;

use support::http::Client;

/// Submits a run that must be accepted; its id.
fn submit(client: &Client) -> String {
    client.submit(&json!({"flow_name": "main", "params": {"a": 1}}))
}
