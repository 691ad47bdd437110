//! `GET /wheels`: all wheels, by name.

use serde_json::json;

use super::patience;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::view::wheels::item;
use crate::http::Reply;
use crate::model::wheel::WheelItem;

pub fn all(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    if !parts.wheels.shelf.wait_live(patience(parts)) {
        return Err(ApiError::NatsUnavailable("the list of wheels is not current".into()));
    }
    let items: Vec<WheelItem> = parts.wheels.shelf.all().iter().map(item).collect();
    Ok(Reply::json(200, json!(items).to_string().into_bytes()))
}
