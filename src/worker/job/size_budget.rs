//! The task records of a run: how large they are, and what is left out so that its document fits.
//!
//! First what tasks have printed goes, that of the task that ended first before all others, and for
//! good. Only when the rest is too large still, all records are left out of that document
//! (`docs/spec.md#what-tasks-print`); they stay in memory, since a later state may fit again.
//!
//! The size of each record is taken once, when it comes. So what fits is known before the document
//! is made, and a write of a large run costs one serialisation, rarely two or three.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::error::Code;
use crate::model::json;
use crate::model::limits::MAX_TASK_RECORDS;
use crate::model::run::{RunSnapshot, TaskRecord};

/// What the tasks of one run have printed, as far as its worker keeps it: far beyond what a snapshot
/// may hold, so this counts only where a setting has raised that.
const MAX_RUN_LOG_BYTES: usize = 4 * 1024 * 1024;
/// `"name":…,` and `,"logs":…` around what is measured.
const FRAME_BYTES: usize = 2;
/// See [`FRAME_BYTES`].
const LOGS_FRAME_BYTES: usize = 8;

pub(crate) struct SizeBudget {
    pub(crate) max_bytes: usize,
    sizes: HashMap<String, Size>,
    /// Tasks whose logs are kept, by the order of their last reports.
    with_logs: BTreeMap<u64, String>,
    reports: u64,
    record_bytes: usize,
    log_bytes: usize,
    /// The rest of the document, as of the last one.
    rest_bytes: usize,
    told_truncation: bool,
}

#[derive(Default)]
struct Size {
    record: usize,
    logs: usize,
    report: u64,
}

impl SizeBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        SizeBudget {
            max_bytes,
            sizes: HashMap::new(),
            with_logs: BTreeMap::new(),
            reports: 0,
            record_bytes: 0,
            log_bytes: 0,
            rest_bytes: 0,
            told_truncation: false,
        }
    }

    pub(crate) fn keep(&mut self, snapshot: &mut RunSnapshot, name: String, mut task: TaskRecord) {
        let is_known = snapshot.task_records.contains_key(&name);
        if !is_known && snapshot.task_records.len() >= MAX_TASK_RECORDS {
            snapshot.task_records_truncated = true;
            return;
        }
        self.forget(&name);
        let logs = task.logs.take();
        let mut record = serde_json::to_value(task).unwrap_or_default();
        let mut size = Size { record: wire_len(&name) + wire_len(&record) + FRAME_BYTES, ..Size::default() };
        if let (Some(logs), Value::Object(fields)) = (logs, &mut record) {
            size.logs = wire_len(&logs) + LOGS_FRAME_BYTES;
            size.report = self.reports;
            self.reports += 1;
            self.with_logs.insert(size.report, name.clone());
            fields.insert("logs".to_owned(), serde_json::to_value(logs).unwrap_or_default());
        }
        self.record_bytes += size.record;
        self.log_bytes += size.logs;
        self.sizes.insert(name.clone(), size);
        snapshot.task_records.insert(name, record);
        // What is beyond it could not be stored anyway, and must not fill the memory.
        self.leave_logs(snapshot, self.max_bytes.min(MAX_RUN_LOG_BYTES));
    }

    /// The snapshot as JSON, not larger than allowed unless there is nothing left to leave out.
    pub(crate) fn document(&mut self, snapshot: &mut RunSnapshot) -> serde_json::Result<Vec<u8>> {
        // Once; and once more when the rest has grown or shrunk since the last document.
        for _ in 0..2 {
            self.leave_logs(snapshot, self.room());
            if self.rest_bytes + self.record_bytes > self.max_bytes {
                break;
            }
            let document = json::to_wire(snapshot)?;
            self.rest_bytes = document.len().saturating_sub(self.record_bytes + self.log_bytes);
            if document.len() <= self.max_bytes || snapshot.task_records.is_empty() {
                return Ok(document);
            }
        }
        let records = std::mem::take(&mut snapshot.task_records);
        let flag = std::mem::replace(&mut snapshot.task_records_truncated, true);
        let document = json::to_wire(snapshot);
        snapshot.task_records = records;
        snapshot.task_records_truncated = flag;
        let document = document?;
        self.rest_bytes = document.len();
        if self.rest_bytes + self.record_bytes <= self.max_bytes {
            // The rest was larger before.
            let whole = json::to_wire(snapshot)?;
            if whole.len() <= self.max_bytes {
                return Ok(whole);
            }
        }
        if !std::mem::replace(&mut self.told_truncation, true) {
            let code = Code::SnapshotTooLarge;
            log::warn!(err_id = code.err_id(), msg_id = code.msg_id(),
                run_id = snapshot.run_id.as_str(),
                bytes = self.rest_bytes + self.record_bytes;
                "the snapshot is too large; its task records are left out");
        }
        Ok(document)
    }

    /// The records of the snapshot are gone.
    pub(crate) fn clear(&mut self) {
        self.sizes.clear();
        self.with_logs.clear();
        (self.record_bytes, self.log_bytes, self.rest_bytes) = (0, 0, 0);
    }

    fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.rest_bytes + self.record_bytes)
    }

    /// Drops logs until the rest of them takes `room` bytes at most.
    fn leave_logs(&mut self, snapshot: &mut RunSnapshot, room: usize) {
        while self.log_bytes > room {
            let Some((_, name)) = self.with_logs.pop_first() else { return };
            if let Some(fields) = fields(snapshot, &name) {
                fields.shift_remove("logs");
            }
            if let Some(size) = self.sizes.get_mut(&name) {
                self.log_bytes -= std::mem::take(&mut size.logs);
            }
            snapshot.task_logs_truncated = true;
        }
    }

    fn forget(&mut self, name: &str) {
        let Some(size) = self.sizes.remove(name) else { return };
        self.record_bytes -= size.record;
        self.log_bytes -= size.logs;
        if size.logs > 0 {
            self.with_logs.remove(&size.report);
        }
    }
}

