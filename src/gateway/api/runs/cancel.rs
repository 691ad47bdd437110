//! `POST /runs/{id}/cancel`: asks for a cancel by compare-and-set.

use std::time::Instant;

use serde_json::{Map, Value};

use super::show;
use crate::bus::{Edit, Entry};
use crate::delivery::cancel;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::{self, JsonBody, Problem};
use crate::http::{Reply, Request};
use crate::model::limits::MAX_CANCEL_REASON_BYTES;
use crate::model::run::{RunSnapshot, truncated};
use crate::model::{clock, json, name};

/// The snapshot, now CANCELLING; one that has ended, or that is CANCELLING already, is unchanged.
pub fn run(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let reason = reason(cx.request)?;
    let run_id = cx.param();
    if !name::is_key(run_id) {
        return Err(ApiError::RunNotFound);
    }
    let caller = cx.caller.clone();
    if show::is_known_to_others(parts, &caller, run_id) {
        parts.runs.get(&show::nobodys_run())?;
        return Err(ApiError::RunNotFound);
    }
    let unreadable = |e: serde_json::Error| match caller.sees_all() {
        true => ApiError::Internal(format!("the snapshot of run {run_id} is unreadable: {e}")),
        // Whose it is cannot be read either.
        false => ApiError::RunNotFound,
    };
    let deadline = Instant::now() + parts.bus.request_timeout();
    let edited = parts.runs.edit(run_id, deadline, |newest| {
        let value = newest.and_then(Entry::live_value).ok_or(ApiError::RunNotFound)?;
        let mut snapshot: RunSnapshot = json::from_wire(value).map_err(unreadable)?;
        if !caller.sees(snapshot.tenant_id.as_deref()) {
            return Err(ApiError::RunNotFound);
        }
        let by = caller.key_id().map(|key_id| format!("api_key:{key_id}"));
        if !cancel::request(&mut snapshot, by, reason.clone(), clock::now()) {
            return Ok(Edit::Leave(answer(value)?));
        }
        let document = json::to_wire(&snapshot).map_err(unreadable)?;
        let reply = answer(&document)?;
        Ok(Edit::Put(document, reply))
    })?;
    if let Some(entry) = edited.written {
        log::info!(run_id = run_id, request_id = cx.request.request_id();
            "cancel requested");
        parts.index.wrote(entry);
    }
    Ok(edited.result)
}

fn answer(document: &[u8]) -> Result<Reply, ApiError> {
    let snapshot: Map<String, Value> =
        json::from_wire(document).map_err(|e| ApiError::Internal(e.to_string()))?;
    let body = show::snapshot_json(snapshot, false);
    Ok(Reply::json(200, body.to_string().into_bytes()))
}

fn reason(request: &Request) -> Result<Option<String>, ApiError> {
    let body = schema::json_body(request.header("Content-Type"), request.body())?;
    if matches!(body, JsonBody::Empty | JsonBody::Document(Value::Null)) {
        return Ok(None);
    }
    let mut fields = schema::object(body)?;
    match fields.shift_remove("reason") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            Ok(Some(truncated(text, MAX_CANCEL_REASON_BYTES)).filter(|text| !text.is_empty()))
        }
        Some(other) => {
            let loc = vec!["body".into(), "reason".into()];
            let msg = "Input should be a valid string";
            Err(Problem::new("string_type", loc, msg, other).into())
        }
    }
}
