//! The loop that accepts connections and gives each a thread; no error ends it.

use std::cmp::Reverse;
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
use crate::http::application::Application;
use crate::http::error::{self, ErrorReply};
use crate::thread::{ThreadSet, ThreadSetError};

/// Wait after an error that would only repeat (no descriptors, no memory): first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Connections that are taken at the end at most; the system keeps no more waiting.
const MAX_WAITING: usize = 4096;

pub struct ConnectionThreads {
    pub serving: ThreadSet,
    /// A few more, for telling clients that there is no place.
    pub refusing: ThreadSet,
}

/// Accepts until the other end of `wake` is closed. The listener must not block.
pub fn accept<S: Application>(
    listener: &TcpListener,
    wake: &UnixStream,
    shared: &Arc<Shared<S>>,
    threads: &Arc<ConnectionThreads>,
) {
    let mut back_off = BACK_OFF.0;
    loop {
        if !wait(Some(listener), wake, None) {
            return admit_waiting(listener, shared, threads);
        }
        match listener.accept() {
            Ok((stream, address)) => {
                back_off = BACK_OFF.0;
                admit(stream, address.ip(), shared, threads);
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

/// Takes the connections that the system has accepted already: it would reset them when the port is closed.
fn admit_waiting<S: Application>(
    listener: &TcpListener,
    shared: &Arc<Shared<S>>,
    threads: &Arc<ConnectionThreads>,
) {
    for _ in 0..MAX_WAITING {
        match listener.accept() {
            Ok((stream, address)) => admit(stream, address.ip(), shared, threads),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn admit<S: Application>(
    stream: TcpStream,
    peer: IpAddr,
    shared: &Arc<Shared<S>>,
    threads: &ConnectionThreads,
) {
    // Some systems hand the listener's mode down.
    #[cfg(not(target_os = "linux"))]
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    let socket = Arc::new(Socket::new(stream));
    if has_place(shared) {
        let registered = shared.register(&socket);
        let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
        let served = threads.serving.spawn(move || {
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
        threads.refusing.spawn(move || {
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
fn has_place<S: Application>(shared: &Shared<S>) -> bool {
    let limit = shared.settings.max_connections;
    let sockets = shared.sockets();
    if sockets.len() < limit {
        return true;
    }
    let open = sockets.values().filter(|socket| socket.phase().0 != Phase::Closed).count();
    open < limit || close_longest_idle(sockets.values())
}

/// Closes the connection that has been idle for the longest time; `false` when none is idle.
fn close_longest_idle<'s>(sockets: impl Iterator<Item = &'s Arc<Socket>>) -> bool {
    let since = |socket: &'s Arc<Socket>| match socket.phase() {
        (Phase::Idle, since) => Some((since, socket)),
        _ => None,
    };
    let mut idle: Vec<_> = sockets.filter_map(since).collect();
    idle.sort_unstable_by_key(|(since, _)| Reverse(*since));
    idle.iter().any(|(_, socket)| socket.close_if_unasked())
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

fn is_momentary(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_connection_with_a_request_on_it_does_not_make_place() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = Arc::new(Socket::new(listener.accept().unwrap().0));
            assert!(socket.enter(Phase::Idle));
            std::thread::sleep(Duration::from_millis(5));
            (client, socket)
        };
        let [(mut asking, longest), (_second, second), (_third, third)] = [(); 3].map(|()| connect());
        asking.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        longest.stream.peek(&mut [0]).unwrap();
        let all = [third, longest, second];
        let closed = || all.each_ref().map(|socket| socket.phase().0 == Phase::Closed);
        assert!(close_longest_idle(all.iter()));
        assert_eq!(closed(), [false, false, true]);
        assert!(close_longest_idle(all.iter()));
        assert_eq!(closed(), [true, false, true]);
        assert!(!close_longest_idle(all.iter()));
    }
}
