//! Tables for people: columns as wide as their content, cut to the terminal.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::failure::one_line;

/// No column gets narrower than this by cutting.
const LEAST_WIDTH: usize = 8;
const GAP: &str = "  ";

pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A row per item, of which `cell` shows what belongs into a column; a column without values is left out.
    pub fn of(items: &[Value], header: &[&'static str], cell: impl Fn(&Value, &str) -> String) -> Table {
        let row = |item| header.iter().map(|column| cell(item, column)).collect();
        let table = Table { header: header.to_vec(), rows: items.iter().map(row).collect() };
        table.without_empty_columns()
    }

    /// Runs as lists show them; `now` in unix seconds.
    pub fn of_runs(items: &[Value], now: f64) -> Table {
        let header = ["run_id", "status", "flow_name", "tag", "updated_at", "error"];
        Table::of(items, &header, |item, column| match column {
            "updated_at" => since(&item[column], now),
            _ => text(item, column),
        })
    }

    /// Tasks of one run, as `GET /runs/{id}/tasks` has them.
    pub fn of_tasks(reply: &Value) -> Table {
        let mut table = Table::new(&["task", "state", "duration", "output", "error"]);
        for (name, state) in reply["tasks"].as_object().into_iter().flatten() {
            let record = &reply["task_records"][name];
            let duration = record["duration_ms"].as_f64();
            table.rows.push(vec![
                one_line(name),
                cell(state),
                duration.map_or_else(dash, |ms| duration_text(ms / 1000.0)),
                cell(&record["output"]),
                cell(&record["error"]),
            ]);
        }
        table.without_empty_columns()
    }

    /// Workers as `GET /workers` has them; `now` in unix seconds.
    pub fn of_workers(items: &[Value], now: f64) -> Table {
        let mut header =
            vec!["worker_id", "state", "tags", "runs", "last_seen", "hostname", "version", "plugins"];
        if items.iter().any(|item| item["unavailable_reason"].is_string()) {
            header.push("unavailable_reason");
        }
        Table::of(items, &header, |item, column| match column {
            "tags" => tags(item),
            "runs" => {
                let runs = item["current_run_ids"].as_array().map_or(0, Vec::len);
                // A Python worker tells of one run at most.
                runs.max(usize::from(!item["current_run_id"].is_null())).to_string()
            }
            "last_seen" => since(&item["last_seen_at"], now),
            "plugins" => match item["wheel_sync"]["installed_wheels"].as_array().map_or(0, Vec::len) {
                0 => dash(),
                count => count.to_string(),
            },
            _ => text(item, column),
        })
    }

    /// The wheels that workers have installed, a row each; a worker without any has one row.
    pub fn of_plugins(items: &[Value]) -> Table {
        let mut table = Table::new(&["worker_id", "state", "tags", "package", "version", "wheel_name"]);
        for item in items {
            let wheels = item["wheel_sync"]["installed_wheels"].as_array();
            let none = [Value::Null];
            let wheels = wheels.map(Vec::as_slice).filter(|w| !w.is_empty()).unwrap_or(&none);
            for wheel in wheels {
                table.rows.push(vec![
                    text(item, "worker_id"),
                    text(item, "state"),
                    tags(item),
                    text(wheel, "package_name"),
                    text(wheel, "package_version"),
                    text(wheel, "wheel_name"),
                ]);
            }
        }
        table
    }

    fn new(header: &[&'static str]) -> Table {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    fn without_empty_columns(mut self) -> Table {
        let empty = |table: &Table, column: usize| table.rows.iter().all(|row| row[column] == "-");
        for column in (0..self.header.len()).rev() {
            if !self.rows.is_empty() && empty(&self, column) {
                self.header.remove(column);
                for row in &mut self.rows {
                    row.remove(column);
                }
            }
        }
        self
    }

    pub fn render(&self, width: Option<usize>, colours: bool) -> String {
        if self.rows.is_empty() {
            return "(no items)\n".to_owned();
        }
        let widths = self.widths(width);
        let mut out = line(&self.header, &widths, false);
        for row in &self.rows {
            let row: Vec<&str> = row.iter().map(String::as_str).collect();
            out.push_str(&line(&row, &widths, colours));
        }
        out
    }

    /// Natural widths; when they do not fit, the last columns give way first, because the first
    /// ones are what is copied into the next command.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].width());
                cells.chain([self.header[column].width()]).max().unwrap_or_default()
            })
            .collect();
        let total: usize = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
        let mut excess = total.saturating_sub(limit.unwrap_or(usize::MAX));
        for width in widths.iter_mut().skip(1).rev() {
            let cut = excess.min(width.saturating_sub(LEAST_WIDTH));
            *width -= cut;
            excess -= cut;
        }
        widths
    }
}

