//! Whether this worker can work: faults that are not a flow's, and the checks that end them.
//!
//! While a fault stands, the puller asks for no jobs and gives back those that still come, so a broken
//! machine cannot fail runs faster than a healthy one completes them. The thread `health` checks with growing
//! pauses whether the fault is still there. A pause goes on to grow when a fault comes back soon after a
//! check that had passed, so that a check that misses the cause uses up few deliveries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use parking_lot::Mutex;

use super::Context;
use crate::bus;
use crate::model::clock;
use crate::model::run::truncated;
use crate::thread::{self, Service, StopSignal};

/// From a fault to the first check whether it is still there.
const FIRST_CHECK_PAUSE: Duration = Duration::from_secs(1);
/// Longest time between two checks of a worker that cannot work.
const MAX_CHECK_PAUSE: Duration = Duration::from_secs(30);
/// The same when only NATS is at fault: a write is a cheap check, and its outages are short.
const MAX_NATS_CHECK_PAUSE: Duration = Duration::from_secs(5);
/// A fault that comes within this time after a passed check goes on with the pauses of the last one.
const RELAPSE_TIME: Duration = Duration::from_secs(60);
/// For the write that shows whether NATS takes writes again.
const WRITE_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest reason that a worker's record has.
const MAX_REASON_BYTES: usize = 1024;
/// How often a worker gives one run back for a fault of the host that showed after code of its flow had been
/// executed. Then the run fails with that fault: a flow that breaks its host does so on every worker.
const MAX_BROKEN_ATTEMPTS: u32 = 3;
/// Runs whose broken attempts are counted; beyond it the counts begin anew. So many that it takes days: the
/// pauses between the checks bound how fast a worker meets faults.
const MAX_COUNTED_RUNS: usize = 65_536;

/// What a check has found: nothing, or what does not work.
type Checked = Result<(), String>;

/// Something that keeps every run from being executed here, whatever its flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Something of this machine does not work.
    Host(String),
    /// Snapshots of runs cannot be written.
    Nats(String),
}

/// Why the worker takes no jobs, as its record has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unavailable {
    pub reason: String,
    /// Unix seconds.
    pub since: f64,
}

/// What the threads of a worker know of its faults; shared by all of them.
pub(crate) struct Health {
    state: Mutex<State>,
    /// Read by the thread `health`; there is room for one word.
    fault: (Sender<()>, Receiver<()>),
    /// Read by the puller; there is room for one word.
    recovery: (Sender<()>, Receiver<()>),
}

#[derive(Debug, Default)]
struct State {
    host: Option<String>,
    nats: Option<String>,
    /// What the worker waits for before its first job.
    not_ready: Option<String>,
    since: f64,
    /// The last pause before a check.
    pause: Duration,
    recovered_at: Option<Instant>,
    broken_attempts: HashMap<String, u32>,
}

impl Default for Health {
    fn default() -> Self {
        Health { state: Mutex::default(), fault: bounded(1), recovery: bounded(1) }
    }
}

impl Health {
    /// Tells of a fault. From now on no jobs are taken, until a check has found it mended.
    pub(crate) fn report(&self, fault: Fault) {
        let mut state = self.state.lock();
        let was_well = state.is_well();
        let (place, reason) = match fault {
            Fault::Host(reason) => (&mut state.host, reason),
            Fault::Nats(reason) => (&mut state.nats, reason),
        };
        if place.is_some() {
            return;
        }
        let reason = truncated(reason, MAX_REASON_BYTES);
        log::error!(reason = reason.as_str();
            "this worker cannot execute runs; it gives its jobs back and takes none until a check passes");
        *place = Some(reason);
        if was_well {
            state.begin_pauses();
            state.since = clock::now();
        }
        // A word that waits says the same.
        let _ = self.fault.0.try_send(());
    }

    /// A snapshot could not be written. Without a connection no jobs come anyway, and the connection says so;
    /// other writers that were quicker are no fault.
    pub(crate) fn note_refusal(&self, error: &bus::Error) {
        if !matches!(error, bus::Error::Disconnected | bus::Error::Conflict(_)) {
            self.report(Fault::Nats(format!("cannot write snapshots of runs: {error}")));
        }
    }

    /// Whether jobs may be taken.
    pub(crate) fn is_well(&self) -> bool {
        self.state.lock().is_well()
    }

    /// Why no jobs are taken, when that is so.
    pub(crate) fn unavailable(&self) -> Option<Unavailable> {
        let state = self.state.lock();
        let reason = state.host.as_ref().or(state.nats.as_ref()).or(state.not_ready.as_ref())?;
        Some(Unavailable { reason: reason.clone(), since: state.since })
    }

    /// Says what the worker waits for before its first job, or that this has come.
    pub(crate) fn set_not_ready(&self, reason: Option<String>) {
        let mut state = self.state.lock();
        if reason.is_some() && state.is_well() && state.not_ready.is_none() {
            state.since = clock::now();
        }
        state.not_ready = reason.map(|reason| truncated(reason, MAX_REASON_BYTES));
    }

    /// Readable when a check has passed.
    pub(crate) fn recovered(&self) -> &Receiver<()> {
        &self.recovery.1
    }

    /// Whether a run that has met a fault of the host, or was interrupted, goes back to the queue as if
    /// nothing had been. Its flow has begun and may itself be the cause, so it does so only
    /// [`MAX_BROKEN_ATTEMPTS`] times.
    pub(crate) fn gives_back(&self, run_id: &str) -> bool {
        let mut state = self.state.lock();
        if state.broken_attempts.len() >= MAX_COUNTED_RUNS {
            state.broken_attempts.clear();
        }
        let count = state.broken_attempts.entry(run_id.to_owned()).or_default();
        *count += 1;
        *count <= MAX_BROKEN_ATTEMPTS
    }

