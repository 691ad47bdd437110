//! `POST /wheels`: a new wheel, for the workers that serve one of its tags.

use std::io::Read;

use serde_json::{Map, Value, json};

use super::admission;
use super::form::{self, Form, stored};
use super::note;
use crate::bus::{self, ObjectMeta};
use crate::gateway::api::context::{Context, Parts};
use crate::gateway::api::error::ApiError;
use crate::gateway::view::wheels::item;
use crate::http::Reply;
use crate::model::wheel::{CONTENT_TYPE, HistoryAction, SHA256_HEADER, TAGS_HEADER};

/// How often an upload looks at the registry again because another wheel was published meanwhile.
const MAX_PUBLISH_CONFLICTS: usize = 32;
/// What is still read of an upload that is refused, so that the client gets to read the answer; of a larger
/// one the connection is cut instead.
const DRAINED_UPLOAD_BYTES: u64 = 8 * 1024 * 1024;

/// After an error nothing of the wheel stays in the store.
pub fn wheel(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let content_type = cx.request.header("Content-Type").unwrap_or_default().to_owned();
    let body = cx.request.body_reader();
    let mut named = None;
    let form = form::read(parts, &content_type, &mut *body, &mut named).inspect_err(|_| {
        // Somebody who still sends does not read; what is small enough is let come.
        let _ = std::io::copy(&mut body.take(DRAINED_UPLOAD_BYTES), &mut std::io::sink());
    });
    if let Some(name) = named {
        cx.object = Some(name);
    }
    let form = form?;
    let meta = publish(parts, &form)?;
    let item = item(&meta);
    parts.wheels.shelf.wrote(meta);
    log::info!(wheel_name = item.name.as_str(), bytes = item.size_bytes, tags = item.tags.join(","),
        request_id = cx.request.request_id(); "took a wheel in");
    note(cx, HistoryAction::Upload, &item, Some(form.replace));
    Ok(Reply::json(200, json!(item).to_string().into_bytes()))
}

/// Fails when the registry is not as it was when that was decided.
fn publish(parts: &Parts, form: &Form) -> Result<ObjectMeta, ApiError> {
    let store = &parts.wheels.store;
    let mut headers: Map<String, Value> = Map::new();
    headers.insert("content-type".into(), CONTENT_TYPE.into());
    headers.insert(SHA256_HEADER.into(), form.sealed.sha256_hex.clone().into());
    if !form.tags.is_empty() {
        headers.insert(TAGS_HEADER.into(), form.tags.join(",").into());
    }
    for _ in 0..MAX_PUBLISH_CONFLICTS {
        let listing = store.list()?;
        let there = listing.objects.iter().map(|meta| meta.name.as_str());
        admission::decide(there, &form.name, form.replace)?;
        match form.sealed.publish(&form.name.file_name, headers.clone(), listing.revision) {
            Ok(meta) => return Ok(meta),
            Err(bus::Error::Conflict(_)) => {}
            Err(e) => return Err(stored(e)),
        }
    }
    Err(ApiError::NatsUnavailable("the registry changes faster than a wheel can be published".into()))
}
