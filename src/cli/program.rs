//! What the long-running programs have in common: arguments, settings, logging, one ending.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use super::exit::Exit;
use super::failure::Failure;
use crate::config::{Config, Loaded, NAMESPACE, Source};
use crate::model::error::Code;

/// Parses `arguments`, runs `body`, and turns what comes of it into messages and an exit code.
pub(super) fn run<A: Parser>(
    program: &str,
    arguments: impl IntoIterator<Item = OsString>,
    body: impl FnOnce(A) -> Result<Exit, Failure>,
) -> Exit {
    let _last = FlushLog;
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match A::try_parse_from(&arguments) {
        Ok(args) => body(args).unwrap_or_else(|failure| {
            message(failure.to_string().trim_end());
            failure.exit
        }),
        Err(error) if error.use_stderr() => {
            let usage = A::command().render_usage().to_string();
            let usage = usage.trim_start_matches("Usage: ").to_owned();
            let failure = Failure::from_clap(&error, program, Some(usage));
            message(failure.to_string().trim_end());
            failure.exit
        }
        // Help and version are what was asked for.
        Err(text) => print(&text.render().to_string()),
    }
}

/// Reads the settings and starts logging; what did not parse is logged by name.
pub(super) fn settings(service: &'static str, log_level: Option<&str>) -> Result<Config, Failure> {
    let source = Source::from_process();
    let Loaded { mut config, warnings, .. } = Config::load(&source);
    if let Some(level) = log_level {
        config.log.level = level.to_owned();
    }
    crate::logging::init(service, &config.log);
    for problem in source.problems() {
        log::warn!("{problem}");
    }
    for warning in &warnings {
        log::warn!("{warning}");
    }
    if warnings.iter().any(|warning| warning.name == NAMESPACE) {
        let hint = "set it to a word of letters, digits, `_` and `-`, or unset it for the names without one";
        let reason = format!("cannot read {NAMESPACE}, which says whose jobs and runs these are");
        return Err(Failure::usage(reason, None, hint));
    }
    Ok(config)
}

/// An error that ends a program which had been understood.
pub(super) fn failed(code: Code, title: &'static str, reason: impl ToString) -> Failure {
    Failure {
        exit: Exit::Failed,
        id: code.err_id(),
        title,
        reason: reason.to_string(),
        usage: None,
        hint: code.hint().to_owned(),
    }
}

/// Writes data to stdout; a reader that has gone away has seen enough.
pub(super) fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(e) => {
            message(&format!("cannot write to stdout: {e}"));
            Exit::Failed
        }
    }
}

/// A line for people, on stderr.
pub(super) fn message(text: &str) {
    crate::logging::message(text);
}

/// Its drop writes the last log lines, also when `main` panics.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        crate::logging::flush();
    }
}
