//! The loop that accepts connections and gives each a thread; no error ends it.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::head::new_request_id;
use super::socket::{Phase, Socket};
use super::{last_answer, serve, turn_away};
use crate::http::Shared;
use crate::http::error::{self, ErrorReply};
use crate::http::service::Service;
use crate::thread::{ThreadSet, ThreadSetError};

/// Wait after an error that would only repeat (no descriptors, no memory): first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The threads that serve connections.
pub struct Crews {
    /// One per connection.
    pub serving: ThreadSet,
    /// A few more, for telling clients that there is no place.
    pub refusing: ThreadSet,
}

/// Accepts until the other end of `wake` is closed. The listener must not block.
pub fn accept<S: Service>(
    listener: &TcpListener,
    wake: &UnixStream,
    shared: &Arc<Shared<S>>,
    crews: &Arc<Crews>,
) {
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

fn admit<S: Service>(stream: TcpStream, peer: IpAddr, shared: &Arc<Shared<S>>, crews: &Crews) {
    // Some systems hand the listener's mode down.
    #[cfg(not(target_os = "linux"))]
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    let socket = Arc::new(Socket::new(stream));
    if has_place(shared) {
        let registered = shared.register(&socket);
        let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
        let served = crews.serving.spawn(move || {
            // Moved in, so that it ends with the thread even if that panics.
            let _registered = registered;
            serve(&shared, &socket, peer);
        });
        match served {
            Ok(()) => return,
            Err(ThreadSetError::Full(_)) => {}
            Err(error) => log::warn!(error:% = error; "cannot start a thread for a connection"),
        }
    }
    let refused = {
        let registered = shared.register(&socket);
        let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
        crews.refusing.spawn(move || {
            let _registered = registered;
            turn_away(&shared, &socket);
        })
    };
    if refused.is_err() {
        // One try without waiting; this thread has other connections to accept.
        let refusal = ErrorReply::from(&error::TOO_MANY_CONNECTIONS);
        socket.send_last(&last_answer(refusal, &new_request_id(), false));
    }
}

/// Whether one more connection may be served; if all places are taken, the connection that has been idle
/// for the longest time is closed for it.
fn has_place<S: Service>(shared: &Shared<S>) -> bool {
    let limit = shared.settings.max_connections;
    let sockets = shared.sockets();
    if sockets.len() < limit {
        return true;
    }
    let open = sockets.values().filter(|socket| socket.phase().0 != Phase::Closed).count();
    if open < limit {
        return true;
    }
    let idle = sockets.values().filter_map(|socket| match socket.phase() {
        (Phase::Idle, since) => Some((since, socket)),
        _ => None,
    });
    // It may have sent a request at this very moment, and then it stays.
    idle.max_by_key(|(since, _)| *since).is_some_and(|(_, socket)| socket.close_from(Phase::Idle))
}

/// Waits for the listener, for `limit` or for the end; `false` at the end.
fn wait(listener: Option<&TcpListener>, wake: &UnixStream, limit: Option<Duration>) -> bool {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let stop = PollFd::new(wake, PollFlags::IN);
    let mut sources = match listener {
        Some(listener) => vec![stop, PollFd::new(listener, PollFlags::IN)],
        None => vec![stop],
    };
    // A failed poll (a signal, no memory) is looked into by the accept that follows.
    let ready = poll(&mut sources, limit.as_ref());
    !ready.is_ok_and(|_| !sources[0].revents().is_empty())
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
