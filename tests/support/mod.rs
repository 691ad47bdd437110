//! What all integration tests share: a real nats-server, our binaries, raw HTTP, waiting.
//!
//! Each area includes this folder with `#[path = "../support/mod.rs"] mod support;`. Nothing here
//! imitates a part of the product: servers are started for real on loopback ports of their own and
//! are gone when the test ends, also when it fails.

#![allow(dead_code, reason = "each area uses the part it needs")]

pub mod http;
pub mod nats;
pub mod port;
pub mod process;
pub mod python;
pub mod wait;
pub mod wheel;
