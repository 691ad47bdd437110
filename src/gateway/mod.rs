//! The HTTP gateway: from a public TCP socket to a handler, and back.
//!
//! [`edge`] owns the public port and decides what may come in at all; [`http`] hands what came in
//! to a fixed pool of handler threads. Handlers see only requests that are whole, bounded and
//! well-formed, and whatever they do (panic, stall, answer late) costs one answer, never a thread
//! of the pool. Neither of the two knows what a run is, and neither speaks NATS.

pub mod edge;
pub mod http;
