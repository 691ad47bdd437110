//! The socket of one client, shared between the thread that serves it and those that may close it.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It has been accepted, and no request has come.
    New,
    /// It has been answered, and no further request has begun.
    Idle,
    /// A head is arriving.
    Head,
    /// A body is arriving, or an answer is on its way.
    Busy,
    /// A handler has its request.
    Handling,
    /// An answer is written while it is made.
    Streaming,
    /// It is closed.
    Closed,
}

impl Phase {
    const ALL: [Phase; 7] = [
        Phase::New,
        Phase::Idle,
        Phase::Head,
        Phase::Busy,
        Phase::Handling,
        Phase::Streaming,
        Phase::Closed,
    ];

    fn of(number: u8) -> Phase {
        Phase::ALL.get(usize::from(number)).copied().unwrap_or(Phase::Closed)
    }
}

/// The request that a handler has.
#[derive(Debug, Clone)]
pub struct Handled {
    /// See [`Head::request_id`](super::head::Head::request_id).
    pub request_id: Arc<str>,
    /// It is a HEAD request.
    pub is_head: bool,
}

/// See the module.
pub struct Socket {
    /// Both halves; never cloned, since a clone would cost a second descriptor.
    pub stream: TcpStream,
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `born`.
    since: AtomicU64,
    born: Instant,
    /// Set while the phase is `Handling`.
    handled: Mutex<Option<Handled>>,
}

impl Socket {
    /// Wraps an accepted connection.
    pub fn new(stream: TcpStream) -> Socket {
        Socket {
            stream,
            phase: AtomicU8::new(Phase::New as u8),
            since: AtomicU64::new(0),
            born: Instant::now(),
            handled: Mutex::new(None),
        }
    }

    /// Goes on to a phase; `false` when the connection was closed meanwhile, and stays so.
    pub fn enter(&self, phase: Phase) -> bool {
        self.since.store(self.age(), Ordering::SeqCst);
        let enter = |now| (now != Phase::Closed as u8).then_some(phase as u8);
        self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }

    /// A handler gets this request; `false` when the connection was closed meanwhile.
    pub fn enter_handling(&self, handled: Handled) -> bool {
        *self.handled.lock() = Some(handled);
        self.enter(Phase::Handling)
    }

    /// What it is at, and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let since = self.since.load(Ordering::SeqCst);
        let phase = Phase::of(self.phase.load(Ordering::SeqCst));
        (phase, Duration::from_millis(self.age().saturating_sub(since)))
    }

    /// Closes the connection if no request is being served on it.
    pub fn close_if_idle(&self) -> bool {
        self.close_if(|phase| matches!(phase, Phase::New | Phase::Idle | Phase::Head))
    }

    /// Closes the connection if it is at `phase`, and tells whether it was.
    pub fn close_from(&self, phase: Phase) -> bool {
        self.close_if(|now| now == phase)
    }

    /// Ends whatever reads or writes on this socket.
    pub fn close(&self) {
        self.close_if(|_| true);
        // Also for one whose last answer was sent by `send_last`.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Takes the request from its handler, which has had it for too long; `None` when it has just answered.
    /// The caller sends the last answer of this connection with [`Socket::send_last`].
    pub fn give_up(&self) -> Option<Handled> {
        let closes = |now| (now == Phase::Handling as u8).then_some(Phase::Closed as u8);
        self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closes).ok()?;
        self.handled.lock().take()
    }

    /// Sends what the system takes at once of `bytes`, and ends the connection.
    pub fn send_last(&self, bytes: &[u8]) {
        // It does not block: this is another thread than the connection's own.
        let _ = send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Whether the client has closed its side, or has gone.
    pub fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.stream, hang_up())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn close_if(&self, wanted: impl Fn(Phase) -> bool) -> bool {
        let closes = |now| {
            let phase = Phase::of(now);
            (phase != Phase::Closed && wanted(phase)).then_some(Phase::Closed as u8)
        };
        let closed = self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closes).is_ok();
        if closed {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        closed
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A client that has closed its sending side will not read much longer either.
fn hang_up() -> PollFlags {
    #[cfg(target_os = "linux")]
    return PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    PollFlags::HUP
}