fn fields<'a>(snapshot: &'a mut RunSnapshot, task: &str) -> Option<&'a mut Map<String, Value>> {
    snapshot.task_records.get_mut(task)?.as_object_mut()
}

fn wire_len(value: &impl Serialize) -> usize {
    json::to_wire(value).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::run::{TaskLogs, TaskStatus};

    fn snapshot() -> RunSnapshot {
        RunSnapshot::pending("r".into(), "main".into(), "default".into(), 1.5)
    }

    fn record(output: usize, printed: usize) -> TaskRecord {
        let mut record = TaskRecord::new(TaskStatus::Succeeded);
        record.output = "o".repeat(output).into();
        record.logs = (printed > 0).then(|| TaskLogs { stdout: "p".repeat(printed), ..TaskLogs::default() });
        record
    }

    fn keep(budget: &mut SizeBudget, snapshot: &mut RunSnapshot, task: &str, record: TaskRecord) {
        snapshot.tasks.insert(task.into(), "SUCCEEDED".into());
        budget.keep(snapshot, task.into(), record);
    }

    /// The document as a reader sees it, and the tasks whose logs it shows.
    fn shown(budget: &mut SizeBudget, snapshot: &mut RunSnapshot) -> (RunSnapshot, Vec<String>) {
        let document = budget.document(snapshot).unwrap();
        let read: RunSnapshot = json::from_wire(&document).unwrap();
        assert!(document.len() <= budget.max_bytes || read.task_records.is_empty());
        let records = read.task_records.iter();
        let logs = records.filter(|(_, r)| !r["logs"].is_null()).map(|(n, _)| n.clone()).collect();
        (read, logs)
    }

    #[test]
    fn logs_go_before_records_and_old_ones_first() {
        let (mut budget, mut snapshot) = (SizeBudget::new(9_000), snapshot());
        for task in ["a", "é", "c"] {
            keep(&mut budget, &mut snapshot, task, record(100, 2_000));
        }
        let (read, logs) = shown(&mut budget, &mut snapshot);
        assert_eq!(logs, ["a", "é", "c"]);
        assert!(!read.task_logs_truncated);
        // A second report counts anew: now `é` is the oldest.
        keep(&mut budget, &mut snapshot, "a", record(100, 2_100));
        keep(&mut budget, &mut snapshot, "d", record(100, 2_000));
        let (read, logs) = shown(&mut budget, &mut snapshot);
        assert_eq!(logs, ["a", "c", "d"]);
        assert!(read.task_logs_truncated && !read.task_records_truncated);
        assert_eq!(read.task_records.len(), 4);
        // One that takes all the room alone leaves nothing of the others.
        keep(&mut budget, &mut snapshot, "e", record(0, 6_500));
        let (read, logs) = shown(&mut budget, &mut snapshot);
        assert_eq!(logs, ["e"]);
        assert_eq!(read.task_records.len(), 5);
    }

    #[test]
    fn records_go_when_logs_are_not_enough_and_come_back_when_they_fit() {
        let (mut budget, mut snapshot) = (SizeBudget::new(5_000), snapshot());
        keep(&mut budget, &mut snapshot, "a", record(2_000, 500));
        keep(&mut budget, &mut snapshot, "b", record(4_000, 500));
        for _ in 0..2 {
            let (read, _) = shown(&mut budget, &mut snapshot);
            assert!(read.task_records_truncated && read.task_logs_truncated);
            assert!(read.task_records.is_empty());
            assert_eq!(read.tasks.len(), 2);
        }
        keep(&mut budget, &mut snapshot, "b", record(100, 0));
        let (read, logs) = shown(&mut budget, &mut snapshot);
        assert_eq!(read.task_records.len(), 2);
        assert!(!read.task_records_truncated && read.task_logs_truncated);
        assert!(logs.is_empty(), "{logs:?}");
    }

    #[test]
    fn a_rest_that_shrinks_brings_records_back_at_once() {
        let (mut budget, mut snapshot) = (SizeBudget::new(5_000), snapshot());
        snapshot.params.insert("p".into(), "x".repeat(3_000).into());
        keep(&mut budget, &mut snapshot, "a", record(2_000, 0));
        assert!(shown(&mut budget, &mut snapshot).0.task_records.is_empty());
        snapshot.params.clear();
        assert_eq!(shown(&mut budget, &mut snapshot).0.task_records.len(), 1);
    }

    #[test]
    fn records_that_were_changed_behind_its_back_still_fit() {
        let (mut budget, mut snapshot) = (SizeBudget::new(20_000), snapshot());
        for task in 0..40 {
            keep(&mut budget, &mut snapshot, &task.to_string(), record(10, 100));
        }
        shown(&mut budget, &mut snapshot);
        for record in snapshot.task_records.values_mut() {
            record["error"] = "e".repeat(250).into();
        }
        let (read, logs) = shown(&mut budget, &mut snapshot);
        assert_eq!(read.task_records.len(), 40);
        assert!(read.task_logs_truncated && logs.len() < 40, "{}", logs.len());
    }

    #[test]
    fn logs_of_many_tasks_do_not_fill_the_memory() {
        let (mut budget, mut snapshot) = (SizeBudget::new(usize::MAX), snapshot());
        for task in 0..200 {
            keep(&mut budget, &mut snapshot, &task.to_string(), record(10, 64 * 1024));
        }
        let records = snapshot.task_records.values();
        let kept: usize = records.filter_map(|r| r["logs"]["stdout"].as_str()).map(str::len).sum();
        assert!(kept <= MAX_RUN_LOG_BYTES && kept > MAX_RUN_LOG_BYTES / 2, "{kept} bytes");
        assert!(snapshot.task_logs_truncated && snapshot.task_records.len() == 200);
        assert!(!snapshot.task_records["199"]["logs"].is_null(), "the newest are kept");
    }

    #[test]
    fn what_is_measured_is_what_is_written() {
        let (mut budget, mut snapshot) = (SizeBudget::new(usize::MAX), snapshot());
        let bare = budget.document(&mut snapshot).unwrap().len();
        for task in ["a", "日本 \"x\"", "c"] {
            let mut record = record(30, 40);
            record.error = Some("né\n".into());
            // Its entry in `tasks` is left out, so that nothing but the records grows.
            budget.keep(&mut snapshot, task.into(), record);
        }
        budget.keep(&mut snapshot, "a".into(), record(5, 7));
        budget.keep(&mut snapshot, "c".into(), record(5, 0));
        let whole = budget.document(&mut snapshot).unwrap().len();
        // The last comma is not there.
        assert_eq!(whole + 1, bare + budget.record_bytes + budget.log_bytes);
        budget.clear();
        assert_eq!(budget.record_bytes + budget.log_bytes, 0);
    }
}
