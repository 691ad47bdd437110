//! Looks whether the streams and consumers under our names are ours: NATS may come after the start, and
//! another installation after us.

use std::time::{Duration, Instant};

use super::{Next, TIMEOUT, TURN};
use crate::bus::Bus;
use crate::gateway::view::ownership::Ownership;

/// Between two questions whether it is time for a look.
pub(super) const FIRST: Duration = Duration::from_millis(500);
/// Between two looks; also when the connection has changed since.
const INTERVAL: Duration = Duration::from_secs(30);
/// After a look without all answers; doubles each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The same at most, as long as the other chores wait for a look.
const RETRY_MAX_UNKNOWN: Duration = Duration::from_secs(5);
/// How often streams are marked as ours where NATS does not answer: a missing permission has no answer.
const MARK_TRIES: u32 = 3;

#[derive(Default)]
pub(super) struct Look {
    /// When the last one ended, and how often the connection had been lost by then.
    last: Option<(Instant, u64)>,
    /// Before the next one; zero when a look had all answers.
    retry: Duration,
    /// How often streams were to be marked as ours in vain.
    marks_tried: u32,
    has_warned: bool,
}

impl Look {
    pub(super) fn run(&mut self, bus: &Bus, ownership: &Ownership) -> Next {
        let state = bus.state();
        if !state.connected || !self.is_due(state.disconnects, ownership) {
            return Next::After(FIRST);
        }
        let is_known = ownership.has_runs();
        // It must not hold up the chores that bring runs back, which wait for the first one.
        let limit = if is_known { TURN } else { TIMEOUT };
        let retry_max = if is_known { INTERVAL } else { RETRY_MAX_UNKNOWN };
        self.retry = match bus.check_ownership(Instant::now() + limit) {
            Ok(found) => {
                let unanswered = found.unanswered.as_ref().map(ToString::to_string);
                ownership.found(found);
                match unanswered {
                    None => Duration::ZERO,
                    Some(error) => {
                        self.cannot_see(&error, ownership);
                        (self.retry * 2).clamp(RETRY_MIN, retry_max)
                    }
                }
            }
            Err(e) => {
                ownership.refused(e.to_string());
                Duration::ZERO
            }
        };
        self.last = Some((Instant::now(), state.disconnects));
        if ownership.has_runs() && self.retry.is_zero() && self.marks_tried < MARK_TRIES {
            self.marks_tried = if mark(bus) { MARK_TRIES } else { self.marks_tried + 1 };
            // Soon again, after which it is given up.
            self.retry = if self.marks_tried < MARK_TRIES { RETRY_MIN } else { Duration::ZERO };
        }
        Next::After(FIRST)
    }

    /// A moment without a leader passes; a permission that is missing does not.
    fn cannot_see(&mut self, error: &str, ownership: &Ownership) {
        log::debug!(error = error; "cannot look at all streams and consumers yet");
        if !ownership.has_runs() && !self.retry.is_zero() && !self.has_warned {
            self.has_warned = true;
            log::warn!(error = error; "cannot see whose the runs in NATS are; no run is rescued until then");
        }
    }

    fn is_due(&self, disconnects: u64, ownership: &Ownership) -> bool {
        let Some((at, before)) = self.last else { return true };
        let pause = match () {
            () if !self.retry.is_zero() => self.retry,
            () if ownership.refusal().is_some() => FIRST,
            () => INTERVAL,
        };
        before != disconnects || at.elapsed() >= pause
    }
}

/// Protects an installation that an earlier version has made; `false` when that failed. Where NATS does not
/// allow it, the gateway goes on without.
fn mark(bus: &Bus) -> bool {
    let marked = bus.mark_ownership(TURN);
    match &marked {
        Ok(changed) => changed.iter().for_each(|stream| {
            log::info!(stream = stream.as_str(); "a stream names its installation now");
        }),
        Err(e) => log::debug!(error = e.to_string(); "cannot mark the streams as those of this installation"),
    }
    marked.is_ok()
}
