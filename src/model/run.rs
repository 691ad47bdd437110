//! A run's snapshot, its states, and what a list shows of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::null_is_default;
use super::limits::MAX_ERROR_BYTES;
pub use super::task::{TaskLogs, TaskRecord, TaskStatus};
use super::wheel::{WheelRef, WheelSet, shortened};

words! {
    /// The status of a run: `PENDING → RUNNING → COMPLETED | FAILED`, and from `PENDING` or `RUNNING`
    /// `→ CANCELLING → CANCELLED`.
    #[derive(
        Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
    )]
    pub enum RunStatus {
        #[default]
        Pending = "PENDING",
        Running = "RUNNING",
        Cancelling = "CANCELLING",
        /// Every task that had to run has succeeded.
        Completed = "COMPLETED",
        /// The flow failed, was not found, or its deliveries are exhausted.
        Failed = "FAILED",
        /// It ended because of a cancel request.
        Cancelled = "CANCELLED",
    }
}

impl RunStatus {
    pub fn is_terminal(self) -> bool {
        matches!(self, RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled)
    }
}

/// One JSON document in the `pyoco_runs` bucket (`docs/spec.md#run-snapshot`). Unknown fields survive in
/// `extra`, so that a gateway that cancels a run of a newer or a Python worker loses nothing. Times are
/// unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSnapshot {
    /// UUIDv4; also the key.
    pub run_id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub flow_name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tag: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    /// Owner, when API keys are in use.
    pub tenant_id: Option<String>,
    pub api_key_id: Option<String>,
    /// Lower-case hex hash of the submitted `flow.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_yaml_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_yaml_bytes: Option<u64>,
    pub status: RunStatus,
    #[serde(default, deserialize_with = "null_is_default")]
    pub params: Map<String, Value>,
    /// Task name → status; always complete.
    #[serde(default, deserialize_with = "null_is_default")]
    pub tasks: Map<String, Value>,
    /// Task name → record; dropped when the document would become too large.
    #[serde(default, deserialize_with = "null_is_default")]
    pub task_records: Map<String, Value>,
    /// Set when records were dropped.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub task_records_truncated: bool,
    /// Set when what tasks have printed was left out; ours.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub task_logs_truncated: bool,
    pub start_time: Option<f64>,
    pub end_time: Option<f64>,
    /// Last sign of life of the owner of the run.
    pub heartbeat_at: Option<f64>,
    /// Last write; lists are ordered by it.
    pub updated_at: Option<f64>,
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// When the first cancel request came, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_reason: Option<String>,
    /// Counts the attempts and the deliveries of its job: each attempt has a higher one than those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// How many of them have ended with the death of their worker; only these are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_attempts: Option<u64>,
    /// When the gateway took the run, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<f64>,
    /// The set of wheels that the last attempt has had; ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wheel_generation: Option<String>,
    /// The wheels of that set, [`MAX_LISTED_WHEELS`](super::limits::MAX_LISTED_WHEELS) at most; ours.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub wheels: Vec<WheelRef>,
    /// Sequence of the message that stands for the run in the work queue; another one is void. Internal, not
    /// shown over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_seq: Option<u64>,
    /// How to give the job back when its worker is gone; internal, not shown over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The delivery that a running snapshot belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The ACK subject of the job message; a NAK to it brings the job back at once.
    pub ack: String,
    /// The worker process that holds it, unique per start.
    pub instance_id: String,
    /// Longest silence of a live worker in this run, in seconds.
    pub heartbeat_sec: f64,
    /// Set by the gateway that has given the job back in the place of a silent worker.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rescued: bool,
    /// Set when the job is no worker's any more: given back, or published anew.
    #[serde(default, skip_serializing_if = "is_false")]
    pub released: bool,
    /// What a later version says of it; kept when this one changes the snapshot. Nearly always empty, so it
    /// takes no room in the index of runs.
    #[serde(flatten)]
    pub extra: Box<Map<String, Value>>,
}

impl Delivery {
    /// A delivery that its worker has just got.
    pub fn new(ack: String, instance_id: String, heartbeat_sec: f64) -> Delivery {
        let (rescued, released, extra) = (false, false, Box::default());
        Delivery { ack, instance_id, heartbeat_sec, rescued, released, extra }
    }
}

impl RunSnapshot {
    /// A snapshot as the gateway stores it before the job is queued.
    pub fn pending(run_id: String, flow_name: String, tag: String, now: f64) -> Self {
        RunSnapshot {
            run_id,
            flow_name,
            tags: vec![tag.clone()],
            tag,
            heartbeat_at: Some(now),
            updated_at: Some(now),
            submitted_at: Some(now),
            ..RunSnapshot::default()
        }
    }

