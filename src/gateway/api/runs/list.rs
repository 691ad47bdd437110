//! `GET /runs`: a page of runs, newest first, from the index.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::show;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::Query;
use crate::gateway::view::runs::{Filter, Position};
use crate::http::Reply;
use crate::model::error::Code;
use crate::model::limits::LIST_LIMIT;

/// How long a list waits for an index that is being rebuilt: shorter than any client's patience.
pub const INDEX_PATIENCE: Duration = Duration::from_secs(2);
const MAX_CURSOR_BYTES: usize = 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    u: f64,
    r: String,
}

/// A plain list, or with `updated_after`, `cursor` or `workflow_yaml_sha256` a page with a cursor.
pub fn runs(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let query = Query::parse(cx.request.query());
    let mut problems = Vec::new();
    let limit = query.integer("limit", LIST_LIMIT, &mut problems);
    let updated_after = query.float("updated_after", &mut problems);
    if !problems.is_empty() {
        return Err(ApiError::Schema(problems));
    }
    // An empty cursor asks for the first page.
    let cursor = query.last("cursor");
    let after = cursor.filter(|c| !c.is_empty()).map(position).transpose()?;
    let caller = &cx.caller;
    let filter = Filter {
        tenant: caller.tenant_id(),
        status: query.filled("status"),
        flow: query.filled("flow"),
        tag: query.filled("tag"),
        worker: query.filled("worker"),
        text: query.filled("q").map(str::to_lowercase),
        workflow_yaml_sha256: query.filled("workflow_yaml_sha256"),
        updated_after,
        after,
    };
    let paged = cursor.is_some() || updated_after.is_some() || filter.workflow_yaml_sha256.is_some();
    if !parts.index.wait_live(INDEX_PATIENCE.min(parts.bus.request_timeout())) {
        return Err(ApiError::NatsUnavailable("the run index is not current".into()));
    }
    let (page, more) = parts.index.list(&filter, usize::try_from(limit).unwrap_or(1));
    let next_cursor = page.last().filter(|_| more).map(|last| written(&Position::of(last)));
    let items: Vec<Value> = if query.is_full() {
        page.iter()
            .map(|run| show::document(parts, caller, &run.run_id))
            // A run that was deleted since is not there any more.
            .filter_map(|document| match document {
                Err(ApiError::RunNotFound) => None,
                other => Some(other.map(|d| show::snapshot_json(d, true))),
            })
            .collect::<Result<_, _>>()?
    } else {
        page.iter().map(|run| json!(**run)).collect()
    };
    let body = if paged { json!({"items": items, "next_cursor": next_cursor}) } else { Value::Array(items) };
    Ok(Reply::json(200, body.to_string().into_bytes()))
}

fn written(position: &Position) -> String {
    let cursor = Cursor { u: position.updated_at, r: position.run_id.clone() };
    // Two plain fields always serialize; an empty cursor would start over, which is no harm.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

fn position(text: &str) -> Result<Position, ApiError> {
    let bad = |reason: &str| ApiError::Unacceptable {
        detail: "invalid list query",
        code: Code::BadListQuery,
        reason: format!("cursor: {reason}"),
    };
    if text.len() > MAX_CURSOR_BYTES {
        return Err(bad("too long"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad("not base64url"))?;
    let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| bad("not one of ours"))?;
    Ok(Position { updated_at: cursor.u, run_id: cursor.r })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_exactly_and_garbage_does_not() {
        let place = Position { updated_at: 1_795_182_726.877_709_6, run_id: "7f3a".into() };
        assert_eq!(position(&written(&place)).unwrap(), place);
        for bad in ["zzz", "!!", "e30", "bnVsbA", &"A".repeat(5000)] {
            assert_eq!(position(bad).unwrap_err().status(), 422, "{bad}");
        }
    }
}
