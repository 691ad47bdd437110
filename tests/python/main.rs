//! Flows in Python through the executor seam: real pyoco, real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/flow.rs"]
#[allow(dead_code, reason = "each area uses the part it needs")]
mod flow;
#[path = "../support/mod.rs"]
mod support;

mod stage;

mod ends;
mod values;
