//! `GET /workers` and `PATCH /workers/{id}`: who executes runs, and what an operator says of it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::bus::{Edit, Entry};
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::api::runs::list::INDEX_PATIENCE;
use crate::gateway::api::schema::{self, Query};
use crate::http::Reply;
use crate::model::error::Code;
use crate::model::limits::WORKERS_LIMIT;
use crate::model::worker::{WorkerRecord, WorkerState};
use crate::model::{clock, json as wire, name};

/// Records, the one that was heard of last first, with their derived state.
pub fn list(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let query = Query::parse(cx.request.query());
    let mut problems = Vec::new();
    let include_hidden = query.flag("include_hidden", false, &mut problems);
    let limit = query.integer("limit", WORKERS_LIMIT, &mut problems);
    if !problems.is_empty() {
        return Err(ApiError::Schema(problems));
    }
    let only_alive = match query.filled("scope").map(str::to_ascii_lowercase).as_deref() {
        None | Some("active") => true,
        Some("all") => false,
        Some(_) => return Err(unacceptable("scope is `active` or `all`")),
    };
    let wanted = query.filled("state").map(state).transpose()?;
    if !parts.workers.wait_live(INDEX_PATIENCE.min(parts.bus.request_timeout())) {
        return Err(ApiError::NatsUnavailable("the list of workers is not current".into()));
    }
    let timeout = parts.settings.disconnect_timeout;
    let mut records: Vec<WorkerRecord> = parts
        .workers
        .all()
        .into_iter()
        .map(|seen| shown(&seen.record, seen.heard, timeout))
        .filter(|record| include_hidden || !record.hidden)
        .filter(|record| !only_alive || record.state.is_alive())
        .filter(|record| wanted.is_none_or(|state| record.state == state))
        .collect();
    let seen = |record: &WorkerRecord| record.seen_at().unwrap_or(0.0);
    records.sort_by(|a, b| seen(b).total_cmp(&seen(a)).then_with(|| a.worker_id.cmp(&b.worker_id)));
    records.truncate(usize::try_from(limit).unwrap_or(1));
    Ok(Reply::json(200, json!(records).to_string().into_bytes()))
}

/// Hides a worker from lists, or shows it again.
pub fn patch(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let body = schema::json_body(cx.request.header("Content-Type"), cx.request.body())?;
    let hidden = schema::required_flag(schema::object(body)?, "hidden")?;
    let worker_id = cx.param();
    if !name::is_key(worker_id) {
        return Err(ApiError::WorkerNotFound);
    }
    let unreadable = |e: serde_json::Error| {
        ApiError::Internal(format!("the record of worker {worker_id} is unreadable: {e}"))
    };
    let deadline = Instant::now() + parts.bus.request_timeout();
    let edited = parts.records.edit(worker_id, deadline, |newest| {
        let value = newest.and_then(Entry::live_value).ok_or(ApiError::WorkerNotFound)?;
        // Only the one field is touched: the rest is the worker's, whatever version wrote it.
        let mut record: Map<String, Value> = wire::from_wire(value).map_err(unreadable)?;
        let now = clock::now();
        record.insert("hidden".into(), hidden.into());
        record.insert("updated_at".into(), now.into());
        Ok::<_, ApiError>(Edit::Put(wire::to_wire(&record).map_err(unreadable)?, now))
    })?;
    log::info!(worker_id = worker_id, hidden = hidden, request_id = cx.request.request_id();
        "changed the record of a worker");
    if let Some(entry) = edited.written {
        parts.workers.wrote(entry);
    }
    let body = json!({"worker_id": worker_id, "hidden": hidden, "updated_at": edited.result});
    Ok(Reply::json(200, body.to_string().into_bytes()))
}

/// `heard`: when the worker wrote it, by our own clock.
pub(super) fn shown(record: &WorkerRecord, heard: Instant, timeout: Duration) -> WorkerRecord {
    WorkerRecord { state: record.derived_state(heard.elapsed(), timeout), ..record.clone() }
}

fn state(word: &str) -> Result<WorkerState, ApiError> {
    let known = WorkerState::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(word));
    known.ok_or_else(|| {
        unacceptable("state is `RUNNING`, `IDLE`, `UNAVAILABLE`, `STOPPED_GRACEFUL` or `DISCONNECTED`")
    })
}

fn unacceptable(reason: &str) -> ApiError {
    ApiError::Unacceptable {
        detail: "invalid workers request",
        code: Code::BadWorkersRequest,
        reason: reason.to_owned(),
    }
}
