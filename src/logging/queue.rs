//! The bounded queue between the threads that log and the one that writes to stderr.
//!
//! A write to a pipe blocks for as long as its reader does not read. So only the thread `log-writer` writes.
//! The others put their lines into the queue and go on; beyond the bound a line is dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags};

/// Text that waits for the writer, at most; as much again may be on its way to stderr. One line may be
/// longer than this, but then it waits alone.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// The queue of this process, from the start of its writer on.
static QUEUE: OnceLock<&'static Queue> = OnceLock::new();

/// The queue of this process when it has a writer.
pub(super) fn of_process() -> Option<&'static Queue> {
    QUEUE.get().copied()
}

/// Starts the writer of this process; `notice` writes the line that says how many were dropped. The thread
/// waits for lines until the process ends, so no thread joins it.
pub(super) fn start(notice: impl Fn(&mut Vec<u8>, u64) + Send + 'static) -> io::Result<()> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    // It lives as long as the process, like its writer.
    let queue: &'static Queue = Box::leak(Box::default());
    let body = move || queue.write_to(&mut Stderr, notice);
    crate::thread::spawn_small("log-writer", body)?.abandon();
    // Only now: lines in a queue without a writer would never be read.
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Lines that wait. Threads that log add to it, the writer takes from it.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when there is something to write.
    filled: Condvar,
    /// Told when all has been written.
    emptied: Condvar,
    /// Lines that were dropped since the start of the process.
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Dropped after the last line of `lines`, and not yet reported.
    dropped: u64,
    /// The writer is busy with lines that it has taken.
    is_writing: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && !self.is_writing
    }
}

impl Queue {
    /// Adds one line, or counts it as dropped. Never blocks.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut state = self.state.lock();
        // After a dropped line there is a gap, which the writer reports at its place.
        let fits = state.lines.is_empty() || state.bytes + line.len() <= MAX_QUEUED_BYTES;
        if state.dropped > 0 || !fits {
            state.dropped += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.filled.notify_one();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines have been written; gives up at the deadline.
    pub(super) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        self.emptied.wait_while_until(&mut state, |state| !state.is_idle(), deadline);
    }

    /// Writes lines for as long as the process lives.
    fn write_to(&self, out: &mut impl Write, notice: impl Fn(&mut Vec<u8>, u64)) {
        loop {
            let mut state = self.state.lock();
            state.is_writing = false;
            if state.is_idle() {
                self.emptied.notify_all();
            }
            self.filled.wait_while(&mut state, |state| state.is_idle());
            let lines = std::mem::take(&mut state.lines);
            state.bytes = 0;
            let dropped = std::mem::take(&mut state.dropped);
            state.is_writing = true;
            drop(state);
            let mut failed = 0;
            for line in &lines {
                failed += u64::from(out.write_all(line).is_err());
            }
            if dropped > 0 {
                let mut line = Vec::new();
                notice(&mut line, dropped);
                // A stderr that takes no notice takes no complaint about it either.
                let _ = out.write_all(&line);
            }
            self.dropped.fetch_add(failed, Ordering::Relaxed);
        }
    }
}

/// File descriptor 2 without the lock of [`io::stderr`], which a blocked write would keep from all others.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, bytes) {
                // Another process that has the same pipe has made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let mut waited = [PollFd::new(&stderr, PollFlags::OUT)];
                    rustix::event::poll(&mut waited, None)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use super::*;

    /// A reader that takes one write for each permit.
    struct Reader {
        permits: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(io::Error::other)?;
            self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted_where_they_are_missing() {
        let queue = Arc::new(Queue::default());
        let (permit, permits) = bounded(0);
        let (written, lines) = unbounded();
        let writer = queue.clone();
        let thread = crate::thread::spawn("writer", move || {
            let notice = |line: &mut Vec<u8>, count| line.extend(format!("dropped {count}").into_bytes());
            writer.write_to(&mut Reader { permits, written }, notice);
        });
        // Never ends, like that of a process.
        thread.unwrap().abandon();
        queue.push(b"first".to_vec());
        // The writer has it, and is stuck.
        while !queue.state.lock().lines.is_empty() {
            std::thread::yield_now();
        }
        let before = Instant::now();
        queue.flush(Duration::from_millis(20));
        assert!(before.elapsed() < Duration::from_secs(10));
        let long = vec![b'x'; MAX_QUEUED_BYTES / 4];
        (0..10).for_each(|_| queue.push(long.clone()));
        queue.push(b"short, and after a gap".to_vec());
        assert_eq!(queue.dropped(), 7);
        (0..6).for_each(|_| permit.send(()).unwrap());
        queue.flush(Duration::from_secs(10));
        queue.push(b"last".to_vec());
        permit.send(()).unwrap();
        queue.flush(Duration::from_secs(10));
        let seen: Vec<String> = lines.try_iter().collect();
        assert_eq!(seen.len(), 7);
        assert_eq!((seen[0].as_str(), seen[4].len()), ("first", long.len()));
        assert_eq!((seen[5].as_str(), seen[6].as_str()), ("dropped 7", "last"));
        assert_eq!(queue.dropped(), 7);
    }

    #[test]
    fn a_line_that_is_longer_than_the_bound_is_written_alone() {
        let queue = Queue::default();
        queue.push(vec![b'x'; 2 * MAX_QUEUED_BYTES]);
        queue.push(b"second".to_vec());
        assert_eq!((queue.state.lock().lines.len(), queue.dropped()), (1, 1));
    }
}
