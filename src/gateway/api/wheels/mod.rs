//! The routes of the wheel registry.

mod admission;
mod delete;
mod download;
mod form;
mod history;
mod list;
mod upload;

pub use delete::wheel as delete;
pub use download::wheel as download;
pub use history::list as history;
pub use list::all as list;
pub use upload::wheel as upload;

use crate::bus::{self, ObjectMeta, ObjectStore};
use crate::gateway::api::context::{Context, Parts};
use crate::gateway::api::error::ApiError;
use crate::gateway::api::runs::list::INDEX_PATIENCE;
use crate::model::clock;
use crate::model::error::Code;
use crate::model::limits::MAX_SOURCE_BYTES;
use crate::model::run::truncated;
use crate::model::wheel::{HistoryAction, HistoryActor, HistoryEntry, HistorySource, WheelItem};

/// How long a request waits for the list of wheels to be current.
fn patience(parts: &Parts) -> std::time::Duration {
    INDEX_PATIENCE.min(parts.bus.request_timeout())
}

/// The wheel of that name; what cannot be a name is none.
fn find(store: &ObjectStore, name: &str) -> Result<ObjectMeta, ApiError> {
    match store.find(name) {
        Ok(Some(meta)) => Ok(meta),
        Ok(None) | Err(bus::Error::BadName(_)) => Err(ApiError::WheelNotFound),
        Err(e) => Err(e.into()),
    }
}

/// Notes in the history what was done. The deed is done by then: what cannot be noted goes to the log.
fn note(cx: &Context<'_>, action: HistoryAction, item: &WheelItem, replace: Option<bool>) {
    let header = |name: &str| {
        let value = cx.request.header(name).filter(|value| !value.is_empty())?;
        Some(truncated(value.to_owned(), MAX_SOURCE_BYTES))
    };
    let holder = cx.caller.holder();
    let entry = HistoryEntry {
        event_id: uuid::Uuid::new_v4().simple().to_string(),
        occurred_at: clock::now(),
        action,
        wheel_name: item.name.clone(),
        tags: item.tags.clone(),
        size_bytes: Some(item.size_bytes),
        sha256_hex: item.sha256_hex.clone(),
        replace,
        actor: HistoryActor {
            tenant_id: holder.map(|holder| holder.tenant_id.clone()),
            api_key_id: holder.map(|holder| holder.key_id.clone()),
        },
        source: HistorySource {
            remote_addr: Some(cx.request.peer().to_owned()).filter(|peer| !peer.is_empty()),
            x_forwarded_for: header("X-Forwarded-For"),
            x_real_ip: header("X-Real-IP"),
            user_agent: header("User-Agent"),
            host: header("Host"),
            scheme: Some(cx.request.scheme().to_owned()),
        },
        extra: serde_json::Map::new(),
    };
    if let Err(e) = cx.parts.wheels.history.append(&entry) {
        let code = Code::NatsUnavailable;
        log::error!(err_id = code.err_id(), msg_id = code.msg_id(), error = e.to_string(),
            request_id = cx.request.request_id(), wheel_name = item.name.as_str();
            "cannot note in the history what was done to a wheel");
    }
}

fn unacceptable(detail: &'static str, reason: impl Into<String>) -> ApiError {
    ApiError::Unacceptable { detail, code: Code::BadInput, reason: reason.into() }
}
