//! A stand-in for systemd: the socket of `NOTIFY_SOCKET`, and what a service says there.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::cluster::{Options, with_env};
use super::wait::PATIENCE;

/// What a service is told; it is to show life four times as often.
pub const WATCHDOG: Duration = Duration::from_millis(400);

pub struct Systemd {
    socket: UnixDatagram,
    place: String,
    /// Every line that has come, oldest first.
    pub seen: Vec<String>,
    _folder: TempDir,
}

impl Systemd {
    /// With a socket in the file system.
    pub fn start() -> Systemd {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("notify").to_str().unwrap().to_owned();
        Systemd { socket: UnixDatagram::bind(&place).unwrap(), place, seen: Vec::new(), _folder: folder }
    }

    /// With an abstract socket, as systemd has one for services with a root directory of their own.
    pub fn start_abstract() -> Systemd {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap().to_owned();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Systemd { socket, place: format!("@{name}"), seen: Vec::new(), _folder: folder }
    }

    /// The variables of a service.
    pub fn options(&self) -> Options {
        let usec = WATCHDOG.as_micros().to_string();
        with_env(&[("NOTIFY_SOCKET", &self.place), ("WATCHDOG_USEC", &usec)])
    }

    /// Waits for a line that satisfies `wanted`; the lines before it, and with it.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let (end, begun) = (Instant::now() + PATIENCE, self.seen.len());
        loop {
            let lines = self.receive(end);
            assert!(!lines.is_empty(), "{what}: not within {PATIENCE:?}: {:?}", self.seen);
            if lines.iter().any(|line| wanted(line)) {
                return self.seen[begun..].to_vec();
            }
        }
    }

    /// Everything that comes within `time`.
    pub fn listen(&mut self, time: Duration) -> Vec<String> {
        let (end, begun) = (Instant::now() + time, self.seen.len());
        while !self.receive(end).is_empty() {}
        self.seen[begun..].to_vec()
    }

    /// The lines of the next message; none when `end` comes first.
    fn receive(&mut self, end: Instant) -> Vec<String> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).unwrap();
        let mut bytes = [0; 4096];
        let length = match self.socket.recv(&mut bytes) {
            Ok(length) if Instant::now() < end => length,
            Ok(_) => return Vec::new(),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Vec::new(),
            Err(e) => panic!("{e}"),
        };
        let lines: Vec<String> =
            std::str::from_utf8(&bytes[..length]).unwrap().lines().map(str::to_owned).collect();
        self.seen.extend(lines.iter().cloned());
        lines
    }
}

/// How often a service has shown life.
pub fn beats(lines: &[String]) -> usize {
    lines.iter().filter(|line| *line == "WATCHDOG=1").count()
}