    fn next_pause(&self) -> Duration {
        let mut state = self.state.lock();
        let longest = if state.host.is_some() { MAX_CHECK_PAUSE } else { MAX_NATS_CHECK_PAUSE };
        let pause = state.pause.min(longest);
        state.pause = (pause * 2).min(longest);
        pause
    }

    /// Which of the faults stand: the host's, that of NATS.
    fn standing(&self) -> (bool, bool) {
        let state = self.state.lock();
        (state.host.is_some(), state.nats.is_some())
    }

    /// Takes over what a check has found, each where it was looked for.
    fn take_check(&self, host: Option<Checked>, nats: Option<Checked>) {
        let mut state = self.state.lock();
        let still = |result: Checked| result.err().map(|why| truncated(why, MAX_REASON_BYTES));
        if let Some(result) = host {
            state.host = still(result);
        }
        if let Some(result) = nats {
            state.nats = still(result);
        }
        if state.is_well() {
            state.recovered_at = Some(Instant::now());
            let seconds = clock::now() - state.since;
            log::info!(seconds = seconds; "the check has passed; this worker takes jobs again");
            let _ = self.recovery.0.try_send(());
        } else if let Some(reason) = state.host.as_ref().or(state.nats.as_ref()) {
            log::debug!(reason = reason.as_str(), next_check_sec = state.pause.as_secs_f64();
                "this worker still cannot execute runs");
        }
    }
}

impl State {
    fn is_well(&self) -> bool {
        self.host.is_none() && self.nats.is_none()
    }

    fn begin_pauses(&mut self) {
        let is_relapse = self.recovered_at.is_some_and(|at| at.elapsed() < RELAPSE_TIME);
        if !is_relapse {
            self.pause = FIRST_CHECK_PAUSE;
        }
    }
}

/// Starts the thread that checks. It is there from the start of the worker: one that has run out of threads
/// could not start it.
pub(super) fn start(context: &Arc<Context>) -> std::io::Result<Service> {
    let context = Arc::clone(context);
    Service::start("health", move |stop| {
        loop {
            select! {
                recv(stop) -> _ => return,
                recv(context.health.fault.1) -> _ => {}
            }
            while !context.health.is_well() {
                select! {
                    recv(stop) -> _ => return,
                    recv(after(context.health.next_pause())) -> _ => {}
                }
                let (host, nats) = context.health.standing();
                let host = host.then(|| check_host(&context, stop));
                let nats = nats.then(|| check_nats(&context));
                if thread::is_stopped(stop) {
                    return;
                }
                context.health.take_check(host, nats);
            }
        }
    })
}

fn check_host(context: &Context, stop: &StopSignal) -> Checked {
    // Joined by its drop.
    thread::spawn("check", || ()).map_err(|e| format!("cannot start a thread: {e}"))?;
    context.executors.iter().try_for_each(|executor| executor.check(stop))
}

fn check_nats(context: &Context) -> Checked {
    let runs = context.runs.with_timeout(WRITE_CHECK_TIMEOUT);
    runs.test_write().map_err(|e| format!("cannot write snapshots of runs: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(health: &Health) {
        health.take_check(Some(Ok(())), None);
    }

    #[test]
    fn a_write_is_tried_more_often_than_the_machine() {
        let health = Health::default();
        health.report(Fault::Nats("no room".into()));
        let pauses: Vec<u64> = (0..5).map(|_| health.next_pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn pauses_grow_and_go_on_growing_when_the_fault_comes_back() {
        let health = Health::default();
        health.report(Fault::Host("no threads".into()));
        assert!(!health.is_well());
        let pauses: Vec<u64> = (0..3).map(|_| health.next_pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4]);
        passed(&health);
        assert!(health.is_well() && health.recovered().try_recv().is_ok());
        health.report(Fault::Host("again".into()));
        let pauses: Vec<u64> = (0..4).map(|_| health.next_pause().as_secs()).collect();
        assert_eq!(pauses, [8, 16, 30, 30]);
        passed(&health);
        health.state.lock().recovered_at = Instant::now().checked_sub(RELAPSE_TIME);
        health.report(Fault::Nats("much later".into()));
        assert_eq!(health.next_pause(), FIRST_CHECK_PAUSE);
    }

    #[test]
    fn a_worker_is_well_when_none_of_its_faults_stands() {
        let health = Health::default();
        health.report(Fault::Nats("store full".into()));
        health.report(Fault::Host("no threads".into()));
        health.report(Fault::Host("told later".into()));
        assert_eq!(health.unavailable().unwrap().reason, "no threads");
        assert_eq!(health.standing(), (true, true));
        passed(&health);
        assert_eq!(health.unavailable().unwrap().reason, "store full");
        health.take_check(None, Some(Err("still full".into())));
        assert_eq!(health.unavailable().unwrap().reason, "still full");
        health.take_check(None, Some(Ok(())));
        assert_eq!(health.unavailable(), None);
        health.set_not_ready(Some("no wheels".into()));
        assert!(health.is_well() && health.unavailable().is_some());
    }

    #[test]
    fn a_run_that_breaks_its_host_again_and_again_fails() {
        let health = Health::default();
        let begun: Vec<bool> = (0..4).map(|_| health.gives_back("r")).collect();
        assert_eq!(begun, [true, true, true, false]);
        // Others in between, as many as a day may bring, do not make it forget.
        assert!((0..20_000).all(|other| health.gives_back(&format!("r{other}"))));
        assert!(!health.gives_back("r"));
    }
}
