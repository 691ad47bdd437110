//! Removes the records of workers that are long gone.
//!
//! By compare-and-set, so that a worker which comes back in that moment keeps its record, and of several
//! gateways one acts. A worker that is heard of now is not old, whatever the clocks say.

use std::time::{Duration, Instant};

use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Bus, Entry, Kv};
use crate::gateway::view::workers::{Seen, WorkerMirror};
use crate::model::clock;

/// Between two looks for workers that have fallen silent: they write nothing, so the time tells.
pub(super) const SILENCE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks for old records, unless the retention is shorter than four of these.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Sweep {
    records: Kv,
    workers: WorkerMirror,
    disconnect_timeout: Duration,
    retention: Duration,
}

impl Sweep {
    pub(super) fn new(
        bus: &Bus,
        workers: WorkerMirror,
        disconnect_timeout: Duration,
        retention: Duration,
    ) -> Sweep {
        let records = bus.workers().with_timeout(TIMEOUT);
        Sweep { records, workers, disconnect_timeout, retention }
    }

    pub(super) fn interval(&self) -> Duration {
        SWEEP_INTERVAL.min(self.retention / 4).max(SILENCE_INTERVAL)
    }

    pub(super) fn run(&self, turn: &Turn<'_>) -> Next {
        // What was not heard of while we could not listen may be there.
        if !self.workers.is_live() {
            return Next::InTime;
        }
        let (now, here) = (clock::now(), Instant::now());
        let is_old = |seen: &Seen| is_old(seen, now, here, self.retention, self.disconnect_timeout);
        for seen in self.workers.all().into_iter().filter(is_old) {
            if turn.is_over() {
                return Next::Again;
            }
            if let Err(e) = self.remove(&seen) {
                log::warn!(worker_id = seen.record.worker_id.as_str(), error = e.to_string();
                    "cannot remove the record of an old worker yet");
                break;
            }
        }
        Next::InTime
    }

    fn remove(&self, seen: &Seen) -> bus::Result<()> {
        let worker_id = seen.record.worker_id.as_str();
        match self.records.delete(worker_id, seen.revision) {
            Ok(revision) => {
                log::info!(worker_id = worker_id; "removed the record of an old worker");
                self.workers.wrote(Entry::tombstone(worker_id, revision));
            }
            // It has come back, or another gateway was quicker; the watch tells. But a bucket with
            // a TTL, as the Python side makes it, forgets a record without a word.
            Err(bus::Error::Conflict(_)) => {
                if self.records.newest(worker_id)?.is_none() {
                    self.workers.forget(worker_id, seen.revision);
                }
            }
            Err(e) => return Err(e),
        }
        Ok(())
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
