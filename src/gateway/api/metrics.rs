//! `GET /metrics`: the text that Prometheus scrapes.

use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::metrics::exposition;
use crate::http::Reply;

/// Every figure, also while NATS is away.
///
/// # Errors
/// None.
pub fn text(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let text = exposition(parts).into_bytes();
    Ok(Reply::bytes(200, "text/plain; version=0.0.4", text))
}
