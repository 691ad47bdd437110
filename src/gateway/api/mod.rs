//! The handlers, one verb per file. Each reads its request, decides, and acts through the bus.

pub(super) mod audit;
pub mod cancel;
pub mod error;
pub mod events;
pub mod health;
mod json_fault;
pub mod list;
pub mod metrics;
pub mod openapi;
pub mod route;
pub mod schema;
pub mod show;
pub mod submit;
pub mod submit_yaml;
pub mod watch;
pub mod wheels;
pub mod workers;
