//! The short-lived consumer of a watch, and what is asked of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{BATCH, End};
use crate::bus::Result;
use crate::bus::connection::inbox::Route;
use crate::bus::connection::link::Link;
use crate::bus::connection::message::Message;

/// The server's sign of life while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(2);
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// One consumer on the server, and what was asked of it.
pub(super) struct Consumer {
    /// The socket that it lives on.
    pub(super) generation: Option<u64>,
    pub(super) route: Route,
    pub(super) link: Link,
    pub(super) pull_subject: String,
    pub(super) pulls: u64,
    pub(super) outstanding: u64,
    pub(super) consumer_seq: u64,
    pub(super) heard: Instant,
    pub(super) compare_at: Instant,
    /// Where the watch stood when a comparison last found it behind.
    pub(super) was_behind_at: Option<u64>,
}

impl Consumer {
    /// Counts what was delivered or expired, and asks for more before the server runs dry.
    pub(super) fn spend(&mut self, count: u64) -> Result<()> {
        self.outstanding = self.outstanding.saturating_sub(count);
        if self.outstanding <= BATCH / 2 { self.pull() } else { Ok(()) }
    }

    pub(super) fn take_status(&mut self, message: &Message) -> Result<Option<End>> {
        match message.status() {
            // A heartbeat.
            Some(100) => Ok(None),
            // A pull has expired with so many messages not sent.
            Some(408) => {
                let unused = message.header("Nats-Pending-Messages");
                self.spend(unused.and_then(|n| n.parse().ok()).unwrap_or(BATCH))?;
                Ok(None)
            }
            status => Ok(Some(End::Rebuild(format!("the server ended the pull ({status:?})")))),
        }
    }

    pub(super) fn pull(&mut self) -> Result<()> {
        self.pulls += 1;
        self.outstanding += BATCH;
        let body = json!({
            "batch": BATCH,
            "expires": PULL_EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        let reply = self.route.reply_subject(self.pulls);
        self.link.publish(&self.pull_subject, Some(&reply), body.to_string().as_bytes())
    }
}

/// Ephemeral pull consumer: everything present, or what came after a sequence.
pub(super) fn consumer_config(name: &str, subjects: &str, after: Option<u64>) -> Value {
    let mut config = json!({
        "name": name,
        "filter_subject": subjects,
        "ack_policy": "none",
        "mem_storage": true,
        "num_replicas": 1,
        // Far above our longest silence, so that a lost consumer goes by itself.
        "inactive_threshold": 60_000_000_000u64,
    });
    match after {
        None => config["deliver_policy"] = "last_per_subject".into(),
        Some(seq) => {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = (seq + 1).into();
        }
    }
    config
}
