//! Passes a long body on to its handler while it arrives, at the pace of whoever is slower.
//!
//! The handler gets the last chunk when the client has sent every byte that it announced, and not
//! otherwise: whatever else happens ends the private connection, and the handler reads an error.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;
use super::answer::{Answer, interim};
use super::client::{Client, is_retry};
use super::head::Admitted;
use super::pool::{Lease, NoAnswer, NoUpstream, Upstream};
use super::refusal::Refusal;
use crate::model::limits::UPLOAD_PIECE_BYTES;

/// Room for the size of a chunk in front of its data: four digits and more, CR LF.
const SIZE_BYTES: usize = 10;
/// What marks the end of a chunk, and the end of the body.
const CHUNK_END: &[u8] = b"\r\n";
const BODY_END: &[u8] = b"0\r\n\r\n";

/// An upload that was answered.
pub struct Answered<'s> {
    /// The connection, on which the rest of the answer follows.
    pub lease: Lease<'s>,
    /// The head of the answer.
    pub answer: Answer,
    /// The answer came before the end of the body; the client may still be sending.
    pub early: bool,
}

/// Gives a request and then its body to a handler, until the handler answers.
///
/// # Errors
/// The refusal to answer with; the handler has got an error by then, if it has got anything.
pub fn upload<'s>(
    shared: &'s Shared,
    client: &mut Client,
    request: &Admitted,
    forward: &[u8],
    out: &mut Vec<u8>,
) -> Result<Answered<'s>, Refusal> {
    let mut lease = shared.pool.checkout().map_err(|none| match none {
        NoUpstream::Busy => Refusal::busy("all handlers are busy"),
        NoUpstream::Stopped => Refusal::busy("the gateway is stopping"),
    })?;
    lease.leave();
    let upstream = lease.upstream();
    let sent = match upstream.send(forward, b"") {
        Ok(()) => pass(shared, client, upstream, request)?,
        Err(error) if is_retry(&error) => return Err(Refusal::unanswered()),
        Err(_) => return Err(Refusal::lost()),
    };
    let early = sent == Sent::Partly;
    let deadline = shared.settings.answer_deadline;
    // After an early answer the connection cannot be used again: the rest of the body is on it.
    let closing = AtomicBool::new(true);
    let closing = if early { &closing } else { &shared.stopping };
    match upstream.read_answer(request, closing, deadline, out) {
        Ok(answer) => Ok(Answered { lease, answer, early }),
        Err(NoAnswer::TimedOut) => Err(Refusal::unanswered()),
        Err(NoAnswer::Closed | NoAnswer::Broken) => Err(Refusal::lost()),
    }
}

/// How much of a body a handler has got.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// All of it, and the mark of its end.
    Whole,
    /// It wants no more: it answers, or has gone.
    Partly,
}

/// Whoever has done something.
enum Turn {
    Client,
    Handler,
    Nobody,
}

fn pass(
    shared: &Shared,
    client: &mut Client,
    upstream: &mut Upstream,
    request: &Admitted,
) -> Result<Sent, Refusal> {
    let settings = &shared.settings;
    let mut piece = Piece::new();
    let mut left = request.body_length;
    // Until a handler wants the body, a client that asks first is not the one that is waited for.
    let mut asks = request.expects_continue && client.buffered().is_empty();
    let asked = Instant::now();
    let mut allowance = settings.body_deadline;
    while left > 0 {
        if client.buffered().is_empty() {
            let limit = if asks {
                settings.answer_deadline.saturating_sub(asked.elapsed())
            } else {
                allowance.min(settings.body_deadline)
            };
            let begun = Instant::now();
            let turn = wait(client, upstream, limit);
            if !asks {
                allowance = allowance.saturating_sub(begun.elapsed());
            }
            match turn {
                Turn::Client => {}
                Turn::Handler => {
                    if !takes_leave(upstream) {
                        return Ok(Sent::Partly);
                    }
                    if asks && client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
                        return Err(ended_early());
                    }
                    asks = false;
                    continue;
                }
                Turn::Nobody if asks => return Err(Refusal::unanswered()),
                Turn::Nobody => return Err(Refusal::too_slow("body")),
            }
        }
        // A client may send its body without leave, after having asked for it.
        asks = false;
        let count = match client.read_piece(piece.space(left)) {
            Ok(0) => return Err(ended_early()),
            Ok(count) => count,
            Err(error) if is_retry(&error) => continue,
            Err(_) => return Err(ended_early()),
        };
        left -= count as u64;
        allowance = allowance.saturating_add(earned(count, settings.upload_rate));
        // A handler that does not read stops the client here, too.
        match upstream.send_more(piece.framed(count, left == 0)) {
            Ok(()) => {}
            Err(error) if is_retry(&error) => return Err(Refusal::unanswered()),
            // Its answer says why it reads no more.
            Err(_) => return Ok(Sent::Partly),
        }
    }
    Ok(Sent::Whole)
}

