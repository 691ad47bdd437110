//! Takes back submits that may have got half way, so that a 503 leaves no run behind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, after, bounded, never, select};

use crate::bus::{self, Edit, Entry, Kv};
use crate::gateway::view::runs::RunIndex;
use crate::model::error::Code;
use crate::model::json;
use crate::model::run::{RunSnapshot, RunStatus};
use crate::thread::{self, JoinOnDrop, StopSignal, StopSource};

/// Submits in doubt that are remembered; each is one request that has failed.
const MAX_DOUBTFUL: usize = 10_000;
/// For undoing within the request that failed.
const NOW_TIMEOUT: Duration = Duration::from_secs(1);
/// For one try in the background.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries in the background.
const RETRY: Duration = Duration::from_millis(500);

/// A submit that was answered with an error.
#[derive(Debug, Clone)]
pub struct Doubtful {
    pub run_id: String,
    /// Which submit of that run: another one may have come since under the same idempotency key.
    pub submitted_at: f64,
}

/// The undoer; its thread tries until NATS takes it.
///
/// Field order is the shutdown order.
pub struct Undo {
    runs: Kv,
    index: RunIndex,
    /// Written by handlers, read by the undo thread.
    queue: Sender<Doubtful>,
    _stop: StopSource,
    _thread: JoinOnDrop,
}

impl Undo {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(runs: Kv, index: RunIndex) -> std::io::Result<Undo> {
        let (queue, doubtful) = bounded(MAX_DOUBTFUL);
        let (stop, stopped) = thread::stop_channel();
        let (kv, listed) = (runs.clone(), index.clone());
        let thread = thread::spawn("undo", move || run(&kv, &listed, &doubtful, &stopped))?;
        Ok(Undo { runs, index, queue, _stop: stop, _thread: thread })
    }

    /// Tries at once, and in the background if that fails.
    pub fn now_or_later(&self, submit: Doubtful) {
        if undo(&self.runs, &self.index, &submit, NOW_TIMEOUT).is_err() {
            self.later(submit);
        }
    }

    /// Tries in the background.
    pub fn later(&self, submit: Doubtful) {
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) =
            self.queue.try_send(submit)
        {
            tell_orphan(&lost);
        }
    }
}

fn run(runs: &Kv, index: &RunIndex, queue: &Receiver<Doubtful>, stop: &StopSignal) {
    let mut waiting: VecDeque<Doubtful> = VecDeque::new();
    loop {
        let retry = if waiting.is_empty() { never() } else { after(RETRY) };
        select! {
            recv(stop) -> _ => break,
            recv(queue) -> submit => match submit {
                Ok(submit) if waiting.len() < MAX_DOUBTFUL => waiting.push_back(submit),
                Ok(submit) => tell_orphan(&submit),
                Err(_) => break,
            },
            recv(retry) -> _ => {
                while let Some(submit) = waiting.front() {
                    if undo(runs, index, submit, TIMEOUT).is_err() || thread::is_stopped(stop) {
                        break;
                    }
                    waiting.pop_front();
                }
            }
        }
    }
    waiting.iter().chain(queue.try_iter().collect::<Vec<_>>().iter()).for_each(tell_orphan);
}

/// Deletes the snapshot if it still is what the submit wrote. A worker that gets the job finds the
/// tombstone and leaves it; a run that a worker has begun is left to go on.
fn undo(runs: &Kv, index: &RunIndex, submit: &Doubtful, timeout: Duration) -> bus::Result<()> {
    let edited = runs.edit(&submit.run_id, Instant::now() + timeout, |newest| {
        let Some(value) = newest.and_then(Entry::live_value) else {
            // The write may still be on its way, in the socket of a server that was frozen. It expects
            // the key as it is now, so a tombstone in its place makes it fail.
            return Ok::<_, bus::Error>(Edit::Delete(false));
        };
        let is_untouched = json::from_wire::<RunSnapshot>(value).is_ok_and(|snapshot| {
            snapshot.status == RunStatus::Pending
                && snapshot.submitted_at == Some(submit.submitted_at)
        });
        Ok(if is_untouched { Edit::Delete(true) } else { Edit::Leave(false) })
    })?;
    if let (true, Some(tombstone)) = (edited.result, edited.written) {
        log::info!(run_id = submit.run_id.as_str(); "took back a submit that had failed");
        index.deleted(&submit.run_id, tombstone.revision);
    }
    Ok(())
}

fn tell_orphan(submit: &Doubtful) {
    let code = Code::OrphanRun;
    log::error!(err_id = code.err_id(), msg_id = code.msg_id(), run_id = submit.run_id.as_str();
        "a submit that had failed could not be taken back; its run may stay PENDING");
}
