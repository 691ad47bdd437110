//! Where output goes: data to stdout, buffered; messages to stderr.

use std::io::{self, IsTerminal, Stdout, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::Ending;
use super::failed_call::failure_of;
use super::table::Table;
use crate::cli::exit::Exit;
use crate::client::Error;
use crate::model::clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One document per line, for programs
    Json,
    /// Columns, for people
    Table,
}

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
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Output {
            stdout: io::BufWriter::new(stdout),
            width,
            colours: terminal && !is_dumb() && wants_colours(),
        }
    }

    /// Writes an answer as it is.
    pub fn show(&mut self, answer: Result<Value, Error>) -> Result<Exit, Ending> {
        self.json(&answer.map_err(failure_of)?)?;
        Ok(Exit::Done)
    }

    /// Writes a list as it is, or as the table that `rows` makes of its items and the time now.
    pub fn show_list(
        &mut self,
        answer: Result<Value, Error>,
        format: Format,
        rows: impl FnOnce(&[Value], f64) -> Table,
    ) -> Result<Exit, Ending> {
        if format == Format::Json {
            return self.show(answer);
        }
        let list = answer.map_err(failure_of)?;
        // What is no list has no items.
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        self.table(&rows(items, clock::now()))
    }

    pub fn table(&mut self, table: &Table) -> Result<Exit, Ending> {
        self.text(&table.render(self.width, self.colours))?;
        Ok(Exit::Done)
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

/// Whether the terminal cannot go back to the beginning of a line.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
