//! The largest message that the server of one connection takes.
//!
//! A server that reloads its settings applies a new `max_payload` at once and to all connections, and tells
//! nobody. It closes the connection that sends a larger message. So before a large message we read the
//! greeting that it gives to a new connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bus::connection::connect;

/// No usual setting refuses a message of this size, so no greeting is read for it.
const SMALL_BYTES: usize = 16 * 1024;
/// For how long a greeting counts.
const GREETING_VALID: Duration = Duration::from_millis(250);
/// For the greeting; a caller waits for it.
const GREETING_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) struct PayloadLimit {
    address: SocketAddr,
    at_connect: usize,
    greeted: Mutex<Greeted>,
}

#[derive(Clone, Copy)]
struct Greeted {
    at: Instant,
    limit: usize,
}

impl PayloadLimit {
    pub(crate) fn new(address: SocketAddr, at_connect: usize) -> PayloadLimit {
        let greeted = Greeted { at: Instant::now(), limit: at_connect };
        PayloadLimit { address, at_connect, greeted: Mutex::new(greeted) }
    }

    /// The limit for a message of `size` bytes. `told` is what the server has last told the connection: an
    /// account may have a limit of its own, until the server reloads.
    pub(crate) fn in_force(&self, told: usize, size: usize) -> usize {
        let Some(mut greeted) = self.greeted.try_lock_for(GREETING_TIMEOUT) else { return bound(told) };
        let known = self.known(told, *greeted);
        if size <= SMALL_BYTES.min(known / 2) || greeted.at.elapsed() < GREETING_VALID {
            return known;
        }
        if let Ok(info) = connect::greeting_within(&self.address, GREETING_TIMEOUT) {
            if info.max_payload != greeted.limit {
                log::warn!(address = self.address.to_string(), max_payload = info.max_payload;
                    "the server has another max_payload now");
            }
            greeted.limit = info.max_payload;
        }
        greeted.at = Instant::now();
        self.known(told, *greeted)
    }

    fn known(&self, told: usize, greeted: Greeted) -> usize {
        bound(if greeted.limit == self.at_connect { told } else { greeted.limit })
    }
}

/// A server that names no limit has none that we know of.
fn bound(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}
