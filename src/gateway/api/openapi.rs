//! `GET /openapi.json`: the document that describes all routes.

use crate::gateway::Gateway;
use crate::gateway::error::ApiError;
use crate::gateway::http::{Reply, Request};

/// The document as it was made at the start.
///
/// # Errors
/// None.
pub fn document(gateway: &Gateway, request: &mut Request, _: &[String]) -> Result<Reply, ApiError> {
    Ok(gateway.openapi.answer(request))
}
