//! The body of a request: read whole before its handler is called, or by the handler while it arrives.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::time::{Duration, Instant};

use super::chunked::Decoder;
use super::head::BodyEnd;
use super::socket::Phase;
use super::wire::Wire;
use crate::http::application::Conduct;
use crate::http::budget::{Budget, Reservation};
use crate::http::error::{self, Condition};
use crate::model::limits::FREE_BUFFER_BYTES;

/// The body as a [`Request`](crate::http::Request) has it.
pub enum Body {
    /// All of it, and how much of it a reader has taken.
    Whole {
        bytes: Vec<u8>,
        taken: usize,
    },
    Arriving(Box<Arriving>),
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Body::Whole { bytes, taken } => {
                let count = (&bytes[*taken..]).read(out)?;
                *taken += count;
                Ok(count)
            }
            Body::Arriving(arriving) => arriving.read(out),
        }
    }
}

/// Tells data from what frames it, up to the end of the body.
struct Framed {
    coding: Coding,
    /// The answer when more comes than the route takes.
    too_large: &'static Condition,
}

enum Coding {
    Length { left: u64 },
    Chunked { decoder: Decoder, allowed: u64 },
}

impl Framed {
    fn new(end: BodyEnd, conduct: &Conduct) -> Framed {
        let coding = match end {
            BodyEnd::Length(left) => Coding::Length { left },
            BodyEnd::Chunked => Coding::Chunked { decoder: Decoder::default(), allowed: conduct.max_body },
        };
        Framed { coding, too_large: conduct.too_large }
    }

    fn has_ended(&self) -> bool {
        match &self.coding {
            Coding::Length { left } => *left == 0,
            Coding::Chunked { decoder, .. } => decoder.is_done(),
        }
    }

    /// Reads some data into `out`, which has room; zero at the end of the body and at no other place.
    fn read(&mut self, wire: &mut Wire, out: &mut [u8], until: Instant) -> Result<usize, &'static Condition> {
        if self.has_ended() {
            return Ok(0);
        }
        match &mut self.coding {
            Coding::Length { left } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
                match wire.read_some(&mut out[..most], until).map_err(failure)? {
                    0 => Err(&error::BODY_ENDED_EARLY),
                    count => {
                        *left -= count as u64;
                        Ok(count)
                    }
                }
            }
            Coding::Chunked { decoder, allowed } => loop {
                if !wire.read_ahead(until).map_err(failure)? {
                    return Err(&error::BODY_ENDED_EARLY);
                }
                let decoded = decoder.decode(wire.buffered(), out);
                let (used, written) = decoded.map_err(|_| &error::BROKEN_CHUNKS)?;
                wire.consume(used);
                *allowed = allowed.checked_sub(written as u64).ok_or(self.too_large)?;
                if written > 0 || decoder.is_done() {
                    return Ok(written);
                }
            },
        }
    }
}

fn failure(error: io::Error) -> &'static Condition {
    match error.kind() {
        ErrorKind::TimedOut => &error::BODY_TOO_SLOW,
        _ => &error::BODY_ENDED_EARLY,
    }
}

/// Reads a body whole. Memory follows what has really arrived, and what goes beyond a small free part is
/// drawn from `budget`.
pub fn read_whole<'b>(
    wire: &mut Wire,
    end: BodyEnd,
    conduct: &Conduct,
    deadline: Duration,
    budget: &'b Budget,
) -> Result<(Vec<u8>, Reservation<'b>), &'static Condition> {
    let mut reserved = budget.empty();
    // One byte more than is taken shows that chunks go on.
    let most = match end {
        BodyEnd::Length(length) => length,
        BodyEnd::Chunked => conduct.max_body.saturating_add(1),
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if matches!(end, BodyEnd::Length(_)) && most > budget.limit() + FREE_BUFFER_BYTES {
        return Err(conduct.too_large);
    }
    let mut framed = Framed::new(end, conduct);
    let mut body = vec![0; most.min(FREE_BUFFER_BYTES)];
    let mut filled = 0;
    let until = Instant::now() + deadline;
    while !framed.has_ended() {
        if filled == body.len() {
            let grown = most.min(body.len() * 2).max(filled + 1);
            if !reserved.grow(grown - body.len()) {
                return Err(&error::TOO_MANY_BODIES);
            }
            body.reserve_exact(grown - body.len());
            body.resize(grown, 0);
        }
        filled += framed.read(wire, &mut body[filled..], until)?;
    }
    body.truncate(filled);
    Ok((body, reserved))
}

/// How slowly a body may arrive.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub silence: Duration,
    /// Bytes per second below which the client is given up, once `silence` is used up.
    pub rate: u64,
}

/// A body that its handler reads. What has come of it may be acted on when its end was seen (a read of
/// zero bytes), and not before; any other end is an error, now and each time after.
pub struct Arriving {
    wire: Wire,
    framed: Framed,
    pace: Pace,
    /// How long the client may still be waited for.
    allowance: Duration,
    expects_continue: bool,
    /// Why it cannot be read any more.
    failed: Option<&'static Condition>,
}

impl Arriving {
    pub fn new(wire: Wire, end: BodyEnd, conduct: &Conduct, expects_continue: bool, pace: Pace) -> Arriving {
        let framed = Framed::new(end, conduct);
        Arriving { wire, framed, pace, allowance: pace.silence, expects_continue, failed: None }
    }

    /// Gives the connection back: whether all of the body was read, or why it could not be.
    pub fn end(self) -> (Wire, Result<bool, &'static Condition>) {
        let end = self.failed.map_or(Ok(self.framed.has_ended()), Err);
        (self.wire, end)
    }

    /// Waits for the client; that time is not the handler's.
    fn read_from_client(&mut self, out: &mut [u8]) -> Result<usize, &'static Condition> {
        if self.framed.has_ended() {
            return Ok(0);
        }
        if !self.wire.socket.enter(Phase::Busy) {
            return Err(&error::BODY_ENDED_EARLY);
        }
        // A client that has sent something does not wait for leave any more.
        if std::mem::take(&mut self.expects_continue) && self.wire.buffered().is_empty() {
            self.wire.write_all(&mut [IoSlice::new(CONTINUE)]).map_err(failure)?;
        }
        let begun = Instant::now();
        let until = begun + self.allowance.min(self.pace.silence);
        let count = self.framed.read(&mut self.wire, out, until)?;
        self.allowance = self.allowance.saturating_sub(begun.elapsed());
        self.allowance = self.allowance.saturating_add(earned(count, self.pace.rate));
        if self.wire.socket.enter(Phase::Handling) { Ok(count) } else { Err(&error::BODY_ENDED_EARLY) }
    }
}

pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Read for Arriving {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let read = match self.failed {
            Some(condition) => Err(condition),
            None => self.read_from_client(out),
        };
        read.map_err(|condition| {
            self.failed = Some(condition);
            // Handlers are told no more: this floor gives the answer.
            io::Error::new(ErrorKind::UnexpectedEof, error::BODY_ENDED_EARLY.detail)
        })
    }
}

/// How much longer a client may be waited for because of so many bytes: as long as they take at the
/// slowest acceptable rate. Only what has come counts, since a length is announced for nothing.
fn earned(bytes: usize, bytes_per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_have_come_are_worth_time() {
        assert_eq!(earned(0, 1000), Duration::ZERO);
        assert_eq!(earned(1500, 1000), Duration::from_millis(1500));
        assert_eq!(earned(65_536, 0), Duration::from_secs(65_536));
    }
}
