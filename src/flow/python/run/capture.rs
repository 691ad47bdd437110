//! The output of a run, told apart by task: two pipes in, a bounded end per task out.
//!
//! The run marks its output when the task that prints changes: NUL, the run's token, a blank, the task's
//! number or -1, NUL. Everything after a mark is the task's, also what native code or a child process
//! writes. Other NULs are output like any other byte.

use std::collections::{BTreeMap, VecDeque};

use crate::model::limits::TASK_LOG_BYTES;
use crate::model::run::TaskLogs;

/// Tasks of one run whose output is kept before it is shown with their records.
const MAX_CAPTURED_TASKS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

pub(super) struct Capture {
    /// By stream.
    marks: [Marks; 2],
    /// By task number; -1 is what no task has printed.
    tails: BTreeMap<i64, Tails>,
}

#[derive(Default)]
struct Tails {
    /// By stream.
    printed: [Tail; 2],
    is_new: bool,
    /// Its task has ended; what comes next is of another round of it.
    is_done: bool,
}

impl Capture {
    pub(super) fn new(token: &str) -> Self {
        Capture { marks: [Marks::new(token), Marks::new(token)], tails: BTreeMap::new() }
    }

    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let tails = &mut self.tails;
        self.marks[stream as usize].split(bytes, |task, part| {
            let of_task = tails.entry(task).or_default();
            if of_task.is_done {
                *of_task = Tails::default();
            }
            of_task.is_new |= !part.is_empty();
            of_task.printed[stream as usize].push(part);
        });
        while self.tails.len() > MAX_CAPTURED_TASKS {
            let done = self.tails.iter().find(|(_, tails)| tails.is_done).map(|(&task, _)| task);
            match done {
                Some(task) => drop(self.tails.remove(&task)),
                None => drop(self.tails.pop_first()),
            }
        }
    }

    /// What the task has printed so far; `None` when that is nothing.
    pub(super) fn logs(&mut self, task: usize) -> Option<TaskLogs> {
        let tails = self.tails.get_mut(&number(task))?;
        tails.is_new = false;
        let [out, err] = &tails.printed;
        let has_printed = !out.bytes.is_empty() || !err.bytes.is_empty();
        has_printed.then(|| TaskLogs {
            stdout: out.text(),
            stderr: err.text(),
            dropped_bytes: out.dropped + err.dropped,
        })
    }

    /// Notes that a task has ended. Its output stays for a while, since the report of its end may be
    /// followed by a fuller one.
    pub(super) fn end(&mut self, task: usize) {
        if let Some(tails) = self.tails.get_mut(&number(task)) {
            tails.is_done = true;
        }
    }

    /// Tasks with output that nobody has asked for.
    pub(super) fn fresh(&self) -> Vec<usize> {
        let fresh = self.tails.iter().filter(|(_, tails)| tails.is_new);
        fresh.filter_map(|(&task, _)| usize::try_from(task).ok()).collect()
    }

    /// Tasks that have begun to print, or were marked as the ones that run, and have not ended.
    pub(super) fn known(&self) -> Vec<usize> {
        let open = self.tails.iter().filter(|(_, tails)| !tails.is_done);
        open.filter_map(|(&task, _)| usize::try_from(task).ok()).collect()
    }

    /// What was printed outside of tasks: by the resolver, or while the flow was built.
    pub(super) fn outside(&self) -> Option<String> {
        let tails = self.tails.get(&-1)?;
        let text = tails.printed.each_ref().map(Tail::text).concat();
        (!text.trim().is_empty()).then_some(text)
    }
}

fn number(task: usize) -> i64 {
    i64::try_from(task).unwrap_or(i64::MAX)
}

struct Marks {
    /// NUL and the token.
    opening: Vec<u8>,
    task: i64,
    /// The beginning of what may become a mark when the rest has come.
    held: Vec<u8>,
}

/// A blank, a sign, the digits of a number, a NUL.
const MARK_NUMBER_BYTES: usize = 24;

impl Marks {
    fn new(token: &str) -> Self {
        Marks { opening: [b"\0", token.as_bytes()].concat(), task: -1, held: Vec::new() }
    }

    fn split(&mut self, bytes: &[u8], mut part: impl FnMut(i64, &[u8])) {
        let joined;
        let mut rest = bytes;
        if !self.held.is_empty() {
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            rest = &joined;
        }
        let mut text_from = 0;
        let mut at = 0;
        while let Some(found) = rest[at..].iter().position(|&byte| byte == 0) {
            let nul = at + found;
            match self.mark_at(&rest[nul..]) {
                Found::Mark { task, length } => {
                    if nul > text_from {
                        part(self.task, &rest[text_from..nul]);
                    }
                    self.task = task;
                    // A task that says nothing is known all the same.
                    part(task, &[]);
                    text_from = nul + length;
                    at = text_from;
                }
                Found::Text => at = nul + 1,
                Found::Unfinished => {
                    if nul > text_from {
                        part(self.task, &rest[text_from..nul]);
                    }
                    self.held = rest[nul..].to_vec();
                    return;
                }
            }
        }
        if text_from < rest.len() {
            part(self.task, &rest[text_from..]);
        }
    }

