//! `GET /` and `GET /static/{name}`: the dashboard.

use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::Query;
use crate::gateway::page::{self, Lang};
use crate::http::Reply;

/// The page, in the language of `?lang=` or the one that is set.
pub fn index(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let settings = &cx.parts.settings;
    let asked = Query::parse(cx.request.query()).last("lang").and_then(Lang::from_word);
    let lang = asked.unwrap_or(settings.dashboard_lang);
    Ok(page::index(cx.request, lang, &settings.api_key_header, settings.cancel_grace))
}

pub fn file(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    page::file(cx.request, cx.param()).ok_or(ApiError::UnknownPath)
}
