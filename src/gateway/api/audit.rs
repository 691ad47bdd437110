//! Notes in the audit who has changed what.

use std::time::Duration;

use super::context::Context;
use super::route::{Access, Route};
use crate::bus::AuditLog;
use crate::gateway::auth::Caller;
use crate::model::audit::{ANONYMOUS, AuditEntry, Outcome};
use crate::model::error::Code;
use crate::model::limits::MAX_USER_AGENT_BYTES;
use crate::model::run::truncated;
use crate::model::{clock, json};

/// An answer waits for its entry; one that takes longer goes to the log instead.
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Audit(AuditLog);

impl Audit {
    pub(super) fn new(log: &AuditLog) -> Audit {
        Audit(log.with_timeout(APPEND_TIMEOUT))
    }

    /// Notes a request that has changed something, or would have. What NATS does not take goes to the log.
    pub(super) fn note(&self, cx: &Context<'_>, route: &Route, status: u16) {
        let Some(entry) = entry(cx, route, status) else { return };
        let stored = json::to_wire(&entry)
            .map_err(|e| e.to_string())
            .and_then(|bytes| self.0.append(&entry.action, &bytes).map_err(|e| e.to_string()));
        if let Err(e) = stored {
            let code = Code::NatsUnavailable;
            log::error!(err_id = code.err_id(), msg_id = code.msg_id(), error = e,
                request_id = cx.request.request_id(), actor = entry.actor.as_str(),
                action = entry.action.as_str(), object = entry.object.as_deref().unwrap_or_default(),
                status = status, address = cx.request.peer();
                "cannot append to the audit");
        }
    }
}

/// `None` for what changes nothing, and for strangers: they change nothing, and could fill the audit.
fn entry(cx: &Context<'_>, route: &Route, status: u16) -> Option<AuditEntry> {
    let Access::Protected(permission) = route.access else { return None };
    let action = permission.action()?;
    let actor = match &cx.caller {
        Caller::Nobody => return None,
        Caller::Anybody => ANONYMOUS.to_owned(),
        Caller::Holder(holder) => format!("api_key:{}", holder.key_id),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let agent = cx.request.header("User-Agent").unwrap_or_default();
    Some(AuditEntry {
        time: clock::now(),
        actor,
        tenant_id: cx.caller.tenant_id().map(str::to_owned),
        action: action.to_owned(),
        object: cx.object.as_deref().or(cx.params.first().map(String::as_str)).and_then(some),
        outcome: Outcome::of_status(status),
        status: Some(status),
        address: some(cx.request.peer()),
        user_agent: some(&truncated(agent.to_owned(), MAX_USER_AGENT_BYTES)),
        request_id: some(cx.request.request_id()),
        extra: serde_json::Map::new(),
    })
}
