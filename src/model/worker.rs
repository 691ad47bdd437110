//! The worker record in the `pyoco_workers` bucket.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::json::null_is_default;

words! {
    /// What a worker says of itself, and what readers derive.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum WorkerState {
        Running = "RUNNING",
        #[default]
        Idle = "IDLE",
        /// Lives and takes no jobs, since it could not execute them; derived by the reader.
        Unavailable = "UNAVAILABLE",
        /// Has ended by itself.
        StoppedGraceful = "STOPPED_GRACEFUL",
        /// Not heard of for too long; derived by the reader, never written.
        Disconnected = "DISCONNECTED",
    }
}

/// `docs/spec.md#worker-record`; times are unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// The key; unique among live workers.
    pub worker_id: String,
    /// Unique per start of a process.
    #[serde(default, deserialize_with = "null_is_default")]
    pub instance_id: String,
    /// As written; see [`WorkerRecord::derived_state`]. A word of another version reads as `IDLE`.
    #[serde(default, deserialize_with = "known_or_idle")]
    pub state: WorkerState,
    /// Set by an operator to leave it out of lists; a worker keeps the value it finds.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hidden: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    pub last_seen_at: Option<f64>,
    /// Same value, older name.
    pub last_heartbeat_at: Option<f64>,
    /// Same value, oldest name.
    pub heartbeat_at: Option<f64>,
    pub current_run_id: Option<String>,
    pub last_run_id: Option<String>,
    pub last_run_status: Option<String>,
    pub last_run_started_at: Option<f64>,
    pub last_run_finished_at: Option<f64>,
    pub stopped_at: Option<f64>,
    pub stop_reason: Option<String>,
    pub updated_at: Option<f64>,
    /// Why it takes no jobs, while that is so; see [`WorkerRecord::told_state`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_reason: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_since: Option<f64>,
    /// State of the wheel synchronisation.
    #[serde(default)]
    pub wheel_sync: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub current_run_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl WorkerRecord {
    /// When it was heard of last, unix seconds, under the newest name that the writer knew.
    pub fn seen_at(&self) -> Option<f64> {
        self.last_seen_at.or(self.last_heartbeat_at).or(self.heartbeat_at)
    }

    /// What it says of itself: `UNAVAILABLE` when it lives and gives a reason why it takes no jobs. On the
    /// wire that is `RUNNING` or `IDLE`, which readers of other versions know.
    pub fn told_state(&self) -> WorkerState {
        match self.state {
            WorkerState::Running | WorkerState::Idle if self.unavailable_reason.is_some() => {
                WorkerState::Unavailable
            }
            state => state,
        }
    }

    /// `DISCONNECTED` once a live worker was silent for longer than `timeout`; a graceful stop stays.
    /// `silence` is by the clock of NATS or of the reader: that of the worker may be wrong.
    pub fn derived_state(&self, silence: Duration, timeout: Duration) -> WorkerState {
        match self.told_state() {
            // A record without a time is not one that a worker keeps.
            WorkerState::Running | WorkerState::Idle | WorkerState::Unavailable
                if silence > timeout || self.seen_at().is_none() =>
            {
                WorkerState::Disconnected
            }
            state => state,
        }
    }
}

impl WorkerState {
    /// Whether a worker in this (derived) state can hold jobs.
    pub fn is_alive(self) -> bool {
        self.takes_jobs() || self == WorkerState::Unavailable
    }

    /// Whether it can take jobs.
    pub fn takes_jobs(self) -> bool {
        matches!(self, WorkerState::Running | WorkerState::Idle)
    }
}

fn known_or_idle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkerState, D::Error> {
    let word = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(word).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_writers_are_read() {
        let read = |text: &str| serde_json::from_str::<WorkerRecord>(text).unwrap();
        let bare = read(r#"{"worker_id":"w"}"#);
        assert_eq!(bare.state, WorkerState::Idle);
        let timeout = Duration::from_secs(20);
        assert_eq!(bare.derived_state(Duration::ZERO, timeout), WorkerState::Disconnected);
        let odd = read(
            r#"{"worker_id":"w","state":"NAPPING","tags":null,"hidden":null,"instance_id":null,"heartbeat_at":1e9,"zzz":1}"#,
        );
        assert_eq!(odd.derived_state(timeout, timeout), WorkerState::Idle);
        assert_eq!(odd.derived_state(timeout * 2, timeout), WorkerState::Disconnected);
        assert_eq!((odd.seen_at(), &odd.extra["zzz"]), (Some(1e9), &Value::from(1)));
        let broken =
            read(r#"{"worker_id":"w","state":"IDLE","last_seen_at":1e9,"unavailable_reason":"no threads"}"#);
        assert_eq!(broken.derived_state(Duration::ZERO, timeout), WorkerState::Unavailable);
        assert_eq!(broken.derived_state(Duration::from_secs(21), timeout), WorkerState::Disconnected);
        let stopped = WorkerRecord { state: WorkerState::StoppedGraceful, ..broken };
        assert_eq!(stopped.derived_state(Duration::ZERO, timeout), WorkerState::StoppedGraceful);
        for state in WorkerState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
