//! A task's states, and what is known of its execution.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TaskStatus {
    Pending,
    Running,
    Succeeded,
    Failed,
    /// Did not run, or did not end, because the run was cancelled or had failed.
    Cancelled,
}

/// What is known of one task's execution; kept in `task_records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    pub state: TaskStatus,
    pub started_at: Option<f64>,
    pub ended_at: Option<f64>,
    /// Milliseconds between the two.
    pub duration_ms: Option<f64>,
    pub error: Option<String>,
    pub traceback: Option<String>,
    /// The inputs after their expressions were resolved.
    pub inputs: Value,
    pub output: Value,
    /// What the task declared to have produced beside its output.
    pub artifacts: Value,
    /// What the task has printed; ours, and only of tasks that run in a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<TaskLogs>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskLogs {
    /// From its standard output; bytes that are not UTF-8 are shown as U+FFFD.
    pub stdout: String,
    pub stderr: String,
    /// Bytes before what is kept, both streams together.
    pub dropped_bytes: u64,
}

impl TaskRecord {
    /// A record of a task in `state` of which nothing else is known.
    pub fn new(state: TaskStatus) -> Self {
        TaskRecord {
            state,
            started_at: None,
            ended_at: None,
            duration_ms: None,
            error: None,
            traceback: None,
            inputs: Value::Null,
            output: Value::Null,
            artifacts: Value::Null,
            logs: None,
        }
    }
}
