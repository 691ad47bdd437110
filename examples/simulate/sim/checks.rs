//! What must hold in every history.

use std::collections::HashMap;

use pyoco_server::model::run::RunSnapshot;

use super::jetstream::Millis;
use super::net::{RUNS, Writer};

/// How many workers have to die during a run before it may fail of it.
pub const MAX_LOST: i64 = 3;

/// How long two workers may execute a run when each ends its runs without NATS: one may have been frozen
/// between its claim and the start, and finds out with its first heartbeats.
const MAX_OVERLAP: Millis = 2_500;

#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// The first thing that went wrong.
    pub violation: Option<String>,
    /// How often each run was disturbed while a worker had it: a death, a freeze, a cut.
    pub disturbed: [u64; RUNS],
    /// Runs that were ended because their job was nowhere.
    pub lost: [bool; RUNS],
    /// Which worker process has written each attempt of each run.
    writers: HashMap<(usize, u64), String>,
    /// No run may be executed by two workers at a time: each ends its runs when NATS is silent.
    pub never_two: bool,
    /// Since when each run is executed by two.
    overlap_from: [Option<Millis>; RUNS],
    /// Which workers execute each run at the moment.
    executing: [Vec<usize>; RUNS],
}

impl Checks {
    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// A snapshot, or a tombstone, was stored over another one.
    pub fn written(
        &mut self,
        run: usize,
        before: Option<&RunSnapshot>,
        after: Option<&RunSnapshot>,
        by: Writer<'_>,
    ) {
        if let Some(before) = before.filter(|before| before.status.is_terminal()) {
            self.fail(|| format!("r{run} was {} and was written again", before.status.as_str()));
        }
        if let Writer::Owner(acks) = by {
            let held = before.and_then(|before| before.delivery.as_ref());
            if held.is_none_or(|held| !acks.contains(&held.ack)) {
                self.fail(|| format!("a worker wrote r{run}, which it had lost"));
            }
        }
        if let Writer::Foreign = by {
            // It keeps no count of attempts.
            self.writers.retain(|(of, _), _| *of != run);
        }
        let Some(after) = after else { return };
        if let (Some(delivery), Some(attempt)) = (&after.delivery, after.attempt)
            && !delivery.released
        {
            let writer = self.writers.entry((run, attempt)).or_insert_with(|| delivery.instance_id.clone());
            if *writer != delivery.instance_id {
                let (first, second) = (writer.clone(), delivery.instance_id.clone());
                self.fail(|| format!("{first} and {second} have both written attempt {attempt} of r{run}"));
            }
        }
        let error = after.error.as_deref().unwrap_or_default();
        // What a worker of the Python side has done with the deliveries of a message is not known.
        let is_foreign = before.is_some_and(|before| before.delivery.is_none() && before.job_seq.is_none());
        let needed = if is_foreign { 1 } else { MAX_LOST as u64 };
        if error.starts_with("max_deliver_exceeded") && self.disturbed[run] < needed {
            let disturbed = self.disturbed[run];
            self.fail(|| format!("r{run} has failed: {error}; its workers were disturbed {disturbed} times"));
        }
    }

    pub fn begins(&mut self, run: usize, worker: usize) {
        self.executing[run].push(worker);
    }

    pub fn ends(&mut self, run: usize, worker: usize) {
        self.executing[run].retain(|other| *other != worker);
    }

    /// Looks for runs that two workers execute, at a moment of virtual time.
    pub fn look(&mut self, now: Millis) {
        if !self.never_two {
            return;
        }
        for run in 0..RUNS {
            if self.executing[run].len() < 2 {
                self.overlap_from[run] = None;
            } else if now > *self.overlap_from[run].get_or_insert(now) + MAX_OVERLAP {
                let workers = self.executing[run].clone();
                self.fail(|| {
                    format!("the workers {workers:?} have executed r{run} side by side for too long")
                });
            }
        }
    }
}
