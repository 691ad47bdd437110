//! What a person does at the registry: hands wheels in, looks at them, takes them out.

use std::net::SocketAddr;

use serde_json::Value;

use crate::stage::{Stage, form};
use crate::support::http::{self, Response};
use crate::support::wheel::WheelFile;

/// Uploads a file under this name, with these fields before it.
pub fn upload(
    address: SocketAddr,
    filename: &str,
    content: &[u8],
    fields: &[(&str, &str)],
) -> Response {
    let mut parts: Vec<(&str, Option<&str>, &[u8])> =
        fields.iter().map(|(name, value)| (*name, None, value.as_bytes())).collect();
    parts.push(("wheel", Some(filename), content));
    post(address, &parts)
}

/// POST of a form to `/wheels`.
pub fn post(address: SocketAddr, parts: &[(&str, Option<&str>, &[u8])]) -> Response {
    let (content_type, body) = form(parts);
    http::request(address, "POST", "/wheels", &[("Content-Type", &content_type)], &body)
}

/// Uploads a wheel that must be taken; the item.
pub fn take(stage: &Stage, wheel: &WheelFile, tags: &str) -> Value {
    let answer = upload(stage.address(), &wheel.file_name(), &wheel.build(), &[("tags", tags)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The names of all wheels, in the order of the list.
pub fn names(stage: &Stage) -> Vec<String> {
    let answer = stage.get("/wheels");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let items = answer.json();
    items.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// Deletes a wheel.
pub fn delete(stage: &Stage, name: &str) -> Response {
    http::request(stage.address(), "DELETE", &format!("/wheels/{name}"), &[], b"")
}

/// Messages in the stream of the store: what really is there.
pub fn stored_messages(stage: &Stage) -> u64 {
    let inspected = stage.bus.inspect();
    let (_, store) = inspected.into_iter().find(|(name, _)| name == "OBJ_pyoco_wheels").unwrap();
    store.unwrap()["messages"].as_u64().unwrap_or(0)
}
