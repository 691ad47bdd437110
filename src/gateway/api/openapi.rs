//! `GET /openapi.json`: the document that describes all routes.

use crate::gateway::Gateway;
use crate::gateway::api::error::ApiError;
use crate::http::{Reply, Request};

/// The document as it was made at the start.
///
/// # Errors
/// None.
pub fn document(gateway: &Gateway, request: &mut Request, _: &[String]) -> Result<Reply, ApiError> {
    Ok(gateway.openapi.answer(request))
}
