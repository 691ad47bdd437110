//! Beside the Python package: its gateway, worker and client together with ours, on one nats-server. And
//! beside the release before this one.
//!
//! The Python programs are the ones of the environment that `tests/setup.sh` makes, started as their
//! users start them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod flows;

mod api_keys;
mod python_client;
mod python_flows;
mod python_gateway;
mod python_worker;
mod upgrade;
mod wheel_lives;
mod wheel_verdicts;
mod wheel_workers;
mod wheels;
