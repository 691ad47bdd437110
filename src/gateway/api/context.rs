//! What a handler gets: who asks for what, and the parts of the gateway that it may use.

use std::sync::{Arc, LazyLock};

use crate::bus::{Bus, Kv, WorkQueue};
use crate::gateway::api::health::WriteTest;
use crate::gateway::auth::{Auth, Caller};
use crate::gateway::chores::{Audit, Undo};
use crate::gateway::metrics::Metrics;
use crate::gateway::settings::GatewaySettings;
use crate::gateway::view::WheelRegistry;
use crate::gateway::view::backlog::Backlog;
use crate::gateway::view::hub::Hub;
use crate::gateway::view::ownership::Ownership;
use crate::gateway::view::runs::RunIndex;
use crate::gateway::view::workers::WorkerMirror;
use crate::http::Request;
use crate::http::cached::Cached;

pub struct Context<'a> {
    pub request: &'a mut Request,
    pub caller: Caller,
    /// The decoded segments of the path that stand for `{}`, in order.
    pub params: &'a [String],
    /// What it is about, if that is not in its path: the run that it has submitted, for the audit.
    pub object: Option<String>,
    pub parts: &'a Parts,
}

impl<'a> Context<'a> {
    /// The first of [`Context::params`]; empty for a route without one.
    pub fn param(&self) -> &'a str {
        self.params.first().map(String::as_str).unwrap_or_default()
    }
}

/// Made at the first request for it, for which most gateways are never asked.
pub type LazyDocument = LazyLock<Cached, Box<dyn FnOnce() -> Cached + Send>>;

pub struct Parts {
    pub bus: Bus,
    pub runs: Kv,
    pub records: Kv,
    pub queue: WorkQueue,
    pub index: RunIndex,
    pub workers: WorkerMirror,
    pub wheels: WheelRegistry,
    pub hub: Hub,
    pub auth: Auth,
    pub metrics: Metrics,
    pub backlog: Arc<Backlog>,
    pub undo: Undo,
    pub ownership: Ownership,
    pub audit: Audit,
    pub write_test: WriteTest,
    pub openapi: LazyDocument,
    pub settings: GatewaySettings,
}
