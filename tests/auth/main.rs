//! API keys, tenants and roles, as users and operators meet them: real processes, a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod desk;

mod commands;
