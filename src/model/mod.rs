//! Plain data and rules that both sides of every wire share; no I/O, no threads.
//!
//! What a run, a task, a job, a worker record and a DLQ entry look like in JSON ([`run`],
//! [`task`], [`job`], [`worker`], [`dlq`]), what a wheel's name says and what is told of it ([`wheel`]), what is kept of an API key ([`key`]) and of what was done ([`audit`]),
//! which names are allowed ([`name`]), what each error is called
//! ([`error`]), how a `flow.yaml` is read ([`workflow`]), and every bound of the program
//! ([`limits`]). It knows nothing of NATS, HTTP or processes.

pub mod audit;
pub mod clock;
pub mod dlq;
pub mod error;
pub mod job;
pub mod json;
pub mod key;
pub mod limits;
pub mod name;
pub mod run;
pub mod task;
pub mod wheel;
pub mod worker;
pub mod workflow;
