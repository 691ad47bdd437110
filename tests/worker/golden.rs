//! JSON shapes in golden files; `PYOCO_UPDATE_GOLDEN=1 cargo test --test worker` writes them anew.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Values that differ from run to run, by the name of their field; they must be of the right type.
const TIMES: [&str; 15] = [
    "submitted_at",
    "updated_at",
    "heartbeat_at",
    "start_time",
    "end_time",
    "started_at",
    "ended_at",
    "duration_ms",
    "cancel_requested_at",
    "timestamp",
    "last_seen_at",
    "last_heartbeat_at",
    "last_run_started_at",
    "last_run_finished_at",
    "stopped_at",
];
const IDS: [&str; 8] =
    ["run_id", "instance_id", "ack", "last_run_id", "current_run_id", "hostname", "version", "traceback"];

/// Compares a document with its golden file, what differs from run to run aside.
pub fn check(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut text = serde_json::to_string_pretty(&masked("", document)).unwrap();
    text.push('\n');
    if std::env::var_os("PYOCO_UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} has changed; PYOCO_UPDATE_GOLDEN=1 refreshes golden files");
}

fn masked(field: &str, value: &Value) -> Value {
    match value {
        Value::Number(number) if TIMES.contains(&field) => {
            assert!(number.is_f64() && number.as_f64() >= Some(0.0), "{field}: {number}");
            Value::from("<time>")
        }
        Value::String(text) if IDS.contains(&field) && !text.is_empty() => Value::from("<id>"),
        Value::Number(number) if field == "pid" => {
            assert!(number.as_u64() > Some(1));
            Value::from("<pid>")
        }
        Value::Object(fields) => {
            // The order of keys is not part of the contract.
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            let fields = sorted.into_iter().map(|(name, value)| (name.clone(), masked(name, value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| masked(item_of(field), item)).collect(),
        other => other.clone(),
    }
}

fn item_of(field: &str) -> &str {
    if field == "current_run_ids" { "run_id" } else { "" }
}
