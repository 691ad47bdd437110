//! API keys, tenants and roles, as users and operators meet them: real processes, a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "this area uses the part it needs")]
#[path = "../gateway/stage.rs"]
mod stage;

#[allow(dead_code, reason = "this area uses the part it needs")]
#[path = "../gateway/jetstream.rs"]
mod jetstream;

mod desk;
mod house;

mod audit;
mod burst;
mod commands;
mod matrix;
mod outage;
mod revocation;
mod secrets;
mod tenants;
mod wheels;
