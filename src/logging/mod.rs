//! Log lines on stderr: JSON for programs, text for people (`docs/config.md#logs`).
//!
//! Code logs through the `log` macros with key-values (`run_id`, `worker_id`, `err_id`, …). This floor
//! decides how a line looks and nothing else; no caller hands it a secret.

mod line;

use log::LevelFilter;

use crate::config::{LogConfig, LogFormat};

/// `service` is `pyoco-server:http` or `pyoco-server:worker`. A second call changes nothing.
pub fn init(service: &'static str, config: &LogConfig) {
    let utc = config.utc;
    let with_traceback = config.include_traceback;
    let format = config.format;
    let mut builder = env_logger::Builder::new();
    builder.format(move |out, record| match format {
        LogFormat::Json => line::json(out, service, record, utc, with_traceback),
        LogFormat::Text => line::text(out, record, utc),
    });
    let wanted = level(&config.level);
    let own = wanted.unwrap_or(LevelFilter::Info);
    // The crates below us narrate freely; only their warnings matter to a reader of ours.
    builder.filter_level(own.min(LevelFilter::Warn)).filter_module("pyoco_server", own);
    // What flows print outside of their tasks is our users' own.
    builder.filter_module("python", own);
    if builder.try_init().is_ok() && wanted.is_none() {
        let code = crate::model::error::Code::LoggingFailed;
        log::warn!(err_id = code.err_id(), msg_id = code.msg_id();
            "PYOCO_LOG_LEVEL is not a level; using INFO");
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
