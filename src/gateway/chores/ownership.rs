//! Looks whether the streams and consumers under our names are ours: NATS may come after the start, and
//! another installation after us.

use std::time::{Duration, Instant};

use super::{Next, TIMEOUT};
use crate::bus::Bus;
use crate::gateway::view::ownership::Ownership;

/// Between two looks until one has an answer.
pub(super) const FIRST: Duration = Duration::from_millis(500);
/// Between two looks afterwards; also when the connection has changed since.
const INTERVAL: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Look {
    /// When the last one had an answer, and how often the connection had been lost by then.
    answered: Option<(Instant, u64)>,
}

impl Look {
    pub(super) fn run(&mut self, bus: &Bus, ownership: &Ownership) -> Next {
        let state = bus.state();
        let is_fresh = |(at, disconnects): (Instant, u64)| {
            disconnects == state.disconnects && at.elapsed() < INTERVAL && ownership.refusal().is_none()
        };
        if !state.connected || self.answered.is_some_and(is_fresh) {
            return Next::After(FIRST);
        }
        match bus.check_ownership(Instant::now() + TIMEOUT) {
            Ok(()) => ownership.found(None),
            Err(e) if e.is_final() => ownership.found(Some(e.to_string())),
            // It says nothing of whose they are.
            Err(e) => {
                log::debug!(error = e.to_string(); "cannot look at the streams and consumers yet");
                return Next::After(FIRST);
            }
        }
        self.answered = Some((Instant::now(), state.disconnects));
        Next::After(FIRST)
    }
}
