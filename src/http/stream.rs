//! Bodies that come with time: written in chunks, flushed when the handler flushes.

use std::io::{self, ErrorKind, Write};

use super::reply::Framing;

/// Data that is held back until a flush; a larger amount goes out by itself.
const CHUNK_BYTES: usize = 16 * 1024;
/// Where a chunk's size should stand: whoever reads this knows that the answer broke off. It is
/// the only way to say so, because tiny_http does not let a handler close the connection.
const BROKEN_OFF: &[u8] = b"broken off\r\n";

/// Frames a body, and counts it.
pub(super) struct BodyWriter<'w> {
    out: &'w mut (dyn Write + Send),
    framing: Framing,
    /// Of a body of known length: what has not been written yet.
    left: Option<u64>,
    pending: Vec<u8>,
    /// Bytes of body so far.
    pub written: u64,
}

impl<'w> BodyWriter<'w> {
    /// `head` goes out with the first data.
    pub fn new(
        out: &'w mut (dyn Write + Send),
        framing: Framing,
        left: Option<u64>,
    ) -> BodyWriter<'w> {
        BodyWriter { out, framing, left, pending: Vec::new(), written: 0 }
    }

    /// Marks the end of the body.
    ///
    /// # Errors
    /// When the client is gone, or less was written than promised.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the handler wrote less than it had announced",
            ));
        }
        self.emit(true)
    }

    /// Tells the other side that the body is not complete. What is pending is not sent.
    pub fn break_off(&mut self) {
        if matches!(self.framing, Framing::Chunked(_)) {
            let _ = self.out.write_all(BROKEN_OFF).and_then(|()| self.out.flush());
        }
    }

    fn emit(&mut self, last: bool) -> io::Result<()> {
        if matches!(self.framing, Framing::Chunked(_)) {
            let mut chunk = Vec::with_capacity(self.pending.len() + 16);
            if !self.pending.is_empty() {
                write!(chunk, "{:x}\r\n", self.pending.len())?;
                chunk.append(&mut self.pending);
                chunk.extend_from_slice(b"\r\n");
            }
            if last {
                chunk.extend_from_slice(b"0\r\n\r\n");
            }
            self.out.write_all(&chunk)?;
        } else {
            self.out.write_all(&self.pending)?;
            self.pending.clear();
        }
        self.out.flush()
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES.saturating_sub(self.pending.len()).max(1);
        let bytes = &bytes[..bytes.len().min(room)];
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| io::Error::other("the handler writes more than it has announced"))?;
        }
        self.pending.extend_from_slice(bytes);
        self.written += bytes.len() as u64;
        if self.pending.len() >= CHUNK_BYTES {
            self.emit(false)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() { Ok(()) } else { self.emit(false) }
    }
}
