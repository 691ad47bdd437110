//! The link for large payloads, started when it is first used.
//!
//! With a connection of their own, chunks of objects never stand in front of an answer that somebody waits
//! for.

use std::time::Duration;

use parking_lot::Mutex;

use crate::bus::connection::link::Link;
use crate::bus::{Error, Result};
use crate::config::NatsConfig;

pub(crate) struct LargePayloadLink {
    nats: NatsConfig,
    link: Mutex<Option<Link>>,
}

impl LargePayloadLink {
    pub(crate) fn new(nats: &NatsConfig) -> LargePayloadLink {
        LargePayloadLink { nats: nats.clone(), link: Mutex::new(None) }
    }

    /// The link, connected; waits for that at most for `patience`.
    pub(crate) fn link(&self, patience: Duration) -> Result<Link> {
        let mut started = self.link.lock();
        let link = match &*started {
            Some(link) => link.clone(),
            None => started.insert(Link::start("bulk", &self.nats)?).clone(),
        };
        // Whoever comes next waits by itself.
        drop(started);
        if link.wait_up(patience) { Ok(link) } else { Err(Error::Disconnected) }
    }
}
