//! One job from delivery to settlement: the whole state machine of a slot.
//!
//! The order at the end is what makes a run safe, so it stands in one place ([`RunAttempt::settle`]):
//! the executor has returned → the ticker is dropped and joined, so that no late poll or ACK
//! follows → one last in-progress ACK unless there was one just now, so that storing may take its time →
//! the terminal snapshot → the ACK. Not stored means not acknowledged: the job comes again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, at, bounded, never, select};
use serde_json::Value;

use super::claim::{self, Claimed, TROUBLE_DELAY};
use super::in_flight::InFlightJob;
use super::record::{NotWritten, Recorder};
use super::tick::{Notice, Ticker};
use super::{give_back, settle};
use crate::bus::Delivered;
use crate::flow::{CancelToken, Execution, FlowEvent, FlowJob, Lease, Outcome, WorkflowDocument};
use crate::model::clock;
use crate::model::error::Code;
use crate::model::job::Job;
use crate::model::run::{RunSnapshot, RunStatus, too_many_tasks};
use crate::thread::StopSignal;
use crate::worker::Context;
use crate::worker::health::Fault;
use crate::worker::slot::Stops;

/// Events of one run that may wait between its executor and its slot; beyond that the executor waits.
const MAX_PENDING_EVENTS: usize = 256;
/// Tasks that the error of a run tells by name.
const MAX_NAMED_TASKS: usize = 5;
/// Between two tries to store a terminal snapshot.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// How long a finished run's result is held while NATS does not take it; long enough for a server
/// to be replaced, short enough that a slot is not lost for a day.
const STORE_DEADLINE: Duration = Duration::from_secs(600);

/// How a job left its slot, for the worker's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub run_id: Option<String>,
    pub status: Option<RunStatus>,
}

/// Executes a delivered job. `on_start` is told the run id whenever the run is ours.
pub(crate) fn execute(
    context: &Arc<Context>,
    delivered: Delivered,
    stops: &Stops,
    on_start: impl Fn(&str),
) -> Ended {
    let job = match Job::parse(&delivered.payload) {
        Ok(job) => job,
        Err(e) => {
            settle::terminate_invalid(context, &delivered, &e.to_string());
            return Ended { run_id: None, status: None };
        }
    };
    let run_id = job.run_id.as_str();
    let mut ended = Ended { run_id: None, status: None };
    let mut next = Some(delivered);
    while let Some(mut delivered) = next {
        let Some(in_flight) = context.in_flight.register(run_id, &delivered) else {
            log::info!(run_id = run_id;
                "the job of a run that is executed here came again; its attempt goes on with it");
            return ended;
        };
        let status = match claim::claim(context, &job, &mut delivered, &in_flight, stops) {
            Claimed::Ours(snapshot, revision) => {
                on_start(run_id);
                let recorder = Recorder::new(
                    context.runs.clone(),
                    *snapshot,
                    revision,
                    context.settings.run.heartbeat_interval,
                    context.settings.run.max_snapshot_bytes,
                );
                RunAttempt {
                    context,
                    job: &job,
                    delivered,
                    in_flight: &in_flight,
                    recorder,
                    cancel: CancelToken::new(),
                    last_contact: Instant::now(),
                    lease: Lease::new(context.settings.run.execution_lease),
                }
                .run(&stops.hard)
            }
            Claimed::Over(status) => status,
        };
        ended = Ended { run_id: Some(run_id.to_owned()), status: status.or(ended.status) };
        next = in_flight.end();
    }
    ended
}

struct RunAttempt<'a> {
    context: &'a Arc<Context>,
    job: &'a Job,
    /// The newest one; it settles the job.
    delivered: Delivered,
    in_flight: &'a InFlightJob<'a>,
    recorder: Recorder,
    cancel: CancelToken,
    /// When the last write was begun that was stored.
    last_contact: Instant,
    /// Renewed by the ticker, and by each write that is stored.
    lease: Lease,
}

