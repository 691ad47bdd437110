//! The client's side of a connection: reads and writes with total deadlines, small buffers.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memchr_iter;

use super::head::{check_beginning, malformed};
use super::socket::{Phase, Socket};
use crate::http::error::{self, Refusal};
use crate::model::limits::MAX_HEAD_BYTES;

/// What is still read from a client that was refused, so that it sees the answer and not a reset. A proxy
/// sends megabytes before it looks for an answer, and takes a reset for a gateway that is broken.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
const LINGER_DEADLINE: Duration = Duration::from_secs(2);
/// What a connection holds before it has sent anything worth more.
const FIRST_BUFFER_BYTES: usize = 4 * 1024;
/// The kernel takes a timeout of zero for none at all.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub enum NoHead {
    /// The client is gone, has been silent for too long, or the server stops: no answer is due.
    Gone,
    Refused(Refusal),
}

/// The reading and writing side of a [`Socket`], owned by its thread.
pub struct Wire {
    pub socket: Arc<Socket>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The read timeout that is set on the socket now; setting it again costs a system call.
    armed: Duration,
    /// The read timeout to work with while deadlines are far away.
    tick: Duration,
    write_deadline: Duration,
}

impl Wire {
    /// `tick` is how long one read may block: at most the shortest of the deadlines.
    ///
    /// # Errors
    /// When the socket does not take its options: it is closed already.
    pub fn new(socket: Arc<Socket>, tick: Duration, write_deadline: Duration) -> io::Result<Wire> {
        socket.stream.set_nodelay(true)?;
        socket.stream.set_read_timeout(Some(tick))?;
        socket.stream.set_write_timeout(Some(write_deadline))?;
        let buffer = vec![0; FIRST_BUFFER_BYTES];
        Ok(Wire { socket, buffer, start: 0, end: 0, armed: tick, tick, write_deadline })
    }

