//! What was uploaded and deleted, by whom and from where: `docs/spec.md#get-wheelshistory`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryAction {
    Upload,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its id; the key is `<13-digit unix ms>_<event_id>`.
    pub event_id: String,
    pub occurred_at: f64,
    pub action: HistoryAction,
    pub wheel_name: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub size_bytes: Option<u64>,
    pub sha256_hex: Option<String>,
    /// Whether an upload was allowed to replace a wheel of the same name.
    pub replace: Option<bool>,
    #[serde(default)]
    pub actor: HistoryActor,
    #[serde(default)]
    pub source: HistorySource,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The key of the client; empty where the gateway asks for none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryActor {
    pub tenant_id: Option<String>,
    pub api_key_id: Option<String>,
}

/// Where a request came from, as it says itself but for `remote_addr`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistorySource {
    pub remote_addr: Option<String>,
    pub x_forwarded_for: Option<String>,
    pub x_real_ip: Option<String>,
    pub user_agent: Option<String>,
    pub host: Option<String>,
    /// `http`, or what a proxy says.
    pub scheme: Option<String>,
}
