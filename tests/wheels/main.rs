//! Wheels through real gateways, real object stores and real workers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod package;

mod large;
mod race;
mod registry;
mod rush;
mod sync;
mod waiting;
