//! Flows in Python through the executor seam: real pyoco, real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(deprecated, reason = "the tests' own access to JetStream is the crate that `bus` uses")]

#[path = "../support/flow.rs"]
#[allow(dead_code, reason = "each area uses the part it needs")]
mod flow;
#[path = "../support/mod.rs"]
mod support;

#[path = "../worker/history.rs"]
#[allow(dead_code, reason = "each area uses the part it needs")]
mod history;
#[path = "../worker/lab.rs"]
#[allow(dead_code, reason = "each area uses the part it needs")]
mod lab;
#[path = "../worker/workers.rs"]
#[allow(dead_code, reason = "each area uses the part it needs")]
mod workers;

mod shelf;
mod stage;

mod chaos;
mod deaths;
mod ends;
mod examples;
mod generations;
mod hostile;
mod odd;
mod served;
mod steady;
mod values;
mod wheels;
