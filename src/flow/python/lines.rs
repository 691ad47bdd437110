//! What a template prints, line by line.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use super::wires::{self, Waited};
use crate::model::limits::MAX_CHILD_LINE_BYTES;

/// Reads of its output in one turn; together as much as a pipe holds.
const MAX_READS: usize = 8;

/// Lines of a pipe, cut at a bound.
pub(super) struct Lines {
    pipe: Option<std::fs::File>,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        // Blocking, it would hold the keeper up; that this cannot fail on a pipe is all the same.
        let is_safe = wires::set_nonblocking(pipe.as_fd()).is_ok();
        Lines { pipe: is_safe.then(|| pipe.into()), partial: Vec::new() }
    }

    pub(super) fn waited(&self) -> Option<Waited<'_>> {
        self.pipe.as_ref().map(|pipe| Waited { fd: pipe.as_fd(), to_write: false })
    }

    /// Reads what is there, and of an endless stream so much that others have their turn.
    pub(super) fn read(&mut self, mut line: impl FnMut(&str)) {
        let mut buffer = [0; 8192];
        for _ in 0..MAX_READS {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.partial.extend_from_slice(&buffer[..length]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.pipe = None,
            }
            while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
                let whole: Vec<u8> = self.partial.drain(..=end).collect();
                line(String::from_utf8_lossy(&whole).trim_end());
            }
            if self.partial.len() > MAX_CHILD_LINE_BYTES {
                let part = std::mem::take(&mut self.partial);
                line(&String::from_utf8_lossy(&part));
            }
        }
        if self.pipe.is_none() && !self.partial.is_empty() {
            let part = std::mem::take(&mut self.partial);
            line(&String::from_utf8_lossy(&part));
        }
    }
}
