//! What a worker says of its wheels, and what a run says of those it ran with.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::limits::{MAX_LISTED_WHEELS, MAX_WHEEL_REASON_CHARS};

words! {
    /// The outcome of a worker's last synchronisation.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub enum SyncResult {
        #[default]
        Disabled = "disabled",
        Idle = "idle",
        Ok = "ok",
        /// It goes on with what it had; `last_error` says why.
        Error = "error",
    }
}

/// `docs/spec.md#wheel_sync`. Lists hold at most [`MAX_LISTED_WHEELS`]; the counts count all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WheelSync {
    pub enabled: bool,
    pub last_result: SyncResult,
    /// When it last began, unix seconds.
    pub last_attempt_at: Option<f64>,
    /// When it last ended well, unix seconds.
    pub last_success_at: Option<f64>,
    /// When the wheels in use last changed, unix seconds.
    pub last_synced_at: Option<f64>,
    /// Why it failed, with its code.
    pub last_error: Option<String>,
    /// Wheels that are meant for this worker and fit it.
    pub selected_count: usize,
    /// Of these, those that the last change brought.
    pub updated_count: usize,
    /// Those that the last change took away.
    pub removed_count: usize,
    /// Those that are meant for this worker and do not fit it.
    pub skipped_incompatible_count: usize,
    pub selected_wheels: Vec<String>,
    pub updated_wheels: Vec<String>,
    pub removed_wheels: Vec<String>,
    pub skipped_incompatible: Vec<SkippedWheel>,
    /// What new runs get.
    pub installed_wheels: Vec<InstalledWheel>,
    /// The id of that set; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SkippedWheel {
    pub wheel_name: String,
    /// Normalised; empty when the file name says none.
    pub package_name: String,
    pub package_version: String,
    pub reason: String,
}

/// A wheel that new runs of a worker get.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstalledWheel {
    pub wheel_name: String,
    pub package_name: String,
    pub package_version: String,
    /// Unix seconds.
    pub installed_at: f64,
    pub nuid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WheelRef {
    pub wheel_name: String,
    pub package_name: String,
    pub package_version: String,
    /// Of its bytes, in hex.
    pub sha256: String,
}

/// The wheels that a worker's runs get, in the order in which they are searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelSet {
    /// Says which set it is: the same wheels in the same order have the same one.
    pub generation: String,
    pub wheels: Arc<[WheelRef]>,
}

/// The part of a reason that a document shows.
pub fn brief(reason: &str) -> String {
    match reason.char_indices().nth(MAX_WHEEL_REASON_CHARS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

/// The part of a list that a document shows.
pub fn shortened<T: Clone>(list: &[T]) -> Vec<T> {
    list[..list.len().min(MAX_LISTED_WHEELS)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_synchronise_says_so_with_all_fields() {
        let value = serde_json::to_value(WheelSync::default()).unwrap();
        assert_eq!((&value["enabled"], &value["last_result"]), (&false.into(), &"disabled".into()));
        for result in SyncResult::ALL {
            assert_eq!(serde_json::to_value(result).unwrap(), result.as_str());
        }
        assert_eq!(value["selected_wheels"], serde_json::json!([]));
        assert!(value.get("last_error").is_some_and(serde_json::Value::is_null));
        let back: WheelSync = serde_json::from_str(r#"{"enabled":true,"last_result":"ok"}"#).unwrap();
        assert_eq!((back.enabled, back.last_result), (true, SyncResult::Ok));
    }

    #[test]
    fn reasons_are_bounded() {
        let long = "é".repeat(2 * MAX_WHEEL_REASON_CHARS);
        assert_eq!(brief(&long).chars().count(), MAX_WHEEL_REASON_CHARS + 1);
        assert_eq!((brief("").as_str(), brief("short").as_str()), ("", "short"));
    }

    #[test]
    fn lists_are_bounded() {
        let many: Vec<usize> = (0..2 * MAX_LISTED_WHEELS).collect();
        assert_eq!(shortened(&many).len(), MAX_LISTED_WHEELS);
        assert_eq!(shortened(&many[..3]), [0, 1, 2]);
    }
}
