//! The gateway's own requests to itself, by which systemd learns that it is ready and lives.
//!
//! A request goes the way of every client: through the port, the accept loop and a thread of a connection. A
//! gateway in which one of them hangs does not answer it. One that has no place left refuses it, and lives.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};
use serde_json::Value;

use crate::systemd::{self, Loop, Pulse};
use crate::thread::{Service, StopSignal};

/// Between two looks whether the gateway has become ready.
const READY_INTERVAL: Duration = Duration::from_millis(250);
/// For the answer to `/readyz`, whose test of a write may take seconds.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// More than any answer to a probe.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Starts the requests, if systemd wants to hear of them.
pub(super) fn start(gateway: SocketAddr) -> io::Result<Option<Service>> {
    let Some(interval) = systemd::interval() else { return Ok(None) };
    Service::start_small("systemd-probe", move |stop| run(reachable(gateway), interval, stop)).map(Some)
}

fn run(gateway: SocketAddr, interval: Duration, stop: &StopSignal) {
    let mut pulse = Pulse::new(Loop::Http);
    let mut is_ready = false;
    loop {
        if !is_ready {
            match get(gateway, "/readyz", READY_DEADLINE) {
                Ok((200, _)) => {
                    is_ready = true;
                    systemd::status(Loop::Http, format!("gateway: serves {gateway}"));
                    systemd::ready(Loop::Http);
                }
                Ok((_, body)) => systemd::status(Loop::Http, format!("gateway: waits for {}", lacks(&body))),
                Err(e) => systemd::status(Loop::Http, format!("gateway: does not answer: {e}")),
            }
        } else {
            match get(gateway, "/health", interval * 2) {
                Ok((200, _)) => drop(pulse.beat()),
                // A gateway without a place for one more lives: a restart would cost all others theirs.
                Ok((status, _)) => {
                    log::warn!(status = status; "the gateway refuses its own request");
                    pulse.beat();
                }
                Err(e) if is_refusal(&e) => {
                    log::warn!(error = e.to_string(); "the gateway refuses its own request");
                    pulse.beat();
                }
                Err(e) => log::warn!(error = e.to_string(); "the gateway does not answer its own request"),
            }
        }
        let pause = if is_ready { interval } else { READY_INTERVAL };
        select! {
            recv(stop) -> _ => return,
            recv(after(pause)) -> _ => {}
        }
    }
}

/// Whether the gateway has closed the connection, which a thread that hangs does not.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
}

/// Where a gateway that listens on every address can be reached.
fn reachable(gateway: SocketAddr) -> SocketAddr {
    let host = match gateway.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(host, gateway.port())
}

/// The checks of `/readyz` that have failed.
fn lacks(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let failed = |(name, check): (&String, &Value)| (check["status"] == "unavailable").then(|| name.clone());
    let failed: Vec<String> = body["checks"].as_object().into_iter().flatten().filter_map(failed).collect();
    if failed.is_empty() { "its own answer".to_owned() } else { failed.join(", ") }
}

/// Status and body of an answer that has come whole within `limit`.
fn get(gateway: SocketAddr, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    let end = Instant::now() + limit;
    let left = || Some(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
    let mut stream = TcpStream::connect_timeout(&gateway, limit)?;
    stream.set_write_timeout(left())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(left())?;
        let length = stream.read(&mut piece)?;
        if length == 0 || answer.len() as u64 > MAX_ANSWER_BYTES {
            break;
        }
        answer.extend_from_slice(&piece[..length]);
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_connection_that_is_closed_is_a_sign_of_life_and_silence_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts, so the system alone has the connection.
        let silent = get(address, "/health", Duration::from_millis(100)).unwrap_err();
        assert!(!is_refusal(&silent), "{silent:?}");
        // The first one is the silent one's.
        let closing = thread::spawn(move || (0..2).for_each(|_| drop(listener.accept().unwrap())));
        let refused = get(address, "/health", Duration::from_secs(10)).unwrap_err();
        assert!(is_refusal(&refused), "{refused:?}");
        closing.join().unwrap();
        // The port is closed: nothing lives behind it.
        let gone = get(address, "/health", Duration::from_secs(10)).unwrap_err();
        assert!(!is_refusal(&gone), "{gone:?}");
    }
}
