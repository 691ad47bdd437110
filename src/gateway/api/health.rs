//! `GET /health`, `/healthz`, `/livez`: alive. `GET /readyz`: fit to serve.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::bus;
use crate::bus::Kv;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::http::Reply;
use crate::model::limits::{ADVISED_MAX_PAYLOAD, LEAST_MAX_PAYLOAD, low_max_payload};

/// For the answer to one test of a write. Where the permission to write is missing, none comes.
const WRITE_TEST_DEADLINE: Duration = Duration::from_secs(1);
/// How long its result counts, however many probes ask.
const WRITE_TEST_INTERVAL: Duration = Duration::from_secs(1);

pub fn alive(_: &mut Context<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &br#"{"status":"ok"}"#[..]))
}

/// 200 when NATS is connected and takes writes and the message of a run, what is used there is our own, and
/// the run index and the API keys are current, else 503; a line per check.
pub fn ready(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let nats = parts.bus.state();
    let index = parts.index.is_live();
    let keys = parts.auth.is_live();
    let foreign = parts.ownership.refusal();
    let max_payload = if nats.connected { parts.bus.max_payload(ADVISED_MAX_PAYLOAD) } else { usize::MAX };
    let is_usable = max_payload >= LEAST_MAX_PAYLOAD;
    let refusal = match nats.connected {
        true => parts.write_test.refusal(&parts.runs),
        false => Some(bus::Error::Disconnected.to_string()),
    };
    let has_all = index && keys != Some(false) && foreign.is_none();
    let is_ready = nats.connected && has_all && is_usable && refusal.is_none();
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
            "writes": {"status": word(refusal.is_none())},
        },
    });
    if let Some(reason) = refusal {
        body["checks"]["writes"]["reason"] = Value::String(reason);
    }
    if let Some(reason) = foreign {
        body["checks"]["resources"] = json!({"status": word(false), "reason": reason});
    }
    let refusing = parts.ownership.refusing();
    if !refusing.is_empty() {
        body["checks"]["consumers"] = json!({"status": "low", "reason": refusing.join("; ")});
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

/// The newest test of a write to the bucket of runs, which all probes share.
#[derive(Default)]
pub struct WriteTest(Mutex<Option<Tested>>);

struct Tested {
    at: Instant,
    refusal: Option<String>,
}

impl WriteTest {
    /// Why `runs` takes no writes; `None` when it does. Probes that come during a test wait for its result.
    fn refusal(&self, runs: &Kv) -> Option<String> {
        let Some(mut newest) = self.0.try_lock_for(2 * WRITE_TEST_DEADLINE) else {
            return Some("the test of a write has not ended".to_owned());
        };
        let tested = match newest.take() {
            Some(tested) if tested.at.elapsed() < WRITE_TEST_INTERVAL => tested,
            before => {
                let refusal = runs.with_timeout(WRITE_TEST_DEADLINE).test_write().err();
                let refusal = refusal.map(|e| e.to_string());
                let was_refused = before.is_some_and(|before| before.refusal.is_some());
                match &refusal {
                    Some(error) if !was_refused => {
                        log::warn!(error = error.as_str(); "NATS takes no writes; the gateway is not ready");
                    }
                    None if was_refused => log::info!("NATS takes writes again"),
                    _ => {}
                }
                Tested { at: Instant::now(), refusal }
            }
        };
        newest.insert(tested).refusal.clone()
    }
}
