//! The handlers, one verb per file. Each reads its request, decides, and acts through the bus.

pub mod cancel;
pub mod events;
pub mod health;
pub mod list;
pub mod metrics;
pub mod openapi;
pub mod show;
pub mod submit;
pub mod submit_yaml;
pub mod watch;
pub mod wheels;
pub mod workers;
