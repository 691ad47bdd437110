//! The public side of a connection: reads and writes with total deadlines, small buffers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::budget::{Budget, Reservation};
use super::head::check_beginning;
use super::refusal::Refusal;
use crate::model::limits::{FREE_BUFFER_BYTES, LINGER_BYTES, LINGER_DEADLINE, MAX_HEAD_BYTES};

/// What a connection holds before it has sent anything worth more.
const FIRST_BUFFER_BYTES: usize = 4 * 1024;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const CLOSED: u8 = 2;

/// A client's socket, shared between the thread that serves it and the stop of the edge.
pub struct Socket {
    /// Both halves; never cloned, since a clone would cost a second descriptor.
    pub stream: TcpStream,
    state: AtomicU8,
}

impl Socket {
    /// Wraps an accepted connection; it starts idle.
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, state: AtomicU8::new(IDLE) }
    }

    /// A request has been read; `false` when the connection was closed as idle just before.
    pub fn begin(&self) -> bool {
        self.state.compare_exchange(IDLE, BUSY, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The answer is out. The caller looks at the stop flag *after* this: either it sees the flag,
    /// or the stop sees an idle connection.
    pub fn end(&self) {
        let _ = self.state.compare_exchange(BUSY, IDLE, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Closes the connection if no request is being served on it.
    pub fn close_if_idle(&self) {
        if self.state.compare_exchange(IDLE, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.close();
        }
    }

    /// Ends whatever reads or writes on this socket.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// How reading a head ended, other than with a head.
#[derive(Debug)]
pub enum NoHead {
    /// The client is gone, has been silent for too long, or the edge stops: nobody to answer to.
    Gone,
    /// The client gets this answer.
    Refused(Refusal),
}

/// The reading and writing side of a [`Socket`], owned by its thread.
pub struct Client {
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

impl Client {
    /// `tick` is how long one read may block: at most the shortest of the deadlines.
    ///
    /// # Errors
    /// When the socket does not take its options: it is closed already.
    pub fn new(
        socket: Arc<Socket>,
        tick: Duration,
        write_deadline: Duration,
    ) -> io::Result<Client> {
        socket.stream.set_nodelay(true)?;
        socket.stream.set_read_timeout(Some(tick))?;
        socket.stream.set_write_timeout(Some(write_deadline))?;
        let buffer = vec![0; FIRST_BUFFER_BYTES];
        Ok(Client { socket, buffer, start: 0, end: 0, armed: tick, tick, write_deadline })
    }

    /// Reads up to the end of a head and gives its length in [`Client::buffered`]. `idle` bounds
    /// the wait for the first byte, `deadline` runs from that byte to the end of the head.
    ///
    /// # Errors
    /// See [`NoHead`].
    pub fn read_head(&mut self, idle: Duration, deadline: Duration) -> Result<usize, NoHead> {
        self.compact();
        if self.start == self.end {
            let until = Instant::now() + idle;
            if !matches!(self.fill(until), Ok(1..)) {
                return Err(NoHead::Gone);
            }
        }
        let until = Instant::now() + deadline;
        let mut skipped = 0;
        let mut scanned = 0;
        let mut checked = false;
        loop {
            if scanned == 0 {
                // Empty lines before a request line are to be ignored (RFC 9112, 2.2).
                while self.buffered().starts_with(b"\r\n") && skipped <= MAX_HEAD_BYTES {
                    self.start += 2;
                    skipped += 2;
                }
            }
            match head_end(self.buffered(), &mut scanned) {
                Ok(Some(length)) if length <= MAX_HEAD_BYTES => return Ok(length),
                Ok(Some(_)) => return Err(NoHead::Refused(Refusal::head_too_large())),
                Ok(None) => {}
                Err(refusal) => return Err(NoHead::Refused(refusal)),
            }
            if self.end - self.start + skipped >= MAX_HEAD_BYTES {
                return Err(NoHead::Refused(Refusal::head_too_large()));
            }
            if !checked && !self.buffered().is_empty() && self.buffered() != b"\r" {
                checked = true;
                check_beginning(self.buffered()).map_err(NoHead::Refused)?;
            }
            self.make_room();
            match self.fill(until) {
                Ok(0) => return Err(NoHead::Gone),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Err(NoHead::Refused(Refusal::too_slow("head")));
                }
                Err(_) => return Err(NoHead::Gone),
            }
        }
    }

    /// Bytes that have been read and not been consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Consumes bytes of [`Client::buffered`].
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Reads a body of `length` bytes whole. Memory follows what has really arrived, and what goes
    /// beyond a small free part is drawn from `budget`.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn read_body<'b>(
        &mut self,
        length: u64,
        deadline: Duration,
        budget: &'b Budget,
    ) -> Result<(Vec<u8>, Reservation<'b>), Refusal> {
        let mut reserved = budget.empty();
        let Ok(length) = usize::try_from(length) else {
            return Err(Refusal::body_too_large("request body too large"));
        };
        if length > budget.limit() + FREE_BUFFER_BYTES {
            return Err(Refusal::body_too_large("request body too large"));
        }
        let early = length.min(self.end - self.start);
        let mut body = vec![0; length.min(FREE_BUFFER_BYTES)];
        let mut filled = early.min(body.len());
        body[..filled].copy_from_slice(&self.buffered()[..filled]);
        self.consume(filled);
        let until = Instant::now() + deadline;
        while filled < length {
            if filled == body.len() {
                let grown = length.min(body.len() * 2);
                if !reserved.grow(grown - body.len()) {
                    return Err(Refusal::busy("too many request bodies at once"));
                }
                body.reserve_exact(grown - body.len());
                body.resize(grown, 0);
            }
            let from_buffer = (body.len() - filled).min(self.end - self.start);
            if from_buffer > 0 {
                body[filled..filled + from_buffer].copy_from_slice(&self.buffered()[..from_buffer]);
                self.consume(from_buffer);
                filled += from_buffer;
                continue;
            }
            self.arm(until).map_err(|_| Refusal::too_slow("body"))?;
            match (&self.socket.stream).read(&mut body[filled..]) {
                Ok(0) => return Err(Refusal::malformed("request body ended early")),
                Ok(count) => filled += count,
                Err(error) if is_retry(&error) => {}
                Err(_) => return Err(Refusal::malformed("request body ended early")),
            }
        }
        Ok((body, reserved))
    }

    /// Moves what has been read already, or else what one read gives, into `piece`; zero when the
    /// client is gone. Blocks unless there is something to read.
    ///
    /// # Errors
    /// As `read`; one for which [`is_retry`] holds means nothing.
    pub fn read_piece(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let early = piece.len().min(self.end - self.start);
        if early == 0 {
            return (&self.socket.stream).read(piece);
        }
        piece[..early].copy_from_slice(&self.buffered()[..early]);
        self.consume(early);
        Ok(early)
    }

    /// Writes all of `bytes`; the deadline is for the whole of it.
    ///
    /// # Errors
    /// When the client is gone, or does not read.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let until = Instant::now() + self.write_deadline;
        match (&self.socket.stream).write(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(count) => self.write_rest(&bytes[count..], until),
            Err(error) if is_retry(&error) => self.write_rest(bytes, until),
            Err(error) => Err(error),
        }
    }

    /// The slow path: the client does not read as fast as we write.
    fn write_rest(&mut self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.socket.stream.set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
            match (&self.socket.stream).write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_retry(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.socket.stream.set_write_timeout(Some(self.write_deadline))
    }

    /// Answers with `reply` and closes such that the client can read it: what it still sends is
    /// swallowed for a short while, since closing with unread input would reset the connection.
    pub fn close_with(mut self, reply: &[u8]) {
        if self.write_all(reply).is_err() || self.socket.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        self.linger();
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
            // The kernel takes zero for "for ever".
            let wanted = wanted.max(Duration::from_millis(1));
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
    for at in *scanned..bytes.len() {
        let previous = if at == 0 { 0 } else { bytes[at - 1] };
        match bytes[at] {
            b'\n' if previous != b'\r' => {
                return Err(Refusal::malformed("malformed request: line without carriage return"));
            }
            b'\n' if bytes[..=at].ends_with(b"\r\n\r\n") => return Ok(Some(at + 1)),
            _ => {}
        }
    }
    *scanned = bytes.len();
    Ok(None)
}
