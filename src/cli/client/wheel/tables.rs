//! Wheels and their history as tables for people.

use serde_json::Value;

use crate::cli::client::table::{Table, ago, dash, since, tags, text};

/// Wheels as `GET /wheels` has them; `now` in unix seconds.
pub fn of_wheels(items: &[Value], now: f64) -> Table {
    let header = ["name", "size", "tags", "uploaded", "sha256"];
    Table::of(items, &header, |item, column| match column {
        "size" => size(item),
        "tags" => tags(item),
        "uploaded" => stored_at(item).map_or_else(dash, |at| ago(now - at)),
        "sha256" => text(item, "sha256_hex"),
        _ => text(item, column),
    })
}

/// Entries as `GET /wheels/history` has them.
pub fn of_history(items: &[Value], now: f64) -> Table {
    let header = ["when", "action", "wheel_name", "size", "tags", "tenant", "api_key_id", "from"];
    Table::of(items, &header, |item, column| match column {
        "when" => since(&item["occurred_at"], now),
        "size" => size(item),
        "tags" => tags(item),
        "tenant" => text(&item["actor"], "tenant_id"),
        "api_key_id" => text(&item["actor"], column),
        "from" => text(&item["source"], "remote_addr"),
        _ => text(item, column),
    })
}

/// In unix seconds; the Python gateway tells the time as a text alone.
fn stored_at(item: &Value) -> Option<f64> {
    let modified = item["modified"].as_f64();
    modified.or_else(|| {
        let at: jiff::Timestamp = item["mtime"].as_str()?.parse().ok()?;
        Some(at.as_duration().as_secs_f64())
    })
}

fn size(item: &Value) -> String {
    let Some(bytes) = item["size_bytes"].as_u64() else { return dash() };
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wheels_of_either_gateway_are_shown() {
        let items = [
            json!({"name": "a-1.0-py3-none-any.whl", "size_bytes": 1536, "tags": ["cpu", "gpu"],
                "modified": 40.0, "mtime": "x", "sha256_hex": "ab12"}),
            json!({"name": "b-1.0-py3-none-any.whl", "size_bytes": 3_145_728, "tags": [],
                "mtime": "1970-01-01T00:00:30.500000+00:00"}),
        ];
        assert_eq!(
            of_wheels(&items, 100.0).render(None, false),
            "name                    size     tags     uploaded   sha256\n\
             a-1.0-py3-none-any.whl  1.5 KiB  cpu,gpu  1 min ago  ab12\n\
             b-1.0-py3-none-any.whl  3.0 MiB  -        1 min ago  -\n"
        );
        assert_eq!(of_wheels(&[], 0.0).render(None, false), "(no items)\n");
    }

    #[test]
    fn the_history_says_who_did_what() {
        let items = [
            json!({"occurred_at": 90.0, "action": "delete", "wheel_name": "a.whl", "tags": ["cpu"],
                "size_bytes": 3, "actor": {"tenant_id": "t", "api_key_id": "k"},
                "source": {"remote_addr": "::1"}}),
            json!({"occurred_at": 40.0, "action": "upload", "wheel_name": "a.whl"}),
        ];
        assert_eq!(
            of_history(&items, 100.0).render(None, false),
            "when       action  wheel_name  size  tags  tenant  api_key_id  from\n\
             10 s ago   delete  a.whl       3 B   cpu   t       k           ::1\n\
             1 min ago  upload  a.whl       -     -     -       -           -\n"
        );
    }
}
