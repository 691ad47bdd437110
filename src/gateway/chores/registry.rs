//! Removes the records of workers that are long gone.
//!
//! By compare-and-set, so that a worker which comes back in that moment keeps its record, and of several
//! gateways one acts. A record is as old as it is in NATS: the clock of the worker plays no part.

use std::time::{Duration, Instant};

use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Bus, Entry, Kv};
use crate::gateway::view::workers::{Seen, WorkerMirror};

/// Between two looks for workers that have fallen silent: they write nothing, so the time tells.
pub(super) const SILENCE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks for old records, unless the retention is shorter than four of these.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Sweep {
    records: Kv,
    workers: WorkerMirror,
    retention: Duration,
}

impl Sweep {
    pub(super) fn new(bus: &Bus, workers: WorkerMirror, retention: Duration) -> Sweep {
        let records = bus.workers().with_timeout(TIMEOUT);
        Sweep { records, workers, retention }
    }

    pub(super) fn interval(&self) -> Duration {
        SWEEP_INTERVAL.min(self.retention / 4).max(SILENCE_INTERVAL)
    }

    pub(super) fn run(&self, turn: &Turn<'_>) -> Next {
        // What was not heard of while we could not listen may be there.
        if !self.workers.is_live() {
            return Next::InTime;
        }
        let now = Instant::now();
        let is_old = |seen: &Seen| is_old(seen, now, self.retention);
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

fn is_old(seen: &Seen, now: Instant, retention: Duration) -> bool {
    now.saturating_duration_since(seen.heard) > retention
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock;

    #[test]
    fn a_record_is_as_old_as_its_arrival_whatever_the_clock_of_its_worker_says() {
        const WEEK: Duration = Duration::from_secs(604_800);
        let mirror = WorkerMirror::default();
        // A week behind, a year ahead, and none at all.
        for (n, seen_at) in [clock::now() - 700_000.0, clock::now() + 3e7, f64::NAN].into_iter().enumerate() {
            let time = if seen_at.is_nan() { String::new() } else { format!(",\"last_seen_at\":{seen_at}") };
            let worker = format!("w{n}");
            mirror.wrote(Entry::put(&worker, format!("{{\"worker_id\":\"{worker}\"{time}}}").into(), 1));
            let seen = mirror.get(&worker).unwrap();
            assert!(!is_old(&seen, seen.heard + WEEK, WEEK), "{worker}");
            assert!(is_old(&seen, seen.heard + WEEK + Duration::from_secs(1), WEEK), "{worker}");
        }
    }
}