    fn mark_at(&self, bytes: &[u8]) -> Found {
        let common = bytes.len().min(self.opening.len());
        if bytes[..common] != self.opening[..common] {
            return Found::Text;
        }
        let number = &bytes[common..];
        let Some(end) = number.iter().position(|&byte| byte == 0) else {
            return match number.len() < MARK_NUMBER_BYTES {
                true => Found::Unfinished,
                false => Found::Text,
            };
        };
        let digits = std::str::from_utf8(&number[..end]).ok();
        match digits.and_then(|digits| digits.strip_prefix(' ')?.parse().ok()) {
            Some(task) => Found::Mark { task, length: common + end + 1 },
            None => Found::Text,
        }
    }
}

enum Found {
    Mark { task: i64, length: usize },
    Text,
    Unfinished,
}

#[derive(Default)]
struct Tail {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Tail {
    fn push(&mut self, part: &[u8]) {
        let kept = &part[part.len().saturating_sub(TASK_LOG_BYTES)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(TASK_LOG_BYTES);
        self.bytes.drain(..excess);
        self.dropped += (excess + part.len() - kept.len()) as u64;
        self.bytes.extend(kept);
    }

    /// As text; a character that was cut in two at the beginning is left out.
    fn text(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        let mut bytes = [front, back].concat();
        if self.dropped > 0 {
            let cut = bytes.iter().take(3).take_while(|&&byte| byte & 0xC0 == 0x80).count();
            bytes.drain(..cut);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn mark(task: i64) -> Vec<u8> {
        format!("\0{TOKEN} {task}\0").into_bytes()
    }

    fn stdout(capture: &mut Capture, task: usize) -> String {
        capture.logs(task).map(|logs| logs.stdout).unwrap_or_default()
    }

    #[test]
    fn output_goes_to_the_task_of_the_last_mark_however_it_is_cut() {
        let text = [
            b"early ".to_vec(),
            mark(0),
            b"one\n\0 raw \xff".to_vec(),
            mark(12),
            b"two".to_vec(),
            mark(-1),
            b"late".to_vec(),
        ]
        .concat();
        for piece in 1..text.len() {
            let mut capture = Capture::new(TOKEN);
            for bytes in text.chunks(piece) {
                capture.take(Stream::Out, bytes);
            }
            assert_eq!(stdout(&mut capture, 0), "one\n\0 raw \u{fffd}", "in pieces of {piece}");
            assert_eq!(stdout(&mut capture, 12), "two");
            assert_eq!(capture.outside().unwrap(), "early late");
        }
    }

    #[test]
    fn a_foreign_mark_is_output() {
        let mut capture = Capture::new(TOKEN);
        capture.take(Stream::Out, &mark(1));
        capture.take(Stream::Out, b"\0ffffffffffffffff 2\0x");
        assert_eq!(stdout(&mut capture, 1), "\0ffffffffffffffff 2\0x");
        assert!(capture.logs(2).is_none());
    }

    #[test]
    fn only_the_end_is_kept_and_the_rest_is_counted() {
        let mut capture = Capture::new(TOKEN);
        capture.take(Stream::Err, &mark(3));
        let line = "あ".repeat(TASK_LOG_BYTES);
        for _ in 0..10 {
            capture.take(Stream::Err, line.as_bytes());
        }
        let logs = capture.logs(3).unwrap();
        assert!(logs.stderr.len() <= TASK_LOG_BYTES && !logs.stderr.contains('\u{fffd}'));
        assert_eq!(logs.dropped_bytes, (10 * line.len() - TASK_LOG_BYTES) as u64);
        assert!(logs.stdout.is_empty());
    }

    #[test]
    fn a_task_that_has_ended_keeps_its_output_until_it_starts_again() {
        let mut capture = Capture::new(TOKEN);
        capture.take(Stream::Out, &[mark(1), b"first".to_vec()].concat());
        capture.end(1);
        assert_eq!((stdout(&mut capture, 1).as_str(), capture.known()), ("first", vec![]));
        assert_eq!(stdout(&mut capture, 1), "first");
        capture.take(Stream::Out, &[mark(1), b"second".to_vec()].concat());
        assert_eq!((stdout(&mut capture, 1).as_str(), capture.known()), ("second", vec![1]));
    }

    #[test]
    fn the_number_of_tasks_with_output_is_bounded() {
        let mut capture = Capture::new(TOKEN);
        for task in 0..10 * MAX_CAPTURED_TASKS {
            capture.take(Stream::Out, &mark(task as i64));
            capture.take(Stream::Out, b"x");
        }
        assert!(capture.tails.len() <= MAX_CAPTURED_TASKS);
        assert_eq!(stdout(&mut capture, 10 * MAX_CAPTURED_TASKS - 1), "x");
    }
}
