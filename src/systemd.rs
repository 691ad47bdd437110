//! Tells systemd about this process (`Type=notify`): ready, stopping, its state in words, and that it lives.
//!
//! There is one such connection per process, as there is one log. `WATCHDOG=1` has no thread of its own: the
//! loops that the process exists for show life with a [`Pulse`], and the last one of them to do so since the
//! last `WATCHDOG=1` sends the next one. A loop that hangs ends them. Without `NOTIFY_SOCKET`, and in
//! programs that never call [`init`], all of this does nothing.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, never};
use parking_lot::Mutex;

/// What systemd tells a service in its environment. It is for this process alone, not for its children.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Longest time between two signs of life of a loop, whatever `WATCHDOG_USEC` says.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// A loop shows life this often within the time after which systemd ends the process.
const BEATS_PER_WATCHDOG: u32 = 4;
/// For systemd to take a message; one that it did not take is sent again at the next sign of life.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A loop without which the process is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// The way of a request through the gateway, from the public port to the answer.
    Http,
    Chores,
    Puller,
}

static SYSTEMD: OnceLock<Systemd> = OnceLock::new();

struct Systemd {
    socket: UnixDatagram,
    address: SocketAddr,
    loops: &'static [Loop],
    /// Whether `WATCHDOG=1` is asked for.
    has_watchdog: bool,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The loops that can do their work.
    ready: Vec<Loop>,
    has_told_ready: bool,
    is_stopping: bool,
    /// The loops that have shown life since the last `WATCHDOG=1`.
    alive: Vec<Loop>,
    last_watchdog: Option<Instant>,
    /// In the order in which loops first had something to say.
    words: Vec<(Loop, String)>,
}

/// Connects this process with systemd if `variable`, a look into the environment, says that it is a service.
/// It is ready when all of `loops` are, and lives as long as all of them do.
pub fn init(loops: &'static [Loop], variable: impl Fn(&str) -> Option<OsString>) {
    let Some(place) = variable("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else { return };
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_for_us).map(Duration::from_micros);
    let interval = watchdog.map_or(MAX_INTERVAL, |time| time / BEATS_PER_WATCHDOG);
    let interval = interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
    let connected = address(place.as_bytes()).and_then(|address| Ok((open_socket()?, address)));
    match connected {
        Ok((socket, address)) => {
            let has_watchdog = watchdog.is_some();
            let state = Mutex::default();
            // A second call changes nothing.
            let _ = SYSTEMD.set(Systemd { socket, address, loops, has_watchdog, interval, state });
        }
        Err(e) => {
            log::warn!(error = e.to_string(); "cannot tell systemd anything: NOTIFY_SOCKET is unusable")
        }
    }
}

/// An address beginning with `@` is one without a file.
fn address(place: &[u8]) -> io::Result<SocketAddr> {
    match place.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(place)),
    }
}

fn open_socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

/// Says that a loop can do its work. `READY=1` is sent when all of them can.
pub fn ready(of: Loop) {
    let Some(systemd) = SYSTEMD.get() else { return };
    let mut state = systemd.state.lock();
    if !state.ready.contains(&of) {
        state.ready.push(of);
    }
    systemd.tell_ready(&mut state);
}

/// Says that the process is about to end. Only the first call counts.
pub fn stopping() {
    let Some(systemd) = SYSTEMD.get() else { return };
    let mut state = systemd.state.lock();
    if !state.is_stopping {
        state.is_stopping = true;
        systemd.send("STOPPING=1\nSTATUS=stopping");
    }
}

/// What a loop is at, for `systemctl status`.
pub fn status(of: Loop, text: String) {
    let Some(systemd) = SYSTEMD.get() else { return };
    let mut state = systemd.state.lock();
    // A line feed would begin another assignment.
    let text = text.replace(['\n', '\r'], " ");
    match state.words.iter_mut().find(|(other, _)| *other == of) {
        Some((_, before)) if *before == text => return,
        Some((_, before)) => *before = text,
        None => state.words.push((of, text)),
    }
    let words: Vec<&str> = state.words.iter().map(|(_, text)| text.as_str()).collect();
    if !state.is_stopping {
        systemd.send(&format!("STATUS={}", words.join("; ")));
    }
}