enum AttemptEnd {
    Outcome(Outcome),
    /// The grace period of a cancel has passed.
    GraceExceeded,
    /// The run has executed for longer than it may.
    TimeExceeded(Duration),
    Lost(String),
    /// NATS has not answered for as long as `PYOCO_LOST_NATS` allows.
    ContactLost,
    /// The names of so many tasks fit into no message.
    TooManyTasks(usize),
    HardStop,
}

impl RunAttempt<'_> {
    fn run(mut self, hard_stop: &StopSignal) -> Option<RunStatus> {
        let (sender, events) = bounded(MAX_PENDING_EVENTS);
        let mut ticker = match self.ticker() {
            Ok(ticker) => ticker,
            Err(e) => {
                log::error!(run_id = self.job.run_id.as_str(), error = e.to_string();
                    "cannot start a ticker; giving the job back");
                self.context.health.report(Fault::Host(format!("cannot start a thread: {e}")));
                self.give_back(TROUBLE_DELAY, hard_stop);
                return None;
            }
        };
        let started = self.start(sender);
        let (end, mut execution) = match started {
            Ok(mut execution) => {
                execution.heed(&self.lease);
                let end = self.follow(&events, &mut ticker, hard_stop);
                match end {
                    AttemptEnd::Outcome(_) => {}
                    AttemptEnd::GraceExceeded | AttemptEnd::TimeExceeded(_) | AttemptEnd::TooManyTasks(_) => {
                        execution.kill(self.context.settings.run.term_grace)
                    }
                    // Somebody else executes it, or the worker has no time left.
                    AttemptEnd::Lost(_) | AttemptEnd::ContactLost | AttemptEnd::HardStop => {
                        execution.kill(Duration::ZERO);
                    }
                }
                (end, Some(execution))
            }
            Err(outcome) => (AttemptEnd::Outcome(outcome), None),
        };
        drop(ticker);
        // Whatever the executor still wants to say goes nowhere from here on.
        drop(events);
        let status = self.settle(end, hard_stop);
        drop(execution.take());
        status
    }

    fn start(&self, events: crossbeam_channel::Sender<FlowEvent>) -> Result<Box<dyn Execution>, Outcome> {
        let job = FlowJob {
            run_id: self.job.run_id.clone(),
            flow_name: self.job.flow_name.clone(),
            params: self.job.params.clone(),
            workflow: self.job.workflow_yaml.clone().map(WorkflowDocument::parse),
        };
        // A job that none accepts goes to the first all the same: it knows best what is missing.
        let executors = &self.context.executors;
        let accepting = executors.iter().find(|executor| executor.accepts(&job));
        let Some(executor) = accepting.or(executors.first()) else {
            return Err(Outcome::FlowNotFound { error: "this worker executes nothing".into() });
        };
        executor.start(job, self.cancel.clone(), events).map_err(Outcome::from)
    }

    /// Follows the execution, which has just started: events, ticks, the cancel and its deadline,
    /// the run's time limit, the worker's stop.
    fn follow(
        &mut self,
        events: &Receiver<FlowEvent>,
        ticker: &mut Ticker,
        hard_stop: &StopSignal,
    ) -> AttemptEnd {
        let mut grace: Receiver<Instant> = never();
        // Counted once: another delivery of the job goes on with this execution.
        let allowed = self.context.settings.run.timeout;
        let mut limit = allowed.map_or_else(never, after);
        let mut notices = ticker.notices.clone();
        loop {
            select! {
                recv(hard_stop) -> _ => return AttemptEnd::HardStop,
                recv(notices) -> notice => match notice {
                    Ok(Notice::CancelRequested) if !self.cancel.is_cancelled() => grace = self.begin_cancel(),
                    Ok(Notice::CancelRequested) => {}
                    // This write shows whether the run is still ours.
                    Ok(Notice::StoodStill) => {
                        if let Err(end) = self.write() {
                            return end;
                        }
                    }
                    // A ticker that has died tells nothing more; heartbeats still find a cancel.
                    Err(_) => notices = never(),
                },
                recv(grace) -> _ => return AttemptEnd::GraceExceeded,
                recv(self.contact_lost()) -> _ => return AttemptEnd::ContactLost,
                recv(limit) -> _ => {
                    limit = never();
                    // This write shows a cancel that was requested before; then its grace counts.
                    if let Err(end) = self.write() {
                        return end;
                    }
                    if !self.cancel.is_cancelled() && !self.recorder.is_cancelling() {
                        return AttemptEnd::TimeExceeded(allowed.unwrap_or_default());
                    }
                }
                recv(self.in_flight.redelivered) -> again => {
                    if let Ok(again) = again {
                        self.adopt_delivery(again);
                        match self.ticker() {
                            Ok(started) => {
                                notices = started.notices.clone();
                                *ticker = started;
                            }
                            Err(e) => log::error!(error = e.to_string(); "cannot start a ticker"),
                        }
                    }
                }
                recv(events) -> event => match event {
                    Ok(FlowEvent::Finished(outcome)) => return AttemptEnd::Outcome(outcome),
                    Ok(event) => {
                        self.recorder.apply(event);
                        // All that waits goes into one write; an end makes that write needless.
                        while let Ok(event) = events.try_recv() {
                            match event {
                                FlowEvent::Finished(outcome) => return AttemptEnd::Outcome(outcome),
                                event => self.recorder.apply(event),
                            }
                        }
                        if self.recorder.next_write() <= Instant::now()
                            && let Err(end) = self.write()
                        {
                            return end;
                        }
                    }
                    Err(_) => return AttemptEnd::Outcome(Outcome::Failed {
                        error: "the executor ended without a result".into(),
                    }),
                },
                recv(at(self.recorder.next_write())) -> _ => {
                    if let Err(end) = self.write() {
                        return end;
                    }
                }
            }
            if self.recorder.is_cancelling() && !self.cancel.is_cancelled() {
                grace = self.begin_cancel();
            }
        }
    }

    /// Tells when the run has to end because NATS does not answer: another worker may get it then.
    fn contact_lost(&self) -> Receiver<Instant> {
        let patience = self.context.settings.run.stop_without_nats;
        patience.map_or_else(never, |patience| at(self.last_contact + patience))
    }

    fn ticker(&self) -> std::io::Result<Ticker> {
        Ticker::start(
            self.delivered.clone(),
            self.context.runs.clone(),
            self.job.run_id.clone(),
            self.context.progress_interval(),
            self.lease.clone(),
        )
    }

    fn adopt_delivery(&mut self, again: Delivered) {
        self.recorder.adopt(claim::delivery(self.context, &again));
        self.delivered = again;
    }

    fn begin_cancel(&self) -> Receiver<Instant> {
        log::info!(run_id = self.job.run_id.as_str(); "cancel requested");
        self.cancel.cancel();
        after(self.context.settings.run.cancel_grace_period)
    }

    /// Writes the snapshot; trouble is waited out, since the run itself goes on.
    fn write(&mut self) -> Result<(), AttemptEnd> {
        // What others hear of the run is older than the answer.
        let (begun, begun_at) = (Instant::now(), clock::since_boot());
        match self.recorder.write() {
            Ok(()) => {
                self.last_contact = begun;
                self.lease.extend(begun_at);
                Ok(())
            }
            Err(NotWritten::Lost(why)) => Err(AttemptEnd::Lost(why)),
            Err(NotWritten::TooManyTasks(tasks)) => Err(AttemptEnd::TooManyTasks(tasks)),
            Err(NotWritten::Trouble(e)) => {
                // An answer is no contact: others hear of the run by what is stored alone.
                self.context.health.note_refusal(&e);
                log::warn!(run_id = self.job.run_id.as_str(), error = e.to_string();
                    "cannot write the snapshot of a running run; trying again");
                Ok(())
            }
        }
    }

    fn give_back(&self, delay: Duration, hard_stop: &StopSignal) {
        self.give_back_held(self.recorder.acks(), delay, hard_stop);
    }

    /// Without `held` it counts as the death of this worker.
    fn give_back_held(&self, held: &[String], delay: Duration, hard_stop: &StopSignal) {
        give_back::give_back(self.context, self.job, &self.delivered, held, delay, hard_stop);
    }

    /// Settles the job; see the order at the top of this file. The ticker is gone by now.
    fn settle(mut self, end: AttemptEnd, hard_stop: &StopSignal) -> Option<RunStatus> {
        let run_id = self.job.run_id.clone();
        // At its time limit a run was looked at for a cancel; the token was cancelled by the kill.
        let cancelled = !matches!(end, AttemptEnd::TimeExceeded(_) | AttemptEnd::TooManyTasks(_))
            && (self.cancel.is_cancelled() || self.recorder.is_cancelling());
        let outcome = match end {
            AttemptEnd::Outcome(Outcome::HostFault { error, has_begun })
                if !cancelled && (!has_begun || self.context.health.gives_back(&run_id)) =>
            {
                log::warn!(run_id = run_id.as_str(), reason = error.as_str();
                    "a fault of this machine, not of the flow; giving the job back");
                self.context.health.report(Fault::Host(error));
                self.give_back(TROUBLE_DELAY, hard_stop);
                return None;
            }
            AttemptEnd::Outcome(Outcome::Interrupted { error }) => {
                log::warn!(run_id = run_id.as_str(), reason = error.as_str();
                    "the run was interrupted; giving its job back");
                while let Ok(again) = self.in_flight.redelivered.try_recv() {
                    self.adopt_delivery(again);
                }
                // A flow that makes its machine stand still does so again: in the end that costs attempts.
                let is_free = self.context.health.gives_back(&run_id);
                let held = if is_free { self.recorder.acks() } else { &[] };
                // After a long pause the run may be another worker's; then there is nothing to give back.
                self.give_back_held(held, Duration::ZERO, hard_stop);
                return None;
            }
            AttemptEnd::Outcome(outcome) => outcome,
            AttemptEnd::GraceExceeded => {
                let code = Code::CancelGraceExceeded;
                log::warn!(err_id = code.err_id(), msg_id = code.msg_id(), run_id = run_id.as_str();
                    "the run did not end within its cancel grace period; it was ended by force");
                Outcome::Cancelled
            }
            AttemptEnd::TimeExceeded(allowed) => {
                log::info!(run_id = run_id.as_str(), seconds = allowed.as_secs_f64();
                    "the run has reached its time limit; it was ended by force");
                let seconds = allowed.as_secs_f64();
                let at_work = at_work(self.recorder.snapshot());
                let error = format!("run timeout of {seconds} s exceeded (--run-timeout-sec){at_work}");
                Outcome::Failed { error }
            }
            AttemptEnd::TooManyTasks(tasks) => {
                let error = too_many_tasks(tasks);
                log::warn!(run_id = run_id.as_str(), reason = error.as_str();
                    "the run cannot be recorded; it was ended by force");
                Outcome::Failed { error }
            }
            AttemptEnd::ContactLost => {
                log::warn!(run_id = run_id.as_str();
                    "NATS has not answered for as long as PYOCO_LOST_NATS allows; the run was ended by force");
                // When NATS is back another worker may have it; then there is nothing to give back.
                self.give_back(TROUBLE_DELAY, hard_stop);
                return None;
            }
            AttemptEnd::Lost(why) => {
                log::warn!(run_id = run_id.as_str(), reason = why.as_str();
                    "this worker has lost the run and leaves it");
                return None;
            }
            AttemptEnd::HardStop => {
                log::warn!(run_id = run_id.as_str();
                    "the drain time is over; ending the run and giving its job back");
                self.give_back(Duration::ZERO, hard_stop);
                return None;
            }
        };
        let publish_errors = self.context.settings.run.dlq_execution_errors;
        let ending = settle::decide(outcome, cancelled, publish_errors);
        if !self.store_terminal_snapshot(ending.status, ending.error.as_deref(), hard_stop) {
            return None;
        }
        if let Some(reason) = ending.dlq {
            let error = ending.error.as_deref().unwrap_or_default();
            let message = (self.delivered.subject.as_str(), self.delivered.num_delivered);
            settle::publish_dlq(self.context, self.job, message, reason, error);
        }
        acknowledge(&self.delivered, &run_id);
        let took = self.recorder.snapshot();
        log::info!(run_id = run_id.as_str(), flow_name = took.flow_name.as_str(),
            tag = took.tag.as_str(), status = ending.status.as_str(),
            seconds = took.end_time.unwrap_or(0.0) - took.start_time.unwrap_or(0.0);
            "run ended");
        Some(ending.status)
    }

    /// Stores the terminal snapshot, for as long as it takes NATS to come back.
    fn store_terminal_snapshot(
        &mut self,
        status: RunStatus,
        error: Option<&str>,
        hard_stop: &StopSignal,
    ) -> bool {
        let run_id = self.job.run_id.clone();
        let deadline = Instant::now() + STORE_DEADLINE;
        loop {
            while let Ok(again) = self.in_flight.redelivered.try_recv() {
                self.adopt_delivery(again);
            }
            // Storing may take long, and the job would come again meanwhile. Should it do so, the other
            // worker's claim makes our write a lost one.
            self.delivered.refresh(self.context.fresh(), STORE_RETRY);
            let problem = match self.recorder.finish(status, error.map(str::to_owned)) {
                Ok(()) => return true,
                Err(NotWritten::Lost(why)) => {
                    log::warn!(run_id = run_id.as_str(), reason = why.as_str();
                        "the run ended here, but it is not ours any more");
                    return false;
                }
                Err(NotWritten::Trouble(e)) => {
                    self.context.health.note_refusal(&e);
                    e.to_string()
                }
                Err(NotWritten::TooManyTasks(tasks)) => too_many_tasks(tasks),
            };
            let stopping = select! {
                recv(hard_stop) -> _ => true,
                recv(after(STORE_RETRY)) -> _ => false,
            };
            if stopping || Instant::now() >= deadline {
                let code = Code::TerminalNotStored;
                log::error!(err_id = code.err_id(), msg_id = code.msg_id(),
                    run_id = run_id.as_str(), error = problem;
                    "cannot store how the run ended; giving its job back");
                // A worker that ends is not dead. But a run whose end can be stored nowhere has to cost
                // attempts, or it would be executed for ever.
                let held = if stopping { self.recorder.acks() } else { &[] };
                self.give_back_held(held, TROUBLE_DELAY, hard_stop);
                return false;
            }
        }
    }
}

/// What a run that is ended by force was executing, for its error.
fn at_work(run: &RunSnapshot) -> String {
    let is_running = |(_, state): &(&String, &Value)| *state == "RUNNING";
    let names: Vec<_> = run.tasks.iter().filter(is_running).map(|(name, _)| format!("`{name}`")).collect();
    match names.len() {
        0 => String::new(),
        count if count > MAX_NAMED_TASKS => format!("; it was executing {count} tasks"),
        _ => format!("; it was executing {}", names.join(", ")),
    }
}

fn acknowledge(delivered: &Delivered, run_id: &str) {
    // Without it the job comes once more, finds its terminal snapshot and is acknowledged then.
    if let Err(e) = delivered.ack() {
        log::warn!(run_id = run_id, error = e.to_string(); "cannot acknowledge a job; it comes again");
    }
}
