//! An error as a command line shows it: a number, what happened, and the way out.

use std::fmt;

use super::exit::Exit;
use crate::model::error::Code;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// `ERR-PYOCO-nnnn`, `ERR-PYOCO-HTTP` or `ERR-PYOCO-CANCEL`.
    pub id: String,
    pub title: &'static str,
    pub reason: String,
    /// How the command is written, when that was wrong.
    pub usage: Option<String>,
    pub hint: String,
}

impl Failure {
    pub fn usage(reason: impl Into<String>, usage: Option<String>, hint: impl Into<String>) -> Self {
        Failure {
            exit: Exit::Usage,
            id: Code::BadCommandLine.err_id(),
            title: "cannot use the command line",
            reason: reason.into(),
            usage,
            hint: hint.into(),
        }
    }

    /// What clap says, in our form; `usage` is that of the subcommand it is about.
    pub fn from_clap(error: &clap::Error, program: &str, usage: Option<String>) -> Self {
        let text = error.render().to_string();
        let message = text.split("\n\nUsage: ").next().unwrap_or_default();
        let message = message.split("\n\nFor more information").next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let reason = message.split_whitespace().collect::<Vec<_>>().join(" ");
        // `pyoco-client get <RUN_ID>` → the command whose help says more.
        let words = usage.as_deref().unwrap_or(program).split_whitespace();
        let command: Vec<&str> =
            words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect();
        let hint = format!("see `{} --help`", command.join(" "));
        Failure::usage(reason, usage, hint)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}: {}", self.id, self.title)?;
        // One line each, whatever a server or a file has put into the text.
        writeln!(out, "- reason: {}", one_line(&self.reason))?;
        if let Some(usage) = &self.usage {
            writeln!(out, "- usage: {}", one_line(usage))?;
        }
        writeln!(out, "- hint: {}", one_line(&self.hint))
    }
}

/// Control characters out: text of others must not move the cursor of a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
