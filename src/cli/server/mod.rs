//! `pyoco-server`: the gateway, and what it can start beside itself.
//!
//! [`nats_child`] is the nats-server of `--with-nats`: started before anything that needs it,
//! dropped after everything that used it.

pub mod nats_child;
