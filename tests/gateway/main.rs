//! The gateway as a user runs it: `pyoco-server up` in front of a real nats-server of its own.
//!
//! No worker runs here. What a worker would do to a run, a test does itself over a bus, so that each
//! moment of a run's life can be held still and looked at.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod described;

mod atomic;
mod cancel;
mod cancel_race;
mod clients;
mod commands;
mod doctor;
mod events;
mod forms;
mod golden;
mod idempotency;
mod installations;
mod lifecycle;
mod lists;
mod load;
mod many;
mod max_payload;
mod metrics;
mod nats_nodes;
mod openapi;
mod outage;
mod paging;
mod protocol;
mod proxies;
mod queries;
mod reconcile;
mod rescue;
mod rolling;
mod schemathesis;
mod submits;
mod systemd;
mod tolerance;
mod unread_log;
mod vanished;
mod watch;
mod watchers;
mod wire;
mod workers;