    /// The caller writes it by compare-and-set. Unless the run is COMPLETED its tasks end with it: those
    /// that were RUNNING when it FAILED have failed with its error, all others are CANCELLED.
    pub fn finish(&mut self, status: RunStatus, error: Option<String>, now: f64) {
        debug_assert!(status.is_terminal());
        self.status = status;
        self.error = error.map(|text| truncated(text, MAX_ERROR_BYTES));
        self.end_time = Some(now);
        self.heartbeat_at = Some(now);
        self.updated_at = Some(now);
        self.delivery = None;
        if status != RunStatus::Completed {
            self.close_tasks(now);
        }
    }

    pub fn set_wheels(&mut self, set: &WheelSet) {
        self.wheel_generation = Some(set.generation.clone());
        self.wheels = shortened(&set.wheels);
    }

    /// For a document that the server does not take; `false` when there is nothing left to leave out.
    pub fn drop_bulk(&mut self) -> bool {
        if self.task_records.is_empty() && self.params.is_empty() && self.wheels.is_empty() {
            return false;
        }
        self.wheels.clear();
        self.task_records.clear();
        self.task_records_truncated = true;
        self.params.clear();
        self.extra.insert("params_truncated".to_owned(), true.into());
        true
    }

    /// Replaces the names of the tasks by how many there are of each status, in a document that no message
    /// can hold with them. Unless the run has failed or was cancelled anyway it is FAILED: how its tasks
    /// ended is not recorded.
    pub fn count_tasks(&mut self, now: f64) {
        let mut counts: Map<String, Value> = Map::new();
        for state in self.tasks.values() {
            let count = counts.entry(state.as_str().unwrap_or("UNKNOWN")).or_insert_with(|| 0.into());
            *count = Value::from(count.as_u64().unwrap_or(0) + 1);
        }
        let tasks = self.tasks.len();
        self.tasks.clear();
        self.task_records.clear();
        self.task_records_truncated = true;
        self.extra.insert("task_counts".to_owned(), counts.into());
        if !matches!(self.status, RunStatus::Failed | RunStatus::Cancelled) {
            self.finish(RunStatus::Failed, Some(too_many_tasks(tasks)), now);
        }
    }

    /// Nothing of a run that has ended is shown as going on, also when its executor died.
    fn close_tasks(&mut self, now: f64) {
        for (name, state) in &mut self.tasks {
            let was_running = *state == "RUNNING";
            if !was_running && *state != "PENDING" {
                continue;
            }
            let has_failed = was_running && self.status == RunStatus::Failed;
            *state = Value::from(if has_failed { "FAILED" } else { "CANCELLED" });
            let Some(Value::Object(record)) = self.task_records.get_mut(name) else { continue };
            record.insert("state".to_owned(), state.clone());
            if was_running {
                let lasted = record.get("started_at").and_then(Value::as_f64).map(|at| now - at);
                set_missing(record, "ended_at", Some(now));
                set_missing(record, "duration_ms", lasted.map(|seconds| seconds.max(0.0) * 1000.0));
            }
            if has_failed {
                set_missing(record, "error", self.error.as_deref());
            }
        }
    }

    /// What lists and the run index keep of it.
    pub fn summary(&self) -> RunSummary {
        RunSummary {
            run_id: self.run_id.clone(),
            flow_name: self.flow_name.clone(),
            tag: self.tag.clone(),
            tags: self.tags.clone(),
            tenant_id: self.tenant_id.clone(),
            api_key_id: self.api_key_id.clone(),
            status: self.status,
            updated_at: self.updated_at,
            heartbeat_at: self.heartbeat_at,
            worker_id: self.worker_id.clone(),
            error: self.error.clone(),
            start_time: self.start_time,
            end_time: self.end_time,
            cancel_requested_at: self.cancel_requested_at,
            submitted_at: self.submitted_at,
            attempt: self.attempt,
            job_seq: self.job_seq,
            workflow_yaml_sha256: self.workflow_yaml_sha256.clone(),
            delivery: self.delivery.clone(),
        }
    }
}

/// One row of `GET /runs`; read straight from a snapshot document, skipping the rest of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// See [`RunSnapshot`]; so for every field.
    pub run_id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub flow_name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tag: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    pub tenant_id: Option<String>,
    pub api_key_id: Option<String>,
    pub status: RunStatus,
    pub updated_at: Option<f64>,
    pub heartbeat_at: Option<f64>,
    pub worker_id: Option<String>,
    pub error: Option<String>,
    pub start_time: Option<f64>,
    pub end_time: Option<f64>,
    pub cancel_requested_at: Option<f64>,
    pub submitted_at: Option<f64>,
    pub attempt: Option<u64>,
    /// For the search of its message; not a column.
    #[serde(default, skip_serializing)]
    pub job_seq: Option<u64>,
    /// For the list's filter; not a column of it.
    #[serde(default, skip_serializing)]
    pub workflow_yaml_sha256: Option<String>,
    /// For the rescue of runs whose worker is gone; not a column.
    #[serde(default, skip_serializing)]
    pub delivery: Option<Delivery>,
}

