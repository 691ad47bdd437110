//! What the server writes: into our log, within bounds, with the last lines kept for errors.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

use crate::model::limits::MAX_CHILD_LINE_BYTES;

/// Warnings of a child that reach our log in one window; further ones are counted.
const CHILD_LOG_BURST: u32 = 50;
const CHILD_LOG_WINDOW: Duration = Duration::from_secs(10);
/// Lines that an error message shows.
const TAIL_LINES: usize = 12;
const TARGET: &str = "nats-server";

/// The last lines. The reader writes them, and errors quote them.
#[derive(Debug, Clone, Default)]
pub struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    pub fn text(&self) -> String {
        let lines = self.0.lock();
        if lines.is_empty() {
            return "  (none)".to_owned();
        }
        lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// Reads lines until the stream ends, which it does when the server is gone: it is the only
/// writer. Always drains, so that the server never blocks on us.
pub fn forward(stream: impl Read, last: &LastLines) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    let mut allowance = Allowance::new();
    while let Some(line) = next_line(&mut reader, &mut bytes) {
        if line.is_empty() {
            continue;
        }
        last.push(&line);
        let (level, text) = taken_apart(&line);
        if text.is_empty() {
            // A part of the server's banner.
            continue;
        }
        // Debug lines cost nothing when they are off; the others must not flood the log.
        if level < Level::Debug && !allowance.grant() {
            continue;
        }
        log::log!(target: TARGET, level, "{text}");
    }
}

/// The next line without its end; what is over the bound is dropped.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> Option<String> {
    let mut read = |bytes: &mut Vec<u8>| {
        bytes.clear();
        let mut bounded = reader.by_ref().take(MAX_CHILD_LINE_BYTES as u64);
        matches!(bounded.read_until(b'\n', bytes), Ok(1..))
    };
    if !read(bytes) {
        return None;
    }
    let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
    while bytes.last() != Some(&b'\n') && read(bytes) {}
    Some(text)
}

/// `[pid] [INF] text` → what level it has here, and the text.
fn taken_apart(line: &str) -> (Level, &str) {
    for (mark, level) in [
        ("[INF]", Level::Debug),
        ("[DBG]", Level::Trace),
        ("[TRC]", Level::Trace),
        ("[WRN]", Level::Warn),
        ("[ERR]", Level::Error),
        ("[FTL]", Level::Error),
    ] {
        if let Some((before, text)) = line.split_once(mark)
            && before.len() < 48
        {
            return (level, text.trim_start());
        }
    }
    // A panic of the server, or a refusal of its configuration.
    (Level::Warn, line)
}

struct Allowance {
    since: Instant,
    granted: u32,
    refused: u32,
}

impl Allowance {
    fn new() -> Self {
        Allowance { since: Instant::now(), granted: 0, refused: 0 }
    }

    fn grant(&mut self) -> bool {
        if self.since.elapsed() > CHILD_LOG_WINDOW {
            if self.refused > 0 {
                log::warn!(target: TARGET, "{} lines were left out", self.refused);
            }
            *self = Self::new();
        }
        let granted = self.granted < CHILD_LOG_BURST;
        if granted {
            self.granted += 1;
        } else {
            self.refused += 1;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_the_servers() {
        assert_eq!(taken_apart("[12] [INF] Server is ready"), (Level::Debug, "Server is ready"));
        assert_eq!(taken_apart("[12] [WRN] slow"), (Level::Warn, "slow"));
        assert_eq!(taken_apart("[12] 2026/01/01 00:00:00.0 [ERR] x"), (Level::Error, "x"));
        assert_eq!(taken_apart("nats-server: bad flag"), (Level::Warn, "nats-server: bad flag"));
    }

    #[test]
    fn long_lines_and_many_lines_stay_bounded() {
        let mut text = "x".repeat(10 * MAX_CHILD_LINE_BYTES);
        text.push_str("\nsecond\n");
        text.push_str(&"more\n".repeat(100));
        text.push_str("last");
        let last = LastLines::default();
        let mut reader = BufReader::new(text.as_bytes());
        let mut bytes = Vec::new();
        assert_eq!(next_line(&mut reader, &mut bytes).unwrap().len(), MAX_CHILD_LINE_BYTES);
        assert_eq!(next_line(&mut reader, &mut bytes).unwrap(), "second");
        forward(text.as_bytes(), &last);
        let kept = last.text();
        assert_eq!(kept.lines().count(), TAIL_LINES);
        assert!(kept.ends_with("last"), "{kept}");
    }

    #[test]
    fn a_flood_is_cut() {
        let mut allowance = Allowance::new();
        let granted = (0..10 * CHILD_LOG_BURST).filter(|_| allowance.grant()).count();
        assert_eq!(granted, CHILD_LOG_BURST as usize);
    }
}
