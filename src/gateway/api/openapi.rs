//! `GET /openapi.json`: the document that describes all routes.

use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::http::Reply;

pub fn document(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    Ok(parts.openapi.answer(cx.request))
}
