//! `GET /metrics`: the text that Prometheus scrapes.

use crate::gateway::Gateway;
use crate::gateway::api::error::ApiError;
use crate::gateway::metrics::{Sources, exposition};
use crate::http::{Reply, Request};

/// Every figure, also while NATS is away.
///
/// # Errors
/// None.
pub fn text(gateway: &Gateway, _: &mut Request, _: &[String]) -> Result<Reply, ApiError> {
    let sources = Sources {
        bus: &gateway.bus,
        runs: &gateway.index,
        workers: &gateway.workers,
        wheels: &gateway.wheels,
        hub: &gateway.hub,
        backlog: &gateway.backlog,
        metrics: &gateway.metrics,
        auth: gateway.auth.figures(),
        default_tag: &gateway.settings.default_tag,
        disconnect_timeout: gateway.settings.disconnect_timeout,
    };
    let text = exposition(&sources).into_bytes();
    Ok(Reply::bytes(200, "text/plain; version=0.0.4", text))
}
