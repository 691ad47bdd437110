//! Keeps the server running: one that dies is started again, ever more slowly when it dies at once.

use std::time::{Duration, Instant};

use crossbeam_channel::select;

use super::NatsChildError;
use super::instance::{Instance, Launch};
use crate::thread::StopSignal;

/// Between the death of the server and its next start: shortest and longest.
const NATS_RESTART_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A life this long makes the next pause the shortest again.
const NATS_STABLE_AFTER: Duration = Duration::from_secs(30);

/// Runs until `stop`; the server is gone when it returns.
pub fn run(launch: &Launch, first: Instance, stop: &StopSignal) {
    let mut pauses = Pauses::new();
    let mut instance = first;
    loop {
        let since = Instant::now();
        select! {
            recv(stop) -> _ => {
                instance.stop();
                return;
            }
            recv(instance.gone) -> _ => {}
        }
        let last_lines = instance.last_lines.text();
        let status = instance.stop().map_or_else(String::new, |status| format!(" ({status})"));
        log::error!("the local nats-server died{status}; its last lines:\n{last_lines}");
        let Some(next) = started_again(launch, stop, &mut pauses, since.elapsed()) else { return };
        instance = next;
    }
}

/// `None` after the stop signal.
fn started_again(
    launch: &Launch,
    stop: &StopSignal,
    pauses: &mut Pauses,
    lived: Duration,
) -> Option<Instance> {
    let mut lived = lived;
    loop {
        select! {
            recv(stop) -> _ => return None,
            default(pauses.after(lived)) => {}
        }
        match launch.start(stop) {
            Ok(instance) => {
                log::warn!("the local nats-server runs again");
                return Some(instance);
            }
            Err(NatsChildError::Stopped) => return None,
            Err(error) => log::error!("cannot start the local nats-server again: {error}"),
        }
        lived = Duration::ZERO;
    }
}

/// The pause before the next start, doubled until it reaches its upper bound.
struct Pauses {
    next: Duration,
}

impl Pauses {
    fn new() -> Self {
        Pauses { next: NATS_RESTART_PAUSES.0 }
    }

    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= NATS_STABLE_AFTER {
            *self = Self::new();
        }
        let pause = self.next;
        self.next = (pause * 2).min(NATS_RESTART_PAUSES.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_shrink_after_a_long_life() {
        let mut pauses = Pauses::new();
        let short: Vec<Duration> = (0..20).map(|_| pauses.after(Duration::ZERO)).collect();
        assert_eq!(short[0], NATS_RESTART_PAUSES.0);
        assert!(short.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(short[19], NATS_RESTART_PAUSES.1);
        assert_eq!(pauses.after(NATS_STABLE_AFTER), NATS_RESTART_PAUSES.0);
    }
}
