//! `GET /health`, `/healthz`, `/livez`: alive. `GET /readyz`: fit to serve.

use serde_json::json;

use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::http::Reply;
use crate::model::limits::{ADVISED_MAX_PAYLOAD, LEAST_MAX_PAYLOAD, low_max_payload};

pub fn alive(_: &mut Context<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &br#"{"status":"ok"}"#[..]))
}

/// 200 when NATS is connected and takes the message of a run, what is used there is our own, and the run index
/// and the API keys are current, else 503; a line per check.
pub fn ready(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let nats = parts.bus.state();
    let index = parts.index.is_live();
    let keys = parts.auth.is_live();
    let refusal = parts.ownership.refusal();
    let max_payload = if nats.connected { parts.bus.max_payload(ADVISED_MAX_PAYLOAD) } else { usize::MAX };
    let is_usable = max_payload >= LEAST_MAX_PAYLOAD;
    let is_ready = nats.connected && index && keys != Some(false) && refusal.is_none() && is_usable;
    let word = |ok: bool| if ok { "ok" } else { "unavailable" };
    let mut body = json!({
        "status": word(is_ready),
        "checks": {
            "nats": {
                "status": word(nats.connected),
                "server": nats.server,
                "disconnects": nats.disconnects,
            },
            "run_index": {"status": word(index)},
        },
    });
    if let Some(reason) = refusal {
        body["checks"]["resources"] = json!({"status": word(false), "reason": reason});
    }
    if let Some(reason) = low_max_payload(max_payload) {
        let status = if is_usable { "low" } else { "unavailable" };
        body["checks"]["max_payload"] = json!({"status": status, "bytes": max_payload, "reason": reason});
    }
    if let Some(keys) = keys {
        body["checks"]["api_keys"] = json!({"status": word(keys)});
    }
    let status = if is_ready { 200 } else { 503 };
    let reply = Reply::json(status, body.to_string().into_bytes());
    Ok(if status == 503 { reply.with_header("Retry-After", "1") } else { reply })
}
