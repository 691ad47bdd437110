//! A slot: one thread that executes one job at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::Context;
use super::job::execute::{self, Ended};
use super::job::give_back;
use super::registry::RunNotes;
use crate::bus::Delivered;
use crate::model::clock;
use crate::model::job::Job;
use crate::thread::{self, JoinOnDrop, StopSignal};

/// A job that broke our own code is tried again, but not at once.
const PANIC_DELAY: Duration = Duration::from_secs(2);

/// When the worker stops.
#[derive(Clone)]
pub(super) struct Stops {
    /// No run begins any more: a job that only waits for its claim is given back.
    pub soft: StopSignal,
    /// The drain time is over: what is executed is ended by force and given back.
    pub hard: StopSignal,
}

/// Starts a slot. It takes jobs until the channel closes and says `done` after each.
pub(super) fn start(
    index: usize,
    context: Arc<Context>,
    jobs: Receiver<Delivered>,
    done: Sender<()>,
    notes: RunNotes,
    stops: Stops,
) -> std::io::Result<JoinOnDrop> {
    thread::spawn(format!("slot-{index}"), move || {
        for job in jobs {
            execute_guarded(&context, job, &notes, &stops);
            if done.send(()).is_err() {
                return;
            }
        }
    })
}

fn execute_guarded(context: &Arc<Context>, job: Delivered, notes: &RunNotes, stops: &Stops) {
    let started_at = clock::now();
    let guarded =
        AssertUnwindSafe(|| execute::execute(context, job.clone(), stops, |run_id| notes.started(run_id)));
    match catch_unwind(guarded) {
        Ok(Ended { run_id: Some(run_id), status }) => {
            notes.finished(&run_id, status, started_at);
        }
        Ok(_) => {}
        Err(_) => {
            log::error!(subject = job.subject.as_str();
                "the worker's own code has panicked over a job; giving it back");
            notes.forget_panicked(&job.payload);
            let (hard_stop, delay) = (&stops.hard, PANIC_DELAY);
            // It costs an attempt: this worker is not named as one that has given it back. Should that panic
            // too, the job comes after ack_wait.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                if let Ok(parsed) = Job::parse(&job.payload) {
                    give_back::give_back(context, &parsed, &job, &[], delay, hard_stop);
                }
            }));
        }
    }
}
