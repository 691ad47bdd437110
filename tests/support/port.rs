//! A TCP port that belongs to one test, also while nothing listens on it.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below the range from which the kernel takes those of outgoing connections, so that a port
/// stays ours between a stop and a restart.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A port on 127.0.0.1 that no other test takes while this value lives.
///
/// The lease is a UDP socket bound to the same number: TCP stays free for the server under test,
/// other test processes see the number as taken, and the kernel ends the lease with the process.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _mark: UdpSocket,
}

impl PortLease {
    /// Takes a free port.
    pub fn take() -> PortLease {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            // Spread by process id, so that parallel test binaries seldom meet.
            let offset = std::process::id().wrapping_mul(101).wrapping_add(step) % COUNT;
            let port = u16::try_from(FIRST + offset).expect("the range ends below 65536");
            let Ok(mark) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return PortLease { port, _mark: mark };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}
