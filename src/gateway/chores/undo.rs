//! Takes back submits that may have got half way, so that a 503 leaves no run behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Kv};
use crate::delivery::{self, Newest, drive};
use crate::gateway::view::runs::RunIndex;
use crate::model::error::Code;

/// Submits in doubt that are remembered; each is one request that has failed.
const MAX_DOUBTFUL: usize = 10_000;
/// For undoing within the request that failed.
const NOW_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two tries in the background. A client that repeats its request within it, under the same
/// idempotency key, keeps its run.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// A submit that was answered with an error, and may have been stored.
#[derive(Debug, Clone)]
pub struct Doubtful {
    pub run_id: String,
    /// Which submit of that run: another one may have come since under the same idempotency key.
    pub submitted_at: f64,
}

#[derive(Clone)]
pub struct Undo {
    runs: Kv,
    index: RunIndex,
    waiting: Arc<Waiting>,
}

/// Submits that could not be undone yet, the oldest first.
#[derive(Default)]
struct Waiting(Mutex<VecDeque<Doubtful>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().iter().for_each(tell_orphan);
    }
}

impl Undo {
    pub fn new(runs: Kv, index: RunIndex) -> Undo {
        Undo { runs, index, waiting: Arc::default() }
    }

    pub fn now_or_later(&self, submit: Doubtful) {
        if undo(&self.runs, &self.index, &submit, Instant::now() + NOW_TIMEOUT).is_err() {
            self.later(submit);
        }
    }

    pub fn later(&self, submit: Doubtful) {
        let mut waiting = self.waiting.0.lock();
        if waiting.len() >= MAX_DOUBTFUL {
            return tell_orphan(&submit);
        }
        waiting.push_back(submit);
    }

    pub(super) fn run(&self, turn: &Turn<'_>) -> Next {
        loop {
            let Some(submit) = self.waiting.0.lock().front().cloned() else { return Next::InTime };
            if turn.is_over() {
                return Next::Again;
            }
            let deadline = self.runs.deadline().min(Instant::now() + TIMEOUT);
            if undo(&self.runs, &self.index, &submit, deadline).is_err() {
                return Next::InTime;
            }
            self.waiting.0.lock().pop_front();
        }
    }
}

/// Deletes the snapshot if it still is what the submit wrote; a run that a worker has begun goes on.
fn undo(runs: &Kv, index: &RunIndex, submit: &Doubtful, deadline: Instant) -> bus::Result<()> {
    let decide = |newest: &Newest<'_>| delivery::undo::undo(newest, submit.submitted_at);
    if let Some(tombstone) = drive::edit_run(runs, &submit.run_id, deadline, decide)? {
        log::info!(run_id = submit.run_id.as_str(); "took back a submit that had failed");
        index.wrote(tombstone);
    }
    Ok(())
}

fn tell_orphan(submit: &Doubtful) {
    let code = Code::OrphanRun;
    log::error!(err_id = code.err_id(), msg_id = code.msg_id(), run_id = submit.run_id.as_str();
        "a submit that had failed could not be taken back; its run may stay PENDING");
}
