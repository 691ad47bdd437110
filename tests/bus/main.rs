//! The bus against a real nats-server: requests, KV, work queue, watch, and what outages do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod auth;
mod cluster;
mod domain;
mod kv;
mod max_payload;
mod object_trouble;
mod object_watch;
mod objects;
mod outage;
mod queue;
mod watch;

use std::time::Duration;

use pyoco_server::bus::Bus;
use pyoco_server::config::Config;
use support::nats::NatsServer;

/// A bus with short deadlines on `server`.
fn connect(server: &NatsServer) -> Bus {
    connect_with(server, Duration::from_secs(1))
}

/// The same, whose consumers wait this long for an ACK.
fn connect_with(server: &NatsServer, ack_wait: Duration) -> Bus {
    let mut config = Config::default();
    config.nats.url = server.url();
    config.nats.request_timeout = Duration::from_secs(2);
    config.resources.ack_wait = ack_wait;
    config.resources.max_deliver = 3;
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(Duration::from_secs(10)), "no connection");
    bus
}
