//! The worker against a real nats-server: what becomes of a job, whatever happens to those around it.
//!
//! Where processes matter the worker is `pyoco-worker`, where counters and gates in tasks matter it
//! runs in this process. Every snapshot that a test looks at is checked over all its revisions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod flows;
mod golden;

mod attempts;
mod burst;
mod cancel;
mod dispositions;
mod fencing;
mod lost_nats;
mod outage;
mod permissions;
mod pulling;
mod redelivery;
mod refused_pulls;
mod registry;
mod scripted;
mod snapshots;
mod stopping;
mod systemd;
mod time_limit;
mod unable;
mod wheels_built;
mod wheels_fit;
mod wheels_kept;
mod wheels_unpacked;