    /// Reads up to the end of a head and gives its length in [`Wire::buffered`]. `idle` bounds
    /// the wait for the first byte, `deadline` runs from that byte to the end of the head.
    pub fn read_head(&mut self, idle: Duration, deadline: Duration) -> Result<usize, NoHead> {
        let refused = |condition: &'static _| NoHead::Refused(Refusal::from(condition));
        let until = Instant::now() + idle;
        let mut skipped = 0;
        while !self.has_begun(&mut skipped) {
            if skipped > MAX_HEAD_BYTES {
                return Err(refused(&error::HEAD_TOO_LARGE));
            }
            self.compact();
            if !matches!(self.fill(until), Ok(1..)) {
                return Err(NoHead::Gone);
            }
        }
        self.compact();
        if !self.socket.enter(Phase::Head) {
            return Err(NoHead::Gone);
        }
        let until = Instant::now() + deadline;
        let mut scanned = 0;
        let mut checked = false;
        loop {
            match head_end(self.buffered(), &mut scanned) {
                Ok(Some(length)) if length <= MAX_HEAD_BYTES => return Ok(length),
                Ok(Some(_)) => return Err(refused(&error::HEAD_TOO_LARGE)),
                Ok(None) => {}
                Err(refusal) => return Err(NoHead::Refused(refusal)),
            }
            if self.end - self.start >= MAX_HEAD_BYTES {
                return Err(refused(&error::HEAD_TOO_LARGE));
            }
            if !checked {
                checked = true;
                check_beginning(self.buffered()).map_err(NoHead::Refused)?;
            }
            self.make_room();
            match self.fill(until) {
                Ok(0) => return Err(NoHead::Gone),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Err(refused(&error::HEAD_TOO_SLOW));
                }
                Err(_) => return Err(NoHead::Gone),
            }
        }
    }

    /// Whether a request has begun to arrive. Empty lines before it are to be ignored (RFC 9112, 2.2); this
    /// consumes and counts their bytes.
    pub fn has_begun(&mut self, skipped: &mut usize) -> bool {
        while self.buffered().starts_with(b"\r\n") {
            self.start += 2;
            *skipped += 2;
        }
        !matches!(self.buffered(), b"" | b"\r")
    }

    /// Bytes that have been read and not been consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Moves what has been read already, or else what one read gives, into `piece`; zero when the
    /// client is gone.
    ///
    /// # Errors
    /// `TimedOut` when nothing has come by `until`; else as `read`.
    pub fn read_some(&mut self, piece: &mut [u8], until: Instant) -> io::Result<usize> {
        let early = piece.len().min(self.end - self.start);
        if early > 0 {
            piece[..early].copy_from_slice(&self.buffered()[..early]);
            self.consume(early);
            return Ok(early);
        }
        loop {
            self.arm(until)?;
            match (&self.socket.stream).read(piece) {
                Err(error) if is_retry(&error) => {}
                other => return other,
            }
        }
    }

    /// Makes sure that something is in [`Wire::buffered`]; `false` when the client is gone.
    pub fn read_ahead(&mut self, until: Instant) -> io::Result<bool> {
        if self.start == self.end {
            self.compact();
            return Ok(self.fill(until)? > 0);
        }
        Ok(true)
    }

    /// Writes all of the parts, in one call where the system takes them; the deadline is for the whole.
    ///
    /// # Errors
    /// When the client is gone, or does not read.
    pub fn write_all(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut parts = parts;
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        let until = Instant::now() + self.write_deadline;
        let mut is_slow = false;
        while left > 0 {
            match (&self.socket.stream).write_vectored(parts) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left -= count;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(error) if is_retry(&error) => {}
                Err(error) => return Err(error),
            }
            if left > 0 {
                // The client reads more slowly than we write.
                is_slow = true;
                let patience = until.saturating_duration_since(Instant::now());
                if patience.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                self.socket.stream.set_write_timeout(Some(patience.max(LEAST_TIMEOUT)))?;
            }
        }
        if is_slow {
            self.socket.stream.set_write_timeout(Some(self.write_deadline))?;
        }
        Ok(())
    }

    /// Answers with `reply` and closes such that the client can read it: what it still sends is
    /// swallowed for a short while, since closing with unread input would reset the connection.
    pub fn close_with(mut self, reply: &[u8]) {
        let sent = self.write_all(&mut [IoSlice::new(reply)]);
        if sent.is_ok() && self.socket.stream.shutdown(Shutdown::Write).is_ok() {
            self.linger();
        }
    }

    /// Closes after a complete answer. The client may have sent more than was read, which would
    /// turn the close into a reset that overtakes the answer; so this waits for it to close first.
    /// `hurry` leaves the wait out unless it is known to be needed.
    pub fn finish(mut self, hurry: bool) {
        let needed = self.start < self.end || !hurry;
        if needed && self.socket.stream.shutdown(Shutdown::Write).is_ok() {
            self.linger();
        }
    }

    fn linger(&mut self) {
        self.buffer.resize(FIRST_BUFFER_BYTES.max(self.buffer.len()), 0);
        let until = Instant::now() + LINGER_DEADLINE;
        let mut swallowed = 0;
        while swallowed < LINGER_BYTES {
            (self.start, self.end) = (0, 0);
            match self.fill(until) {
                Ok(count @ 1..) => swallowed += count as u64,
                _ => return,
            }
        }
    }

    /// One read into the free part of the buffer; `TimedOut` when `until` has passed.
    fn fill(&mut self, until: Instant) -> io::Result<usize> {
        loop {
            self.arm(until)?;
            match (&self.socket.stream).read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if is_retry(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the next read return by `until`, with as few system calls as possible: a timeout that
    /// is too short only costs another read.
    fn arm(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let wanted = self.tick.min(left);
        if self.armed > wanted || self.armed < wanted / 4 {
            let wanted = wanted.max(LEAST_TIMEOUT);
            self.socket.stream.set_read_timeout(Some(wanted))?;
            self.armed = wanted;
        }
        Ok(())
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() > FIRST_BUFFER_BYTES && self.end <= FIRST_BUFFER_BYTES {
            self.buffer.truncate(FIRST_BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    /// Space for at least one more byte of a head.
    fn make_room(&mut self) {
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.compact();
        }
        if self.end == self.buffer.len() {
            let grown = (self.buffer.len() * 2).min(MAX_HEAD_BYTES + 4);
            self.buffer.resize(grown.max(self.end + 1), 0);
        }
    }
}

/// A timeout of the socket (the caller looks at its own deadline) or a signal.
pub fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Finds the end of a head, looking at each byte once. A line must end in CR LF: readers disagree
/// about a lone LF or CR, and requests are smuggled through such disagreements.
fn head_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, Refusal> {
    for at in memchr_iter(b'\n', &bytes[*scanned..]).map(|at| *scanned + at) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(malformed("malformed request: line without carriage return"));
        }
        if bytes[..=at].ends_with(b"\r\n\r\n") {
            return Ok(Some(at + 1));
        }
    }
    *scanned = bytes.len();
    Ok(None)
}
