//! What a template prints, line by line.

use std::os::fd::{AsFd, OwnedFd};

use crate::flow::python::pipes::{self, Waited};
use crate::model::limits::MAX_CHILD_LINE_BYTES;

/// What is read in one turn: as much as a pipe holds.
const TURN_BYTES: usize = 64 * 1024;

/// Lines of a pipe, cut at a bound.
pub(super) struct Lines {
    pipe: Option<std::fs::File>,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        // Blocking, it would hold the keeper up; that this cannot fail on a pipe is all the same.
        let is_safe = pipes::set_nonblocking(pipe.as_fd()).is_ok();
        Lines { pipe: is_safe.then(|| pipe.into()), partial: Vec::new() }
    }

    pub(super) fn waited(&self) -> Option<Waited<'_>> {
        self.pipe.as_ref().map(|pipe| Waited { fd: pipe.as_fd(), to_write: false })
    }

    /// Reads what is there, and of an endless stream so much that others have their turn.
    pub(super) fn read(&mut self, mut line: impl FnMut(&str)) {
        let Some(pipe) = &mut self.pipe else { return };
        let partial = &mut self.partial;
        let is_open = pipes::read_available(pipe, TURN_BYTES, |bytes| {
            partial.extend_from_slice(bytes);
            while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
                let whole: Vec<u8> = partial.drain(..=end).collect();
                line(String::from_utf8_lossy(&whole).trim_end());
            }
            if partial.len() > MAX_CHILD_LINE_BYTES {
                line(&String::from_utf8_lossy(&std::mem::take(partial)));
            }
        });
        if !is_open {
            self.pipe = None;
            if !partial.is_empty() {
                line(&String::from_utf8_lossy(&std::mem::take(partial)));
            }
        }
    }
}
