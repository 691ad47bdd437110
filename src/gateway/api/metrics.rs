//! `GET /metrics`: the text that Prometheus scrapes.

use crate::gateway::Gateway;
use crate::gateway::api::error::ApiError;
use crate::gateway::metrics::exposition;
use crate::http::{Reply, Request};

/// Every figure, also while NATS is away.
///
/// # Errors
/// None.
pub fn text(gateway: &Gateway, _: &mut Request, _: &[String]) -> Result<Reply, ApiError> {
    let text = exposition(gateway).into_bytes();
    Ok(Reply::bytes(200, "text/plain; version=0.0.4", text))
}
