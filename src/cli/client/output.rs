//! Where output goes: data to stdout, buffered; messages to stderr.

use std::io::{self, IsTerminal, Stdout, Write};

use serde_json::Value;

use super::Ending;

/// Stdout, and what is known of its reader.
pub struct Output {
    stdout: io::BufWriter<Stdout>,
    /// Columns of the terminal; `None` when it is none.
    pub width: Option<usize>,
    pub colours: bool,
}

impl Output {
    pub fn stdout() -> Output {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Output {
            stdout: io::BufWriter::new(stdout),
            width,
            colours: terminal && !dumb && !set("NO_COLOR"),
        }
    }

    /// One document, one line.
    pub fn json(&mut self, value: &Value) -> Result<(), Ending> {
        self.text(&format!("{value}\n"))
    }

    pub fn text(&mut self, text: &str) -> Result<(), Ending> {
        self.stdout.write_all(text.as_bytes()).map_err(Ending::Output)
    }

    /// Hands over what is buffered; before a wait, so that a reader sees it at once.
    pub fn finish(&mut self) -> Result<(), Ending> {
        self.stdout.flush().map_err(Ending::Output)
    }
}

/// A line for people. A closed stderr is no reason to fail.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
