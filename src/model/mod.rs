//! Plain data and rules that both sides of every wire share; no I/O, no threads.
//!
//! The JSON documents: runs ([`run`]), tasks ([`task`]), jobs ([`job`]), worker records ([`worker`]),
//! DLQ entries ([`dlq`]), wheels and their names ([`wheel`]), API keys ([`key`]), audit entries
//! ([`audit`]). Also the allowed names ([`name`]), the numbers of errors ([`error`]), the reader of
//! `flow.yaml` ([`workflow`]), and bounds ([`limits`]). It knows nothing of NATS, HTTP or processes.

#[macro_use]
mod words;

pub mod audit;
pub mod clock;
pub mod dlq;
pub mod error;
pub mod job;
pub mod json;
pub mod key;
pub mod limits;
pub mod name;
pub mod network;
pub mod run;
pub mod task;
pub mod wheel;
pub mod worker;
pub mod workflow;
