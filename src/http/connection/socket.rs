//! The socket of one client, shared between the thread that serves it and those that may close it.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

/// The low bits of a state are its phase, the others the microseconds from `born` to its beginning.
const PHASE_BITS: u32 = 3;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It has been accepted, and no request has come.
    New,
    /// It has been answered, and no further request has begun.
    Idle,
    Head,
    /// A body is arriving, or an answer is on its way.
    Busy,
    /// A handler has its request.
    Handling,
    /// An answer is written while it is made.
    Streaming,
    Closed,
}

impl Phase {
    const ALL: [Phase; 7] =
        [Phase::New, Phase::Idle, Phase::Head, Phase::Busy, Phase::Handling, Phase::Streaming, Phase::Closed];

    /// The phase in a state of a [`Socket`].
    fn of(state: u64) -> Phase {
        Phase::ALL.get((state & PHASE_MASK) as usize).copied().unwrap_or(Phase::Closed)
    }
}

#[derive(Debug, Clone)]
pub struct Handled {
    pub request_id: Arc<str>,
    pub is_head: bool,
}

pub struct Socket {
    /// Both halves; never cloned, since a clone would cost a second descriptor.
    pub stream: TcpStream,
    /// The phase and its beginning in one: apart, a reader could take the beginning of one phase for that of
    /// the next, and give up a request that has just begun.
    state: AtomicU64,
    born: Instant,
    /// Set while the phase is `Handling`.
    handled: Mutex<Option<Handled>>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        Socket {
            stream,
            state: AtomicU64::new(Phase::New as u64),
            born: Instant::now(),
            handled: Mutex::new(None),
        }
    }

    /// Goes on to a phase; `false` when the connection was closed meanwhile, and stays so.
    pub fn enter(&self, phase: Phase) -> bool {
        let entered = self.age() << PHASE_BITS | phase as u64;
        let enter = |now| (Phase::of(now) != Phase::Closed).then_some(entered);
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }

    /// A handler gets this request; `false` when the connection was closed meanwhile.
    pub fn enter_handling(&self, handled: Handled) -> bool {
        *self.handled.lock() = Some(handled);
        self.enter(Phase::Handling)
    }

    /// What it is at, and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let state = self.state.load(Ordering::SeqCst);
        (Phase::of(state), self.since(state))
    }

    /// Closes the connection if no request is being served on it.
    pub fn close_if_idle(&self) -> bool {
        self.close_if(|phase| matches!(phase, Phase::New | Phase::Idle | Phase::Head))
    }

    /// Closes the connection if it waits for its next request and none has arrived; its thread may not have
    /// read it yet.
    pub fn close_if_unasked(&self) -> bool {
        self.phase().0 == Phase::Idle && !self.has_input() && self.close_from(Phase::Idle)
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

    /// Takes the request from a handler that has had it for `deadline`; `None` when there is no such handler,
    /// or when it has just answered. The caller sends the last answer of this connection with
    /// [`Socket::send_last`].
    pub fn give_up(&self, deadline: Duration) -> Option<Handled> {
        let state = self.state.load(Ordering::SeqCst);
        if Phase::of(state) != Phase::Handling || self.since(state) < deadline {
            return None;
        }
        let closed = Phase::Closed as u64;
        // Only from this very state: the next request on this connection has just begun.
        self.state.compare_exchange(state, closed, Ordering::SeqCst, Ordering::SeqCst).ok()?;
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
        !self.polled(hang_up()).is_empty()
    }

    /// Whether the client has sent something that was not read, and is still there.
    pub fn has_input(&self) -> bool {
        self.polled(hang_up() | PollFlags::IN) == PollFlags::IN
    }

    fn polled(&self, flags: PollFlags) -> PollFlags {
        let mut polled = [PollFd::new(&self.stream, flags)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut polled, Some(&now)) {
            Ok(_) => polled[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    fn close_if(&self, wanted: impl Fn(Phase) -> bool) -> bool {
        let closes = |now| {
            let phase = Phase::of(now);
            (phase != Phase::Closed && wanted(phase)).then_some(Phase::Closed as u64)
        };
        let closed = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closes).is_ok();
        if closed {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        closed
    }

    fn since(&self, state: u64) -> Duration {
        Duration::from_micros(self.age().saturating_sub(state >> PHASE_BITS))
    }

    /// In microseconds; their high bits stay clear for thousands of years.
    fn age(&self) -> u64 {
        self.born.elapsed().as_micros() as u64
    }
}

/// A client that has closed its sending side will not read much longer either.
fn hang_up() -> PollFlags {
    #[cfg(target_os = "linux")]
    return PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    PollFlags::HUP
}
