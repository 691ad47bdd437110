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
    /// `RUNNING`, `IDLE`, `STOPPED_GRACEFUL` or `DISCONNECTED`.
    pub state: Option<String>,
    /// Whether workers that an operator has hidden are listed too.
    pub include_hidden: bool,
    /// Most items; the server checks its bounds.
    pub limit: Option<i64>,
}

impl Client {
    /// Worker records: a list.
    pub fn workers(&self, query: &WorkersQuery) -> Result<Value, Error> {
        let mut call = Call::new(Method::GET, "/workers".to_owned());
        let texts = [("scope", &query.scope), ("state", &query.state)];
        call.query = texts.into_iter().filter_map(|(n, value)| Some((n, value.clone()?))).collect();
        if query.include_hidden {
            call.query.push(("include_hidden", "true".to_owned()));
        }
        if let Some(limit) = query.limit {
            call.query.push(("limit", limit.to_string()));
        }
        self.json(&call)
    }

    /// The gateway's figures in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, Error> {
        let text = self.bytes(&Call::new(Method::GET, "/metrics".to_owned()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
