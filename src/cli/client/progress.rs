//! One line on a terminal that changes: how far a run is.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::output::{Output, is_dumb};
use super::table::cut;
use crate::cli::failure::one_line;

const BAR: usize = 20;

/// The line; it goes to stderr, so that stdout stays data.
pub struct Progress {
    width: usize,
    colours: bool,
    /// When the run was first seen, for the time that is shown.
    since: Instant,
    /// The last snapshot; heartbeats bring none, but time goes on.
    snapshot: Value,
    shown: bool,
}

impl Progress {
    /// A line, when a person can see it: both streams are a terminal that can go back to the
    /// beginning of a line.
    pub fn on_terminal(output: &Output) -> Option<Progress> {
        let width = output.width.filter(|_| io::stderr().is_terminal() && !is_dumb())?;
        let (colours, since) = (output.colours, Instant::now());
        Some(Progress { width, colours, since, snapshot: Value::Null, shown: false })
    }

    pub fn show(&mut self, data: &Value) {
        if data["snapshot"].is_object() {
            self.snapshot = data["snapshot"].clone();
        }
        let elapsed = match (self.snapshot["start_time"].as_f64(), data["ts"].as_f64()) {
            (Some(start), Some(now)) => (now - start).max(0.0),
            _ => self.since.elapsed().as_secs_f64(),
        };
        // One column less: some terminals break the line when the last one is filled.
        let line = cut(&line_of(&self.snapshot, elapsed), self.width.saturating_sub(1));
        let line = if self.colours { format!("\x1b[36m{line}\x1b[0m") } else { line };
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
        let _ = io::stderr().flush();
        self.shown = true;
    }

    /// Takes the line away, so that what follows stands alone.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
            let _ = io::stderr().flush();
        }
    }
}

/// `RUNNING  [=====>    ]  3/7  fetch, parse  12 s`
fn line_of(snapshot: &Value, elapsed: f64) -> String {
    let status = one_line(snapshot["status"].as_str().unwrap_or("-"));
    let tasks = snapshot["tasks"].as_object();
    let states = || tasks.into_iter().flatten().map(|(name, state)| (name, state.as_str()));
    let total = states().count();
    let done = states().filter(|(_, state)| !matches!(state, Some("PENDING" | "RUNNING"))).count();
    let running: Vec<String> =
        states().filter(|(_, s)| *s == Some("RUNNING")).map(|(name, _)| one_line(name)).collect();
    let mut parts = vec![status];
    if total > 0 {
        parts.push(bar(done, total));
        parts.push(format!("{done}/{total}"));
    }
    if !running.is_empty() {
        parts.push(running.join(", "));
    }
    parts.push(format!("{elapsed:.0} s"));
    parts.join("  ")
}

fn bar(done: usize, total: usize) -> String {
    let filled = done * BAR / total;
    let mut bar = "=".repeat(filled);
    if filled < BAR {
        bar.push('>');
    }
    let rest = BAR.saturating_sub(bar.width());
    format!("[{bar}{}]", " ".repeat(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_line_says_what_is_done_and_what_runs() {
        let snapshot = json!({"status": "RUNNING", "tasks":
            {"a": "SUCCEEDED", "b": "RUNNING", "日本\u{1b}": "RUNNING", "d": "PENDING"}});
        assert_eq!(line_of(&snapshot, 12.4), "RUNNING  [=====>              ]  1/4  b, 日本   12 s");
        assert_eq!(line_of(&json!({"status": "PENDING", "tasks": {}}), 0.2), "PENDING  0 s");
        assert_eq!(bar(3, 3), "[====================]");
    }
}
