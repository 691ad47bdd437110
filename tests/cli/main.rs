//! The command lines and the processes they start, tried from outside.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod peer;

mod bad_args;
mod client_errors;
mod help;
mod nats_child;
mod real_nats;
mod watch;
mod wheels;
