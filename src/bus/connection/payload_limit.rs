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
    greeted: Mutex<Greeted>,
}

#[derive(Clone, Copy)]
struct Greeted {
    at: Instant,
    limit: usize,
    /// The server has reloaded: what it told the connection before, or tells it between two reloads, does
    /// not follow the next one.
    has_changed: bool,
}

impl PayloadLimit {
    pub(crate) fn new(address: SocketAddr, at_connect: usize) -> PayloadLimit {
        let greeted = Greeted { at: Instant::now(), limit: at_connect, has_changed: false };
        PayloadLimit { address, greeted: Mutex::new(greeted) }
    }

    /// The limit for a message of `size` bytes. `told` is what the server has last told the connection: an
    /// account may have a limit of its own, until the server reloads.
    pub(crate) fn in_force(&self, told: usize, size: usize) -> usize {
        let Some(mut greeted) = self.greeted.try_lock_for(GREETING_TIMEOUT) else { return bound(told) };
        let known = greeted.known(told);
        if size <= SMALL_BYTES.min(known / 2) || greeted.at.elapsed() < GREETING_VALID {
            return known;
        }
        if let Ok(info) = connect::greeting_within(&self.address, GREETING_TIMEOUT) {
            if info.max_payload != greeted.limit {
                log::warn!(address = self.address.to_string(), max_payload = info.max_payload;
                    "the server has another max_payload now");
                greeted.has_changed = true;
            }
            greeted.limit = info.max_payload;
        }
        greeted.at = Instant::now();
        greeted.known(told)
    }
}

impl Greeted {
    fn known(&self, told: usize) -> usize {
        bound(if self.has_changed { self.limit } else { told })
    }
}

/// A server that names no limit has none that we know of.
fn bound(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    const LARGE: usize = 1024 * 1024;
    const SMALL: usize = 64 * 1024;

    #[test]
    fn after_a_reload_the_greetings_decide_whatever_the_connection_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limit = PayloadLimit::new(listener.local_addr().unwrap(), LARGE);
        let greet = std::thread::spawn(move || {
            for max_payload in [SMALL, LARGE] {
                let (mut stream, _) = listener.accept().unwrap();
                writeln!(stream, "INFO {{\"max_payload\":{max_payload}}}\r").unwrap();
            }
        });
        let rest = || std::thread::sleep(GREETING_VALID);
        rest();
        assert_eq!(limit.in_force(LARGE, 500_000), SMALL);
        // Another node has joined, and the server tells all connections of that and of its limit.
        rest();
        assert_eq!(limit.in_force(SMALL, 500_000), LARGE);
        greet.join().unwrap();
    }
}
