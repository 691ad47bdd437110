//! What a gateway is told at its start.

use std::time::Duration;

use super::auth::AuthSettings;
use super::page::Lang;
use crate::model::network::Network;

/// Bounds, times, and who may do what.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Tag of a submit that names none.
    pub default_tag: String,
    /// Largest `flow.yaml`, in bytes.
    pub max_workflow_bytes: u64,
    /// Largest wheel, in bytes.
    pub max_wheel_bytes: u64,
    /// How long the history of wheels is kept.
    pub wheel_history_kept: Duration,
    /// Silence after which a worker counts as disconnected.
    pub disconnect_timeout: Duration,
    /// Between two writes of a worker's record.
    pub worker_heartbeat: Duration,
    /// Between a cancel and the use of force.
    pub cancel_grace: Duration,
    /// Handler threads.
    pub threads: usize,
    /// Silence after which a worker's record is removed.
    pub workers_retention: Duration,
    /// Streams of events open at once.
    pub max_watchers: usize,
    /// The reverse proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed: those in these
    /// networks, or on this machine when the list is empty. With `None` nobody's are.
    pub trusted_proxies: Option<Vec<Network>>,
    /// The header that carries an API key.
    pub api_key_header: String,
    /// How API keys are checked; `None` lets everybody do everything.
    pub auth: Option<AuthSettings>,
    /// Language of the dashboard for visitors who have not chosen one.
    pub dashboard_lang: Lang,
}
