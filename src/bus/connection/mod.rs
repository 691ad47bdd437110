//! Connections to NATS: requests with a deadline over one shared inbox, a flusher, a watchdog.

pub(crate) mod connect;
pub(crate) mod dial;
pub(crate) mod inbox;
pub(crate) mod large_payload;
pub(crate) mod link;
pub(crate) mod message;
pub(crate) mod payload_limit;
pub(crate) mod routes;
pub(crate) mod shared;
pub(crate) mod unanswered;
pub(crate) mod watchdog;
