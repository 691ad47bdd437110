//! Requests about workers, and the gateway's figures.

use serde_json::Value;
use ureq::http::Method;

use super::transport::Call;
use super::{Client, Error};

/// Filters of the list of workers; `None` leaves one out.
#[derive(Debug, Clone, Default)]
pub struct WorkersQuery {
    /// `active`, which is the server's default, or `all`, which adds workers that have ended or gone.
    pub scope: Option<String>,
    /// `RUNNING`, `IDLE`, `UNAVAILABLE`, `STOPPED_GRACEFUL` or `DISCONNECTED`.
    pub state: Option<String>,
    /// Whether workers that an operator has hidden are listed too.
    pub include_hidden: bool,
    /// Most items; the server checks its bounds.
    pub limit: Option<i64>,
}

impl Client {
    /// Worker records: a list.
    pub fn workers(&self, query: &WorkersQuery) -> Result<Value, Error> {
        let call = Call::new(Method::GET, "/workers")
            .with_query("scope", query.scope.as_ref())
            .with_query("state", query.state.as_ref())
            .with_query("include_hidden", query.include_hidden.then_some("true"))
            .with_query("limit", query.limit);
        self.json(&call)
    }

    /// The gateway's figures in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, Error> {
        let text = self.bytes(&Call::new(Method::GET, "/metrics"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