/// How much longer a client may be waited for because of so many bytes: as long as they take at the
/// slowest acceptable rate. Only what has come counts, since a length is announced for nothing. What a
/// handler takes for itself is not the client's time.
fn earned(bytes: usize, bytes_per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64)
}

fn ended_early() -> Refusal {
    Refusal::malformed("request body ended early")
}

/// Whether what the handler sends is its leave to send the body, and no more than that.
fn takes_leave(upstream: &mut Upstream) -> bool {
    // An end or an error shows again when the answer is read.
    if !matches!(upstream.fill(), Ok(1..)) {
        return false;
    }
    match interim(upstream.buffered()) {
        Some(length) => {
            upstream.consume(length);
            upstream.buffered().is_empty()
        }
        None => false,
    }
}

/// Waits for the client to send or the handler to speak; the handler's word counts first.
fn wait(client: &Client, upstream: &Upstream, limit: Duration) -> Turn {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else { return Turn::Nobody };
        let mut sockets = [
            PollFd::new(&client.socket.stream, PollFlags::IN),
            PollFd::new(&*upstream.stream, PollFlags::IN),
        ];
        match poll(&mut sockets, Some(&left)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) if !sockets[1].revents().is_empty() => return Turn::Handler,
            Ok(_) => return Turn::Client,
            Err(_) => return Turn::Nobody,
        }
        if Instant::now() >= until {
            return Turn::Nobody;
        }
    }
}

/// One chunk, whose frame is written around data that has been read in place.
struct Piece {
    bytes: Vec<u8>,
}

impl Piece {
    fn new() -> Piece {
        let frame = SIZE_BYTES + CHUNK_END.len() + BODY_END.len();
        Piece { bytes: vec![0; UPLOAD_PIECE_BYTES + frame] }
    }

    /// Where the next data goes, of which there are `left` bytes to come.
    fn space(&mut self, left: u64) -> &mut [u8] {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(UPLOAD_PIECE_BYTES);
        &mut self.bytes[SIZE_BYTES..SIZE_BYTES + most]
    }

    /// The first `count` bytes of the space as a chunk; `last` marks the end of the body, too.
    fn framed(&mut self, count: usize, last: bool) -> &[u8] {
        let size = format!("{count:x}\r\n");
        let start = SIZE_BYTES - size.len();
        self.bytes[start..SIZE_BYTES].copy_from_slice(size.as_bytes());
        let mut end = SIZE_BYTES + count;
        for mark in [CHUNK_END, if last { BODY_END } else { b"" }] {
            self.bytes[end..end + mark.len()].copy_from_slice(mark);
            end += mark.len();
        }
        &self.bytes[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_framed_where_it_lies() {
        let mut piece = Piece::new();
        assert_eq!(piece.space(u64::MAX).len(), UPLOAD_PIECE_BYTES);
        piece.space(5).copy_from_slice(b"hello");
        assert_eq!(piece.framed(5, false), b"5\r\nhello\r\n");
        assert_eq!(piece.framed(4, true), b"4\r\nhell\r\n0\r\n\r\n");
        let whole = piece.framed(UPLOAD_PIECE_BYTES, true);
        assert!(whole.starts_with(b"10000\r\nhell") && whole.ends_with(b"\r\n0\r\n\r\n"));
    }

    #[test]
    fn bytes_that_have_come_are_worth_time() {
        assert_eq!(earned(0, 1000), Duration::ZERO);
        assert_eq!(earned(1500, 1000), Duration::from_millis(1500));
        assert_eq!(earned(UPLOAD_PIECE_BYTES, 0), Duration::from_secs(65_536));
    }
}
