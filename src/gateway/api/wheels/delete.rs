//! `DELETE /wheels/{name}`: workers that have it give it up.

use serde_json::json;

use super::{find, note};
use crate::bus;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::view::wheels::item;
use crate::http::Reply;
use crate::model::wheel::HistoryAction;

/// How often it is looked for again because somebody else changed it.
const MAX_CONFLICTS: usize = 8;

pub fn wheel(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let name = cx.param().trim();
    let store = &parts.wheels.store;
    for _ in 0..MAX_CONFLICTS {
        let meta = find(store, name)?;
        match store.delete(&meta) {
            Ok(deleted) => {
                note(cx, HistoryAction::Delete, &item(&meta), None);
                log::info!(wheel_name = name, request_id = cx.request.request_id(); "deleted a wheel");
                let answer = json!({"name": meta.name, "deleted": true});
                if let Some(deleted) = deleted {
                    parts.wheels.shelf.wrote(deleted);
                }
                return Ok(Reply::json(200, answer.to_string().into_bytes()));
            }
            Err(bus::Error::Conflict(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(ApiError::NatsUnavailable("the wheel changes faster than it can be deleted".into()))
}
