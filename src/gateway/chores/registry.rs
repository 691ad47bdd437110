//! Looks after the worker registry: tells when a worker falls silent, removes records of old ones.
//!
//! A worker that is gone writes nothing, so somebody has to notice. And a record stays for ever
//! unless somebody deletes it; that is done by compare-and-set, so that a worker which comes back in
//! that moment keeps its record, and of several gateways one acts. Whoever is heard of now is not old,
//! whatever the clocks say.

use std::time::{Duration, Instant};

use crossbeam_channel::{select, tick};

use crate::bus::{self, Kv};
use crate::gateway::GatewaySettings;
use crate::gateway::view::workers::{Seen, WorkerMirror};
use crate::model::clock;
use crate::thread::{self, JoinOnDrop, StopSignal, StopSource};

/// Between two looks for workers that have fallen silent.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks for old records, unless the retention is shorter than four of these.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Records that one sweep removes; the next one goes on.
const MAX_REMOVALS: usize = 100;

/// Starts the thread; it ends when the source is dropped.
pub(crate) fn start(
    workers: Kv,
    mirror: WorkerMirror,
    settings: &GatewaySettings,
) -> std::io::Result<(StopSource, JoinOnDrop)> {
    let (stop, stopped) = thread::stop_channel();
    let care = Care {
        workers,
        mirror,
        disconnect_timeout: settings.disconnect_timeout,
        retention: settings.workers_retention,
    };
    let thread = thread::spawn("registry-care", move || care.run(&stopped))?;
    Ok((stop, thread))
}

struct Care {
    workers: Kv,
    mirror: WorkerMirror,
    disconnect_timeout: Duration,
    retention: Duration,
}

impl Care {
    fn run(&self, stop: &StopSignal) {
        let look = tick(LOOK_INTERVAL);
        let sweep = tick(SWEEP_INTERVAL.min(self.retention / 4).max(LOOK_INTERVAL));
        loop {
            select! {
                recv(stop) -> _ => return,
                recv(look) -> _ => {
                    self.mirror.publish_silent(clock::now(), self.disconnect_timeout);
                }
                recv(sweep) -> _ => self.sweep(stop),
            }
        }
    }

    fn sweep(&self, stop: &StopSignal) {
        // What was not heard of while we could not listen may be there.
        if !self.mirror.is_live() {
            return;
        }
        let (now, here) = (clock::now(), Instant::now());
        let old = self.mirror.all().into_iter().filter(|seen| self.is_old(seen, now, here));
        for seen in old.take(MAX_REMOVALS) {
            if thread::is_stopped(stop) {
                return;
            }
            let worker_id = seen.record.worker_id.as_str();
            match self.workers.delete(worker_id, seen.revision) {
                Ok(_) => log::info!(worker_id = worker_id; "removed the record of an old worker"),
                // It has come back, or another gateway was quicker; the watch tells. But a bucket with
                // a TTL, as the Python side makes it, forgets a record without a word.
                Err(bus::Error::Conflict(_)) => {
                    if matches!(self.workers.newest(worker_id), Ok(None)) {
                        self.mirror.forget(worker_id, seen.revision);
                    }
                }
                Err(e) => {
                    log::warn!(worker_id = worker_id, error = e.to_string();
                        "cannot remove the record of an old worker yet");
                    return;
                }
            }
        }
    }

    fn is_old(&self, seen: &Seen, now: f64, here: Instant) -> bool {
        is_old(seen, now, here, self.retention, self.disconnect_timeout)
    }
}

fn is_old(seen: &Seen, now: f64, here: Instant, retention: Duration, silence: Duration) -> bool {
    let heard = here.saturating_duration_since(seen.at);
    match seen.record.seen_at() {
        // A clock that is wrong, there or here, must not cost a living worker its record.
        Some(at) => now - at > retention.as_secs_f64() && heard > silence.min(retention),
        // Nobody has written when it was seen; we know when we did.
        None => heard > retention,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Entry;

    #[test]
    fn a_worker_that_is_heard_of_is_not_old_whatever_the_clocks_say() {
        const WEEK: Duration = Duration::from_secs(604_800);
        const SILENCE: Duration = Duration::from_secs(20);
        let mirror = WorkerMirror::default();
        let is_old = |record: &str, now: f64, later: Duration| {
            let revision = mirror.get("w").map_or(1, |seen| seen.revision + 1);
            mirror.wrote(Entry::put("w", record.into(), revision));
            let seen = mirror.get("w").unwrap();
            is_old(&seen, now, seen.at + later, WEEK, SILENCE)
        };
        let record = r#"{"worker_id":"w","last_seen_at":1000.0}"#;
        let month_later = 1000.0 + 30.0 * 86_400.0;
        assert!(!is_old(record, month_later, Duration::from_secs(5)));
        assert!(is_old(record, month_later, Duration::from_secs(21)));
        assert!(!is_old(record, 2000.0, WEEK * 2));
        assert!(!is_old(r#"{"worker_id":"w"}"#, month_later, Duration::from_secs(21)));
        assert!(is_old(r#"{"worker_id":"w"}"#, 0.0, WEEK * 2));
    }
}
