//! Bodies that come with time: framed while they are written, and flushed when the handler flushes.

use std::io::{self, ErrorKind, IoSlice, Write};

use super::wire::Wire;
use crate::http::reply::Framing;

/// Data that is held back until a flush; a larger amount goes out by itself.
const CHUNK_BYTES: usize = 16 * 1024;

pub struct BodyWriter<'w> {
    wire: &'w mut Wire,
    framing: Framing,
    /// Of a body of known length: what has not been written yet.
    left: Option<u64>,
    pending: Vec<u8>,
    pub written: u64,
}

impl<'w> BodyWriter<'w> {
    /// The head has been written already.
    pub fn new(wire: &'w mut Wire, framing: Framing) -> BodyWriter<'w> {
        let left = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        BodyWriter { wire, framing, left, pending: Vec::new(), written: 0 }
    }

    /// Marks the end of the body.
    ///
    /// # Errors
    /// When the client is gone, or less was written than promised.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.left.is_some_and(|left| left > 0) {
            let problem = "the handler wrote less than it had announced";
            return Err(io::Error::new(ErrorKind::UnexpectedEof, problem));
        }
        self.flush()?;
        match self.framing {
            Framing::Chunked => self.wire.write_all(&mut [IoSlice::new(b"0\r\n\r\n")]),
            Framing::Length(_) | Framing::Close => Ok(()),
        }
    }

    /// Sends what is pending and then `more`, as one chunk.
    fn send(&mut self, more: &[u8]) -> io::Result<()> {
        let length = self.pending.len() + more.len();
        let (size, end) = match self.framing {
            Framing::Chunked => (format!("{length:x}\r\n"), "\r\n"),
            Framing::Length(_) | Framing::Close => (String::new(), ""),
        };
        let parts = [size.as_bytes(), &self.pending, more, end.as_bytes()];
        let sent = self.wire.write_all(&mut parts.map(IoSlice::new));
        self.pending.clear();
        sent
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| io::Error::other("the handler writes more than it has announced"))?;
        }
        self.written += bytes.len() as u64;
        if self.pending.len() + bytes.len() >= CHUNK_BYTES {
            self.send(bytes)?;
        } else {
            self.pending.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() { Ok(()) } else { self.send(&[]) }
    }
}
