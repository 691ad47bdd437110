//! Notes in the audit who has changed what.

use super::context::Context;
use super::route::{Access, Route};
use crate::gateway::auth::Caller;
use crate::model::audit::{ANONYMOUS, AuditEntry, Outcome};
use crate::model::clock;
use crate::model::limits::MAX_USER_AGENT_BYTES;
use crate::model::run::truncated;

/// Notes a request that has changed something, or would have.
pub(super) fn note(cx: &Context<'_>, route: &Route, status: u16) {
    if let Some(entry) = entry(cx, route, status) {
        cx.parts.audit.note(entry);
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
