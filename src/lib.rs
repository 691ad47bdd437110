//! Runs Pyoco workflows on many machines with nothing but NATS beside it.
//!
//! The crate is one house with floors; imports run downwards only, and a test keeps it so:
//! `cli` → `gateway`, `worker`, `client` → `delivery`, `flow` → `bus` → `model`; `config`, `logging`,
//! `systemd`, `thread` and `wheel_archive` serve all of them. `docs/architecture.md` holds the map.

#[doc(hidden)]
pub mod bus;
#[doc(hidden)]
pub mod cli;
pub mod client;
pub mod config;
#[doc(hidden)]
pub mod delivery;
pub mod flow;
pub mod gateway;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod logging;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod systemd;
#[doc(hidden)]
pub mod thread;
mod wheel_archive;
pub mod worker;

/// The version of this build, as `--version`, worker records and `/openapi.json` show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