/// Text of the `error` of a run whose task names do not fit into a message.
pub fn too_many_tasks(tasks: usize) -> String {
    format!("too_many_tasks: the names of {tasks} tasks do not fit into one message of NATS")
}

/// Cuts `text` to at most `limit` bytes at a character boundary and marks the cut.
pub fn truncated(mut text: String, limit: usize) -> String {
    const MARK: &str = "… (truncated)";
    if text.len() > limit {
        let mut end = limit.saturating_sub(MARK.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}

fn set_missing(record: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if record.get(field).is_none_or(Value::is_null) {
        record.insert(field.to_owned(), value.into());
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::json;

    #[test]
    fn a_snapshot_survives_a_round_trip_with_unknown_fields() {
        let text = br#"{"run_id":"r","flow_name":"main","tag":"default","status":"RUNNING","worker_id":"w",
            "zzz":[1],"delivery":{"ack":"a","instance_id":"i","heartbeat_sec":1.0,"yyy":2}}"#;
        let snapshot: RunSnapshot = json::from_wire(text).unwrap();
        assert_eq!(snapshot.extra["zzz"], serde_json::json!([1]));
        assert_eq!(serde_json::to_value(&snapshot).unwrap()["delivery"]["yyy"], 2);
        let again: RunSnapshot = json::from_wire(&json::to_wire(&snapshot).unwrap()).unwrap();
        assert_eq!(again, snapshot);
    }

    #[test]
    fn wheels_are_shown_where_there_are_generations_of_them() {
        let mut snapshot = RunSnapshot::pending("r".into(), "main".into(), "default".into(), 1.0);
        let fields = |snapshot: &RunSnapshot| {
            let document = serde_json::to_value(snapshot).unwrap();
            (document.get("wheel_generation").cloned(), document.get("wheels").cloned())
        };
        assert_eq!(fields(&snapshot), (None, None));
        snapshot.set_wheels(&WheelSet { generation: "g".into(), wheels: [].into() });
        assert_eq!(fields(&snapshot), (Some("g".into()), None));
        let text = br#"{"run_id":"r","status":"PENDING","wheel_generation":null,"wheels":null}"#;
        let read: RunSnapshot = json::from_wire(text).unwrap();
        assert_eq!(fields(&read), (None, None));
    }

    /// `a` runs, `b` waits, `c` has succeeded; `d` runs and has reported an error of its own.
    fn unfinished() -> RunSnapshot {
        let mut snapshot = RunSnapshot::pending("r".into(), "main".into(), "default".into(), 1.0);
        snapshot.status = RunStatus::Running;
        for (name, state) in [
            ("a", TaskStatus::Running),
            ("b", TaskStatus::Pending),
            ("c", TaskStatus::Succeeded),
            ("d", TaskStatus::Running),
            ("unrecorded", TaskStatus::Running),
        ] {
            snapshot.tasks.insert(name.into(), serde_json::to_value(state).unwrap());
            let mut record = TaskRecord::new(state);
            record.started_at = (state != TaskStatus::Pending).then_some(2.0);
            record.ended_at = (state == TaskStatus::Succeeded).then_some(3.0);
            record.error = (name == "d").then(|| "own".to_owned());
            if name != "unrecorded" {
                let record = serde_json::to_value(record).unwrap();
                snapshot.task_records.insert(name.into(), record);
            }
        }
        snapshot
    }

    #[test]
    fn tasks_end_with_their_run() {
        use serde_json::json;
        for (status, running) in [(RunStatus::Failed, "FAILED"), (RunStatus::Cancelled, "CANCELLED")] {
            let mut snapshot = unfinished();
            let error = (status == RunStatus::Failed).then(|| "died".to_owned());
            snapshot.finish(status, error.clone(), 4.5);
            let states = json!({"a": running, "b": "CANCELLED", "c": "SUCCEEDED", "d": running,
                "unrecorded": running});
            assert_eq!(Value::Object(snapshot.tasks.clone()), states);
            let of = |name: &str| {
                let r = &snapshot.task_records[name];
                json!([r["state"], r["ended_at"], r["duration_ms"], r["error"]])
            };
            assert_eq!(of("a"), json!([running, 4.5, 2500.0, error]));
            assert_eq!(of("b"), json!(["CANCELLED", null, null, null]));
            assert_eq!(of("c"), json!(["SUCCEEDED", 3.0, null, null]));
            assert_eq!(of("d"), json!([running, 4.5, 2500.0, "own"]));
            assert!(!snapshot.task_records.contains_key("unrecorded"));
        }
        let mut snapshot = unfinished();
        let before = snapshot.tasks.clone();
        snapshot.finish(RunStatus::Completed, None, 4.5);
        assert_eq!(snapshot.tasks, before);
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let cut = truncated("é".repeat(100), 50);
        assert!(cut.len() <= 50 && cut.ends_with("(truncated)"), "{cut}");
        assert_eq!(truncated("short".into(), 50), "short");
    }
}
