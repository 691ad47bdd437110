//! Log lines on stderr: JSON for programs, text for people (`docs/config.md#logs`).
//!
//! Code logs through the `log` macros with key-values (`run_id`, `worker_id`, `err_id`, …). This floor
//! decides how a line looks, and brings it to stderr without ever blocking the thread that logs
//! (`queue.rs`); no caller hands it a secret.

mod line;
mod queue;

use std::io::{self, Write};
use std::time::Duration;

use log::{Level, LevelFilter, Record};

use crate::config::{LogConfig, LogFormat};

/// How long the end of a program waits for a stderr that is not read.
pub const LOG_FLUSH_DEADLINE: Duration = Duration::from_millis(500);

/// `service` is `pyoco-server:http` or `pyoco-server:worker`. A second call changes nothing.
pub fn init(service: &'static str, config: &LogConfig) {
    let utc = config.utc;
    let with_traceback = config.include_traceback;
    let format = config.format;
    let write = move |out: &mut dyn Write, record: &Record<'_>| match format {
        LogFormat::Json => line::json(out, service, record, utc, with_traceback),
        LogFormat::Text => line::text(out, record, utc),
    };
    let mut builder = env_logger::Builder::new();
    builder.format(move |out, record| write(out, record));
    let wanted = level(&config.level);
    let own = wanted.unwrap_or(LevelFilter::Info);
    // The crates below us narrate freely; only their warnings matter to a reader of ours.
    builder.filter_level(own.min(LevelFilter::Warn)).filter_module("pyoco_server", own);
    // What flows print outside of their tasks is our users' own.
    builder.filter_module("python", own);
    let queued = queue::start(move |out, count| {
        let pairs: [(&str, log::kv::Value<'_>); 1] = [("lines", count.into())];
        let mut record = Record::builder();
        record.level(Level::Warn).target(module_path!()).module_path(Some(module_path!()));
        record.file(Some(file!())).line(Some(line!())).key_values(&pairs);
        let what = format_args!("log lines were dropped here, because stderr was not read");
        // A line in memory takes every byte.
        let _ = write(out, &record.args(what).build());
    });
    // Without a thread each line is written where it arises.
    if queued.is_ok() {
        builder.target(env_logger::Target::Pipe(Box::new(Enqueued)));
    }
    if builder.try_init().is_err() {
        return;
    }
    log_panics();
    if let Err(error) = queued {
        log::warn!(error = error.to_string(); "cannot start the thread that writes log lines");
    }
    if wanted.is_none() {
        let code = crate::model::error::Code::LoggingFailed;
        log::warn!(err_id = code.err_id(), msg_id = code.msg_id();
            "PYOCO_LOG_LEVEL is not a level; using INFO");
    }
}

/// Lines that no reader will see, since the start of the process.
pub fn dropped_lines() -> u64 {
    queue::of_process().map_or(0, queue::Queue::dropped)
}

/// Brings what was logged to stderr, for [`LOG_FLUSH_DEADLINE`] at most: the last thing that a program does.
pub fn flush() {
    if let Some(queue) = queue::of_process() {
        queue.flush(LOG_FLUSH_DEADLINE);
    }
}

/// Writes a message for people to stderr, after what was logged before. A failed write is ignored: there is
/// no other place to report it.
pub fn message(text: &str) {
    match queue::of_process() {
        Some(queue) => queue.push(format!("{text}\n").into_bytes()),
        None => {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// A panic is a log line too: the hook of the standard library would write to stderr itself, and block.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let trace = std::backtrace::Backtrace::capture();
        let captured = trace.status() == std::backtrace::BacktraceStatus::Captured;
        let trace = if captured { format!("\n{trace}") } else { String::new() };
        log::error!("panicked at {place}: {text}{trace}");
    }));
}

/// The end of `env_logger` from which lines go into the queue; it writes one at a time.
struct Enqueued;

impl Write for Enqueued {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(queue) = queue::of_process() {
            queue.push(line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A level by its Rust or Python name, in any case; `None` for anything else.
pub fn level(text: &str) -> Option<LevelFilter> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => Some(LevelFilter::Off),
        "critical" | "fatal" | "error" => Some(LevelFilter::Error),
        "warning" | "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "trace" | "notset" => Some(LevelFilter::Trace),
        _ => None,
    }
}
