//! The loop that accepts connections and gives each a thread; no error ends it.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;
use super::client::Socket;
use super::connection;
use super::head::new_request_id;
use super::refusal::Refusal;
use crate::thread::{ThreadSet, ThreadSetError};

/// Wait after an error that would only repeat (no descriptors, no memory): first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts until the other end of `wake` is closed. The listener must not block.
pub fn accept(listener: &TcpListener, wake: &UnixStream, shared: &Arc<Shared>, crews: &Arc<Crews>) {
    let mut back_off = BACK_OFF.0;
    loop {
        if !wait(Some(listener), wake, None) {
            return;
        }
        match listener.accept() {
            Ok((stream, address)) => {
                back_off = BACK_OFF.0;
                admit(stream, address.ip(), shared, crews);
            }
            Err(error) if is_momentary(error.kind()) => {}
            Err(error) => {
                log::warn!(error:% = error; "cannot accept a connection");
                if !wait(None, wake, Some(back_off)) {
                    return;
                }
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// The threads that serve connections.
pub struct Crews {
    pub serving: ThreadSet,
    /// A few more, for telling clients that there is no place.
    pub refusing: ThreadSet,
}

fn admit(stream: TcpStream, peer: IpAddr, shared: &Arc<Shared>, crews: &Crews) {
    // Some systems hand the listener's mode down.
    #[cfg(not(target_os = "linux"))]
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    let socket = Arc::new(Socket::new(stream));
    let registered = shared.register(&socket);
    let served = {
        let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
        crews.serving.spawn(move || {
            // Moved in, so that it ends with the thread even if that panics.
            let _registered = registered;
            connection::serve(&shared, &socket, peer);
        })
    };
    let Err(error) = served else { return };
    if let ThreadSetError::Spawn(error) = &error {
        log::warn!(error:% = error; "cannot start a thread for a connection");
    }
    let registered = shared.register(&socket);
    let refused = {
        let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
        crews.refusing.spawn(move || {
            let _registered = registered;
            connection::turn_away(&shared, &socket);
        })
    };
    if refused.is_err() {
        // One try without waiting; this thread has other connections to accept.
        let reply = Refusal::busy("too many connections").reply(&new_request_id(), false);
        if socket.stream.set_nonblocking(true).is_ok() {
            let _ = std::io::Write::write(&mut &socket.stream, &reply);
        }
    }
}

/// Waits for the listener, for `limit` or for the end; `false` at the end.
fn wait(listener: Option<&TcpListener>, wake: &UnixStream, limit: Option<Duration>) -> bool {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let stop = PollFd::new(wake, PollFlags::IN);
    let ready = match listener {
        Some(listener) => {
            let mut sources = [stop, PollFd::new(listener, PollFlags::IN)];
            let ready = poll(&mut sources, limit.as_ref());
            ready.map(|_| !sources[0].revents().is_empty())
        }
        None => {
            let mut sources = [stop];
            let ready = poll(&mut sources, limit.as_ref());
            ready.map(|_| !sources[0].revents().is_empty())
        }
    };
    // A failed poll (a signal, no memory) is looked into by the accept that follows.
    !ready.unwrap_or(false)
}

/// Errors that concern one connection only.
fn is_momentary(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
    )
}
