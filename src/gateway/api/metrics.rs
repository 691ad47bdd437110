//! `GET /metrics`: the text that Prometheus scrapes.

use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::metrics::{Sources, exposition};
use crate::http::Reply;

pub fn text(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let sources = Sources {
        bus: &parts.bus,
        runs: &parts.index,
        workers: &parts.workers,
        wheels: &parts.wheels,
        hub: &parts.hub,
        backlog: &parts.backlog,
        metrics: &parts.metrics,
        auth: parts.auth.figures(),
        default_tag: &parts.settings.default_tag,
        disconnect_timeout: parts.settings.disconnect_timeout,
    };
    let text = exposition(&sources).into_bytes();
    Ok(Reply::bytes(200, "text/plain; version=0.0.4", text))
}
