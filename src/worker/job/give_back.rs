//! Gives a job back: another worker shall have it, and this one is not taken for dead.

use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};

use super::claim::driver;
use crate::bus::Delivered;
use crate::delivery::give_back::{End, GiveBack};
use crate::model::clock;
use crate::model::job::Job;
use crate::thread::{self, StopSignal};
use crate::worker::Context;

/// How long a job is kept alive while NATS does not take the word that it is given back. Then it is left to
/// the other workers all the same, which take this one for dead.
const DEADLINE: Duration = Duration::from_secs(600);
/// For each request while the worker ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);

/// `held`: the ACK subjects by which the snapshot may name this worker. Without any, trouble is not waited
/// out: the job comes again after `ack_wait`.
pub(in crate::worker) fn give_back(
    context: &Context,
    job: &Job,
    delivered: &Delivered,
    held: &[String],
    delay: Duration,
    hard_stop: &StopSignal,
) {
    let run_id = job.run_id.as_str();
    let give_up = Instant::now() + if held.is_empty() { Duration::ZERO } else { DEADLINE };
    let numbers = (delivered.stream_seq, delivered.num_delivered);
    loop {
        let may_be_stale = delivered.silence() >= context.stale_after();
        let is_last = thread::is_stopped(hard_stop) || Instant::now() >= give_up;
        let limits = context.limits(&delivered.subject);
        let mut step = GiveBack::new(job, held.to_vec(), numbers, delay, limits, clock::now());
        step = step.may_be_stale(may_be_stale);
        let mut driver = driver(context, job, delivered);
        let last_runs = context.runs.with_timeout(LAST_TIMEOUT);
        if is_last {
            driver.runs = &last_runs;
        }
        match driver.run(&mut step, drop) {
            Ok(End::GivenBack | End::Lost) => return,
            Ok(End::Changed) => {}
            Err(e) if step.may_be_given_back() && e.is_outcome_unknown() => {
                log::warn!(run_id = run_id, error = e.to_string();
                    "may not have given a job back; then it comes again after ack_wait");
                return;
            }
            Err(e) if is_last => {
                // A gateway gives it back when the run has been silent for long enough.
                log::warn!(run_id = run_id, error = e.to_string();
                    "cannot give a job back; it comes again after ack_wait at the latest");
                return;
            }
            Err(e) => {
                log::warn!(run_id = run_id, error = e.to_string(); "cannot give a job back yet");
                let _ = delivered.keep_alive(RETRY);
                select! {
                    recv(hard_stop) -> _ => {}
                    recv(after(RETRY)) -> _ => {}
                }
            }
        }
    }
}
