//! Native flows end to end through the executor seam.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod order;
mod values;
