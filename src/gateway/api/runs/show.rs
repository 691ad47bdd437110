//! `GET /runs/{id}` and `GET /runs/{id}/tasks`.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::gateway::api::context::{Context, Parts};
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::Query;
use crate::gateway::auth::Caller;
use crate::gateway::view::hub::Version;
use crate::http::Reply;
use crate::model::{json as lenient, name};

/// A snapshot, with what is known of its worker; records only when asked for.
pub fn run(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let query = Query::parse(cx.request.query());
    let with_records = query.has_any("include", &["records", "full", "all"]);
    let mut body = snapshot_json(document(parts, &cx.caller, cx.param())?, with_records);
    add_worker(parts, &mut body);
    Ok(Reply::json(200, body.to_string().into_bytes()))
}

pub fn tasks(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let snapshot = document(parts, &cx.caller, cx.param())?;
    let field = |name: &str, default: Value| snapshot.get(name).cloned().unwrap_or(default);
    let mut body = json!({
        "run_id": field("run_id", Value::Null),
        "flow_name": field("flow_name", Value::Null),
        "status": field("status", Value::Null),
        "tasks": field("tasks", json!({})),
        "task_records": field("task_records", json!({})),
        "task_records_truncated": field("task_records_truncated", json!(false)),
    });
    if let Some(truncated) = snapshot.get("task_logs_truncated") {
        body["task_logs_truncated"] = truncated.clone();
    }
    Ok(Reply::json(200, body.to_string().into_bytes()))
}

/// From memory when that is known to be the newest.
pub(super) fn document(parts: &Parts, caller: &Caller, run_id: &str) -> Result<Map<String, Value>, ApiError> {
    let version = version(parts, caller, run_id)?;
    lenient::from_wire(&version.document)
        .map_err(|e| ApiError::Internal(format!("the snapshot of run {run_id} is unreadable: {e}")))
}

/// The same as it lies in KV, with its revision.
pub(super) fn version(parts: &Parts, caller: &Caller, run_id: &str) -> Result<Version, ApiError> {
    if !name::is_key(run_id) {
        return Err(ApiError::RunNotFound);
    }
    if is_known_to_others(parts, caller, run_id) {
        parts.runs.get_for_show(&nobodys_run())?;
        return Err(ApiError::RunNotFound);
    }
    match parts.index.document(run_id) {
        Some(version) => Ok(version),
        None => {
            let entry = parts.runs.get_for_show(run_id)?.ok_or(ApiError::RunNotFound)?;
            let is_theirs = || owner(&entry.value).is_some_and(|t| caller.sees(t.as_deref()));
            if !caller.sees_all() && !is_theirs() {
                // One that is not there is looked for twice.
                parts.runs.get(&nobodys_run())?;
                return Err(ApiError::RunNotFound);
            }
            Ok(Version::new(entry.revision, entry.value.into()))
        }
    }
}

/// Whether the run belongs to another tenant. The caller first looks for [`nobodys_run`], so that the
/// answer takes as long as for a run that is not there.
pub(super) fn is_known_to_others(parts: &Parts, caller: &Caller, run_id: &str) -> bool {
    let summary = parts.index.summary(run_id);
    summary.is_some_and(|run| !caller.sees(run.tenant_id.as_deref()))
}

/// The id of a run that is not there.
pub(super) fn nobodys_run() -> String {
    Uuid::new_v4().to_string()
}

/// The tenant of a snapshot; the outer `None` when it cannot be read.
fn owner(document: &[u8]) -> Option<Option<String>> {
    #[derive(Deserialize)]
    struct Owned {
        #[serde(default)]
        tenant_id: Option<String>,
    }
    lenient::from_wire::<Owned>(document).ok().map(|owned| owned.tenant_id)
}

pub(super) fn snapshot_json(mut snapshot: Map<String, Value>, with_records: bool) -> Value {
    // How the job could be given back is between us and NATS.
    snapshot.shift_remove("delivery");
    snapshot.shift_remove("job_seq");
    if !with_records {
        snapshot.shift_remove("task_records");
        snapshot.shift_remove("task_records_truncated");
        snapshot.shift_remove("task_logs_truncated");
    }
    Value::Object(snapshot)
}

fn add_worker(parts: &Parts, body: &mut Value) {
    let Some(worker_id) = body.get("worker_id").and_then(Value::as_str) else { return };
    let seen = parts.workers.get(worker_id);
    let record = seen.as_ref().map(|seen| &seen.record);
    let timeout = parts.settings.disconnect_timeout;
    let state = seen.as_ref().map(|seen| seen.state(timeout));
    body["worker_alive"] = state.is_some_and(|state| state.is_alive()).into();
    body["worker_state"] = json!(state);
    body["worker_heartbeat_at"] = json!(record.and_then(|record| record.last_seen_at));
    body["worker_hidden"] = json!(record.map(|record| record.hidden));
    body["worker_tags"] = json!(record.map(|record| &record.tags));
}
