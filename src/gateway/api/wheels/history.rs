//! `GET /wheels/history`: what was uploaded and deleted, the newest first.

use serde_json::json;

use super::{patience, unacceptable};
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::Query;
use crate::gateway::view::history::Wanted;
use crate::http::Reply;
use crate::model::limits::WHEEL_HISTORY_LIMIT;
use crate::model::wheel::{HistoryAction, NameError, WheelName};

pub fn list(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let query = Query::parse(cx.request.query());
    let mut problems = Vec::new();
    let limit = query.integer("limit", WHEEL_HISTORY_LIMIT, &mut problems);
    if !problems.is_empty() {
        return Err(ApiError::Schema(problems));
    }
    let text = |name: &str| query.last(name).map(str::trim).filter(|text| !text.is_empty());
    let wheel_name = text("wheel_name");
    // One that is called like a file, and has only no version for instance, is one that never was there.
    if let Some(e @ NameError::NotAWheel) = wheel_name.and_then(|name| WheelName::parse(name).err()) {
        return Err(unacceptable("invalid wheel name", e.to_string()));
    }
    let action = match text("action").map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("upload") => Some(HistoryAction::Upload),
        Some("delete") => Some(HistoryAction::Delete),
        Some(_) => return Err(unacceptable("invalid action", "it is `upload` or `delete`")),
    };
    if !parts.wheels.history.wait_live(patience(parts)) {
        return Err(ApiError::NatsUnavailable("the history of wheels is not current".into()));
    }
    let limit = usize::try_from(limit).unwrap_or(1);
    let events = parts.wheels.history.newest(&Wanted { wheel_name, action }, limit);
    Ok(Reply::json(200, json!(events).to_string().into_bytes()))
}
