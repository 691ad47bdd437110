//! The command-line clients, ours and that of the Python package, run as their users run them.

use std::process::Command;

use serde_json::Value;

use super::http::Client;
use super::process::{Binary, Finished, Running, run};
use super::python::package_program;

/// A `pyoco-client` with the address of a gateway. It runs where the test runs, so files have whole paths.
pub struct Program<'a> {
    command: fn() -> Command,
    gateway: &'a Client,
}

impl Client {
    /// Our `pyoco-client` for this gateway.
    pub fn program(&self) -> Program<'_> {
        Program { command: || Binary::Client.command(), gateway: self }
    }

    /// `pyoco-client` of the Python package for this gateway.
    pub fn python_program(&self) -> Program<'_> {
        Program { command: || package_program("pyoco-client"), gateway: self }
    }
}

impl Program<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = (self.command)();
        command.args(["--server", &self.gateway.url()]).args(arguments);
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Runs it to its end.
    pub fn finish(&self, arguments: &[&str]) -> Finished {
        // It may wait for a run.
        run(&mut self.command(arguments), b"", self.gateway.run_deadline * 2)
    }

    /// Its stdout; it must succeed.
    pub fn text(&self, arguments: &[&str]) -> String {
        let finished = self.finish(arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
        finished.stdout
    }

    /// The last JSON document on its stdout; it must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(arguments);
        let whole = serde_json::from_str(&text);
        whole
            .or_else(|_| serde_json::from_str(text.lines().last().unwrap_or_default()))
            .unwrap_or_else(|error| panic!("{arguments:?}: not JSON ({error}): {text}"))
    }
}
