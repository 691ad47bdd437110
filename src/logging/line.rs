//! How one log line looks.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::kv::{Key, Value, VisitSource};
use log::{Level, Record};
use serde_json::{Map, Value as Json, json};

/// One JSON object, in the order of `docs/config.md#logs`.
pub(super) fn json(
    out: &mut (impl Write + ?Sized),
    service: &str,
    record: &Record<'_>,
    utc: bool,
    with_traceback: bool,
) -> io::Result<()> {
    let mut line = Map::new();
    line.insert("ts".into(), now(utc).into());
    line.insert("service".into(), service.into());
    line.insert("level".into(), python_level(record.level()).into());
    line.insert("logger".into(), record.target().into());
    line.insert("message".into(), record.args().to_string().into());
    line.insert("pathname".into(), record.file().into());
    line.insert("lineno".into(), record.line().into());
    line.insert("func".into(), record.module_path().into());
    line.insert("process".into(), std::process::id().into());
    line.insert("thread".into(), thread_name().into());
    let context = context(record);
    if record.level() == Level::Error {
        let message = context.get("exc_message").or_else(|| context.get("error")).cloned();
        line.insert("exc_type".into(), "Error".into());
        line.insert("exc_message".into(), message.unwrap_or_else(|| record.args().to_string().into()));
        if with_traceback {
            line.insert("exc_traceback".into(), Json::Null);
        }
        line.insert(
            "exc_origin".into(),
            json!({"file": record.file(), "line": record.line(), "func": record.module_path()}),
        );
    }
    // Last, so that a caller who knows better (a task's own traceback, say) is heard.
    for (key, value) in context {
        if with_traceback || key != "exc_traceback" {
            line.insert(key, value);
        }
    }
    let mut bytes = crate::model::json::to_wire(&line).map_err(io::Error::other)?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}

/// `2026-01-31T12:00:00.123Z INFO message key=value …`
pub(super) fn text(out: &mut (impl Write + ?Sized), record: &Record<'_>, utc: bool) -> io::Result<()> {
    let mut line = format!("{} {:<5} {}", now(utc), record.level(), record.args());
    for (key, value) in context(record) {
        let shown = match value {
            Json::String(text) => text,
            other => other.to_string(),
        };
        line.push_str(&format!(" {key}={}", shown.replace('\n', "\\n")));
    }
    line.push('\n');
    out.write_all(line.as_bytes())
}

fn context(record: &Record<'_>) -> Map<String, Json> {
    struct Collector(Map<String, Json>);
    impl<'kvs> VisitSource<'kvs> for Collector {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            let json = if let Some(number) = value.to_u64() {
                number.into()
            } else if let Some(number) = value.to_i64() {
                number.into()
            } else if let Some(flag) = value.to_bool() {
                flag.into()
            } else if let Some(number) = value.to_f64() {
                number.into()
            } else {
                value.to_string().into()
            };
            self.0.insert(key.as_str().to_owned(), json);
            Ok(())
        }
    }
    let mut collector = Collector(Map::new());
    // The collector never refuses a pair.
    let _ = record.key_values().visit(&mut collector);
    collector.0
}

fn now(utc: bool) -> String {
    let now = Timestamp::now();
    if utc {
        format!("{now:.3}")
    } else {
        format!("{:.3}", now.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))
    }
}

/// The names that the Python side uses, so that one filter serves both.
fn python_level(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}

fn thread_name() -> String {
    std::thread::current().name().unwrap_or("unnamed").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_with_its_context() {
        let mut out = Vec::new();
        let pairs: [(&str, Value<'_>); 2] = [("run_id", "r\n1".into()), ("attempt", 2u64.into())];
        let record = Record::builder()
            .args(format_args!("kaputt: é"))
            .level(Level::Error)
            .target("pyoco_server::x")
            .file(Some("src/x.rs"))
            .line(Some(7))
            .key_values(&pairs)
            .build();
        json(&mut out, "pyoco-server:http", &record, true, true).unwrap();
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        let line: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["run_id"], "r\n1");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["exc_origin"]["line"], 7);
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn text_keeps_to_one_line() {
        let mut out = Vec::new();
        let pairs: [(&str, Value<'_>); 1] = [("reason", "a\nb".into())];
        let record = Record::builder().args(format_args!("hi")).level(Level::Info).key_values(&pairs).build();
        text(&mut out, &record, false).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(line.trim_end().ends_with("INFO  hi reason=a\\nb"), "{line}");
    }
}