fn line(cells: &[&str], widths: &[usize], colours: bool) -> String {
    let mut out = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let cell = cut(cell, *width);
        let padding = width - cell.width().min(*width);
        match colour(&cell).filter(|_| colours) {
            Some(code) => out.push_str(&format!("\x1b[{code}m{cell}\x1b[0m")),
            None => out.push_str(&cell),
        }
        out.push_str(&" ".repeat(padding));
        out.push_str(GAP);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn colour(cell: &str) -> Option<&'static str> {
    match cell {
        "COMPLETED" | "SUCCEEDED" => Some("32"),
        "FAILED" | "DISCONNECTED" | "UNAVAILABLE" => Some("31"),
        "RUNNING" => Some("36"),
        "CANCELLING" | "CANCELLED" => Some("33"),
        _ => None,
    }
}

/// `text` in at most `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or_default();
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

pub(super) fn text(item: &Value, key: &str) -> String {
    cell(&item[key])
}

pub(super) fn tags(item: &Value) -> String {
    let tags = item["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let tags = tags.collect::<Vec<_>>().join(",");
    if tags.is_empty() { dash() } else { one_line(&tags) }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => dash(),
        Value::String(text) if text.is_empty() => dash(),
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

fn duration_text(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

/// How long ago `at` was, both in unix seconds.
pub(super) fn since(at: &Value, now: f64) -> String {
    at.as_f64().map_or_else(dash, |at| ago(now - at))
}

/// In one unit.
pub(super) fn ago(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")];
    // A clock that is behind makes the future of the past.
    match units.into_iter().find(|(length, _)| seconds >= *length) {
        Some((length, unit)) => format!("{:.0} {unit} ago", (seconds / length).floor()),
        None => "now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn runs() -> Table {
        Table::of_runs(
            &[
                json!({"run_id": "r-1", "status": "FAILED", "flow_name": "日本", "tag": "gpu",
                    "updated_at": 940.0, "error": "a very long\n\u{1b}[31m text of an error"}),
                json!({"run_id": "r-22", "status": "COMPLETED", "tag": "default"}),
            ],
            1000.0,
        )
    }

    #[test]
    fn columns_line_up_also_for_wide_characters() {
        assert_eq!(
            runs().render(None, false),
            "run_id  status     flow_name  tag      updated_at  error\n\
             r-1     FAILED     日本       gpu      1 min ago   a very long  [31m text of an error\n\
             r-22    COMPLETED  -          default  -           -\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_last_columns_first() {
        let text = runs().render(Some(60), false);
        assert!(text.lines().all(|line| line.width() <= 60), "{text}");
        assert!(text.contains("  a very l…\n") && text.contains("COMPLETED"), "{text}");
    }

    #[test]
    fn colours_only_when_they_are_welcome() {
        assert!(runs().render(None, true).contains("\x1b[31mFAILED\x1b[0m"));
        assert!(!runs().render(None, false).contains('\x1b'));
    }

    #[test]
    fn tasks_show_what_they_returned() {
        let reply = json!({"tasks": {"a": "SUCCEEDED", "b": "PENDING"},
            "task_records": {"a": {"duration_ms": 1500.0, "output": {"x": 1}}}});
        assert_eq!(
            Table::of_tasks(&reply).render(None, false),
            "task  state      duration  output\n\
             a     SUCCEEDED  1.5 s     {\"x\":1}\n\
             b     PENDING    -         -\n"
        );
        assert_eq!(Table::of_tasks(&json!({})).render(None, false), "(no items)\n");
    }

    #[test]
    fn workers_show_what_they_do_and_what_they_have() {
        let wheel = json!({"package_name": "pkg", "package_version": "1.0", "wheel_name": "pkg.whl"});
        let items = [
            json!({"worker_id": "w1", "state": "RUNNING", "tags": ["a", "b"], "last_seen_at": 95.0,
                "current_run_ids": ["r", "s"], "hostname": "h", "version": "0.1.0",
                "wheel_sync": {"installed_wheels": [wheel.clone(), wheel]}}),
            json!({"worker_id": "w2", "state": "IDLE", "tags": null}),
        ];
        let broken = json!({"worker_id": "w3", "state": "UNAVAILABLE", "unavailable_reason": "no\nthreads"});
        let text = Table::of_workers(&[broken], 100.0).render(None, false);
        assert!(text.contains("unavailable_reason") && text.contains("no threads"), "{text}");
        assert_eq!(
            Table::of_workers(&items, 100.0).render(None, false),
            "worker_id  state    tags  runs  last_seen  hostname  version  plugins\n\
             w1         RUNNING  a,b   2     5 s ago    h         0.1.0    2\n\
             w2         IDLE     -     0     -          -         -        -\n"
        );
        assert_eq!(
            Table::of_plugins(&items).render(None, false),
            "worker_id  state    tags  package  version  wheel_name\n\
             w1         RUNNING  a,b   pkg      1.0      pkg.whl\n\
             w1         RUNNING  a,b   pkg      1.0      pkg.whl\n\
             w2         IDLE     -     -        -        -\n"
        );
    }

    #[test]
    fn times_are_relative() {
        let texts = [-5.0, 0.4, 59.9, 60.0, 7200.0, 200_000.0].map(ago);
        assert_eq!(texts, ["now", "now", "59 s ago", "1 min ago", "2 h ago", "2 d ago"]);
    }
}
