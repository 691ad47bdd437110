//! Flows in Python through the executor seam: real pyoco, real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod deaths;
mod ends;
mod examples;
mod frozen;
mod generations;
mod host_faults;
mod hostile;
mod leftovers;
mod odd;
mod records;
mod served;
mod steady;
mod task_limits;
mod values;
mod wheels;
