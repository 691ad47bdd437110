//! What was uploaded and deleted, by whom and from where: `docs/spec.md#get-wheelshistory`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryAction {
    Upload,
    Delete,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its id; the key is `<13-digit unix ms>_<event_id>`.
    pub event_id: String,
    pub occurred_at: f64,
    pub action: HistoryAction,
    pub wheel_name: String,
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its bytes, where they are known.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Its hash, where it is known.
    #[serde(default)]
    pub sha256_hex: Option<String>,
    /// Whether an upload was allowed to replace a wheel of the same name.
    #[serde(default)]
    pub replace: Option<bool>,
    /// Whose key it was.
    #[serde(default)]
    pub actor: HistoryActor,
    /// Where the request came from.
    #[serde(default)]
    pub source: HistorySource,
    /// Fields of other versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The key of the client; empty where the gateway asks for none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryActor {
    #[serde(default)]
    pub tenant_id: Option<String>,
    #[serde(default)]
    pub api_key_id: Option<String>,
}

/// Where a request came from, as it says itself but for `remote_addr`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistorySource {
    /// The address at the other end.
    #[serde(default)]
    pub remote_addr: Option<String>,
    #[serde(default)]
    pub x_forwarded_for: Option<String>,
    #[serde(default)]
    pub x_real_ip: Option<String>,
    #[serde(default)]
    pub user_agent: Option<String>,
    #[serde(default)]
    pub host: Option<String>,
    /// `http`, or what a proxy says.
    #[serde(default)]
    pub scheme: Option<String>,
}
