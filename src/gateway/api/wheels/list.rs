//! `GET /wheels`: all wheels, by name.

use serde_json::json;

use super::patience;
use crate::gateway::Gateway;
use crate::gateway::api::error::ApiError;
use crate::gateway::view::wheels::item;
use crate::http::{Reply, Request};
use crate::model::wheel::WheelItem;

/// All wheels.
///
/// # Errors
/// [`ApiError::NatsUnavailable`] while the list is not current.
pub fn all(gateway: &Gateway, _: &mut Request, _: &[String]) -> Result<Reply, ApiError> {
    if !gateway.wheels.shelf.wait_live(patience(gateway)) {
        return Err(ApiError::NatsUnavailable("the list of wheels is not current".into()));
    }
    let items: Vec<WheelItem> = gateway.wheels.shelf.all().iter().map(item).collect();
    Ok(Reply::json(200, json!(items).to_string().into_bytes()))
}