impl Systemd {
    fn tell_ready(&self, state: &mut State) {
        let is_ready = self.loops.iter().all(|of| state.ready.contains(of));
        if is_ready && !state.has_told_ready && !state.is_stopping {
            state.has_told_ready = self.send("READY=1");
        }
    }

    fn beat(&self, of: Loop) {
        let mut state = self.state.lock();
        self.tell_ready(&mut state);
        if !state.alive.contains(&of) {
            state.alive.push(of);
        }
        let is_soon = state.last_watchdog.is_some_and(|at| at.elapsed() < self.interval / 2);
        if self.has_watchdog && !is_soon && self.loops.iter().all(|of| state.alive.contains(of)) {
            state.alive.clear();
            state.last_watchdog = Some(Instant::now());
            self.send("WATCHDOG=1");
        }
    }

    /// Whether systemd has taken it.
    fn send(&self, message: &str) -> bool {
        let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
        if let Err(e) = &sent {
            log::debug!(error = e.to_string(), message = message; "systemd does not take a message");
        }
        sent.is_ok()
    }
}

/// The signs of life of a loop, which calls [`Pulse::beat`] on each turn and wakes by [`Pulse::next`].
pub struct Pulse {
    of: Loop,
    /// The next sign of life; `None` when nobody waits for it.
    due: Option<Instant>,
}

impl Pulse {
    /// A pulse that begins at once.
    pub fn new(of: Loop) -> Pulse {
        Pulse { of, due: interval().map(|_| Instant::now()) }
    }

    /// Shows life if it is time for that, and tells whether it was.
    pub fn beat(&mut self) -> bool {
        let Some(systemd) = SYSTEMD.get().filter(|_| self.due.is_some_and(|due| due <= Instant::now()))
        else {
            return false;
        };
        systemd.beat(self.of);
        self.due = Some(Instant::now() + systemd.interval);
        true
    }

    /// Readable when the next sign of life is due.
    pub fn next(&self) -> Receiver<Instant> {
        self.due.map_or_else(never, at)
    }
}

/// The time between two signs of life of a loop; `None` when nobody waits for them.
pub fn interval() -> Option<Duration> {
    SYSTEMD.get().map(|systemd| systemd.interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// One that is not the process's own, and what it sends.
    fn connected(name: &str, loops: &'static [Loop], interval: Duration) -> (Systemd, UnixDatagram) {
        let name = format!("@pyoco-{name}-{}", std::process::id());
        let address = address(name.as_bytes()).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, state) = (open_socket().unwrap(), Mutex::default());
        (Systemd { socket, address, loops, has_watchdog: true, interval, state }, receiver)
    }

    fn receive(receiver: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = receiver.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_loop_that_hangs_ends_the_signs_of_life_of_all() {
        let (systemd, receiver) = connected("hangs", &[Loop::Chores, Loop::Http], Duration::ZERO);
        for _ in 0..3 {
            systemd.beat(Loop::Chores);
        }
        systemd.beat(Loop::Http);
        assert_eq!(receive(&receiver), "WATCHDOG=1");
        for _ in 0..3 {
            systemd.beat(Loop::Http);
        }
        receiver.set_nonblocking(true).unwrap();
        assert!(receiver.recv(&mut [0; 8]).is_err(), "the chores have not shown life since");
        systemd.beat(Loop::Chores);
        assert_eq!(receive(&receiver), "WATCHDOG=1");
    }

    #[test]
    fn what_systemd_did_not_take_is_said_at_the_next_sign_of_life() {
        let (systemd, receiver) = connected("late", &[Loop::Puller], PATIENCE);
        let place = systemd.address.clone();
        drop(receiver);
        systemd.state.lock().ready.push(Loop::Puller);
        systemd.tell_ready(&mut systemd.state.lock());
        let receiver = UnixDatagram::bind_addr(&place).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        systemd.beat(Loop::Puller);
        assert_eq!([receive(&receiver), receive(&receiver)], ["READY=1", "WATCHDOG=1"]);
    }
}
