//! Wheels through real gateways, real object stores and real workers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../gateway/stage.rs"]
#[allow(dead_code, reason = "each area uses the part it needs")]
mod stage;
#[path = "../support/mod.rs"]
mod support;

mod crew;
mod desk;
mod hold;
mod large;
mod race;
mod registry;
mod rush;
mod sync;
