//! Pulls jobs, executes them, keeps their snapshots current, and settles them.
//!
//! ```text
//! puller ──job──▶ slot ──events── executor
//!                  │  ▲
//!     recorder ◀───┘  └── ticker: in-progress ACKs, cancel polling
//! ```
//! One puller, N slots, one ticker per job, one registry thread, one sweeper, one thread that checks whether
//! the worker can work. Invariants: a fault of this machine or of NATS fails no run; a terminal snapshot
//! is stored before its job is acknowledged; every write of a run's snapshot is a compare-and-set, so a
//! worker that has lost a run finds out and stops; a job is executed, given back or acknowledged, never
//! dropped. This floor does not know what a flow is made of, and nothing of HTTP.

mod error;
mod headroom;
mod health;
mod job;
mod pull;
mod registry;
mod slot;
mod sweep;
mod wheel_sync;
#[doc(hidden)]
pub mod wheels;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub use error::Error;
use parking_lot::RwLock;
pub use registry::hostname;
pub use wheel_sync::WheelSyncSettings;
use wheel_sync::{SyncThread, Waited};

use crate::bus::{Bus, Kv, WorkQueue};
use crate::config::{RegistryConfig, RunConfig};
use crate::delivery::Limits;
use crate::flow::Executor;
use crate::systemd::{self, Loop};
use crate::thread::{Service, StopSignal};

/// How long a worker waits for its first connection before it goes on without one.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// What distinguishes one worker from another.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Key of its record; unique among live workers.
    pub worker_id: String,
    /// Routing tags, most important first; served in turn.
    pub tags: Vec<String>,
    /// Runs executed at once.
    pub concurrency: usize,
    /// How long a stop waits for what runs.
    pub drain_timeout: Duration,
    /// End after one job, or when none came within the time.
    pub run_once: Option<Duration>,
    /// Timing and bounds of runs.
    pub run: RunConfig,
    /// Timing of the worker's record.
    pub registry: RegistryConfig,
    /// How it keeps its wheels current; `None` does not.
    pub wheels: Option<WheelSyncSettings>,
}

impl WorkerSettings {
    /// How many runs it is to execute at once.
    fn slots(&self) -> usize {
        if self.run_once.is_some() { 1 } else { self.concurrency }
    }
}

/// Whether the system gives threads for one run at a time, and for the connection to NATS, which is not there
/// yet.
///
/// # Errors
/// [`Error::TooFewThreads`].
pub fn require_threads() -> Result<(), Error> {
    headroom::affordable(1, false).map(drop)
}

/// Who sets `PYOCO_LOST_NATS=stop:…` wants a run to be executed once at a time.
fn warn_of_overlap(run: &RunConfig) {
    let longest = run.longest_stop_without_nats;
    if let Some(stop) = run.stop_without_nats.filter(|stop| *stop > longest) {
        log::warn!(seconds = stop.as_secs_f64(), longest = longest.as_secs_f64();
            "PYOCO_LOST_NATS leaves runs more time than it takes until another worker may begin them; use less, \
             or raise PYOCO_RUN_HEARTBEAT_INTERVAL_SEC and PYOCO_CONSUMER_ACK_WAIT_SEC");
    }
}

struct Context {
    settings: WorkerSettings,
    /// Unique per start of a process.
    instance_id: String,
    runs: Kv,
    workers: Kv,
    queue: WorkQueue,
    executors: Vec<Arc<dyn Executor>>,
    in_flight: job::in_flight::InFlightJobs,
    wheels: wheel_sync::Status,
    /// How often the consumer of each tag delivers a job at most, as the puller has found it.
    max_deliver: RwLock<HashMap<String, Option<u64>>>,
    /// Whether it can work at all.
    health: Arc<health::Health>,
    /// Runs that it can execute at once: as many as it was told, or as the system gives threads for.
    slots: AtomicUsize,
    /// Milliseconds between two in-progress ACKs; the puller lowers it when a consumer that was
    /// there before us has a shorter `ack_wait` than ours would have.
    progress_interval_ms: AtomicU64,
    /// Milliseconds after which NATS delivers a job again: the shortest of its consumers.
    ack_wait_ms: AtomicU64,
}

impl Context {
    fn progress_interval(&self) -> Duration {
        Duration::from_millis(self.progress_interval_ms.load(Ordering::Relaxed))
    }

    /// For so long after a sign of life the queue needs no other one.
    fn fresh(&self) -> Duration {
        self.progress_interval() / 4
    }

    /// After so long without a sign of life a job may have been delivered to another worker: `ack_wait`, less
    /// what a delivery may have been under way.
    fn stale_after(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms.load(Ordering::Relaxed) / 4 * 3)
    }

    /// The bounds of a job that came on `subject`.
    fn limits(&self, subject: &str) -> Limits {
        let configured = self.queue.max_deliver();
        let known = self.max_deliver.read().get(job::tag_of(subject)).copied();
        Limits::new(configured, known.unwrap_or(u64::try_from(configured).ok()))
    }

    /// Keeps in-progress ACKs well within `ack_wait` (`docs/contract.md#delivery-of-jobs`).
    fn respect_ack_wait(&self, ack_wait: Duration) {
        let millis = u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX);
        self.ack_wait_ms.fetch_min(millis, Ordering::Relaxed);
        if self.progress_interval() >= ack_wait {
            let half = u64::try_from(ack_wait.as_millis() / 2).unwrap_or(u64::MAX).max(1);
            self.progress_interval_ms.fetch_min(half, Ordering::Relaxed);
        }
    }
}

/// Runs a worker until `stop` closes; blocks. When it returns, every job that it had taken is
/// settled or given back (one that the server sends in the very last moment comes again after its
/// `ack_wait`), and the worker's record says why it ended.
///
/// # Errors
/// [`Error::TakenOver`] when another process has started under the same id, [`Error::NoWheels`] when it could
/// not get its code and never will, or was to execute one job only, [`Error::Refused`] when what it needs in
/// NATS belongs to another installation or refuses every pull, [`Error::Unavailable`] when a worker of one
/// job could not execute it for a fault of its own, [`Error::TooFewThreads`], [`Error::Thread`].
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use pyoco_server::bus::Bus;
/// use pyoco_server::config::{Config, Source};
/// use pyoco_server::flow::{Executor, NativeExecutor, Registry};
/// use pyoco_server::thread;
/// use pyoco_server::worker::{self, WorkerSettings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::load(&Source::from_process()).config;
/// let bus = Bus::start(&config.nats, &config.resources)?;
/// let executors: Vec<Arc<dyn Executor>> =
///     vec![Arc::new(NativeExecutor::new(Registry::with_builtins()))];
/// let settings = WorkerSettings {
///     worker_id: "worker-1".to_owned(),
///     tags: vec!["default".to_owned()],
///     concurrency: 4,
///     drain_timeout: Duration::from_secs(30),
///     // One job, or none within a minute.
///     run_once: Some(Duration::from_secs(60)),
///     run: config.run.clone(),
///     registry: config.registry.clone(),
///     wheels: None,
/// };
/// // Dropping `stop` would end the worker earlier.
/// let (stop, stopped) = thread::stop_channel();
/// worker::run(settings, &bus, executors, &stopped)?;
/// drop(stop);
/// # Ok(())
/// # }
/// ```
pub fn run(
    settings: WorkerSettings,
    bus: &Bus,
    executors: Vec<Arc<dyn Executor>>,
    stop: &StopSignal,
) -> Result<(), Error> {
    // Nothing can be done before; when it takes longer, everything below tries on by itself.
    let is_connected = bus.wait_connected(CONNECT_PATIENCE);
    let slots = headroom::affordable(settings.slots(), is_connected)?;
    if slots < settings.slots() {
        log::warn!(wanted = settings.slots(), slots = slots;
            "the system gives this worker too few threads; it executes fewer runs at once than it was told");
    }
    warn_of_overlap(&settings.run);
    let health = Arc::new(health::Health::default());
    let start = |wheels| SyncThread::start(wheels, settings.tags.clone(), bus.wheels(), Arc::clone(&health));
    let sync = settings.wheels.clone().map(start).transpose()?;
    let progress_ms = settings.run.ack_progress_interval.as_millis();
    let context = Arc::new(Context {
        settings,
        progress_interval_ms: AtomicU64::new(u64::try_from(progress_ms).unwrap_or(u64::MAX).max(1)),
        ack_wait_ms: AtomicU64::new(u64::MAX),
        instance_id: uuid::Uuid::new_v4().to_string(),
        runs: bus.runs(),
        workers: bus.workers(),
        queue: bus.queue(),
        executors,
        max_deliver: RwLock::default(),
        in_flight: job::in_flight::InFlightJobs::default(),
        wheels: sync.as_ref().map(|sync| sync.status.clone()).unwrap_or_default(),
        health,
        slots: AtomicUsize::new(slots),
    });
    let checks = health::start(&context)?;
    let swept = context.clone();
    let sweeper = Service::start("sweep", move |stop| sweep::run(&swept, stop))?;
    // The last thread before the slots: whatever fails later leaves a record that says so.
    let registry = registry::Registry::start(&context)?;
    log::info!(
        worker_id = context.settings.worker_id.as_str(),
        tags = context.settings.tags.join(","),
        concurrency = slots;
        "worker started"
    );
    let once = context.settings.run_once.is_some();
    if sync.is_some() {
        systemd::status(Loop::Puller, "worker: waits for its first wheels".to_owned());
    }
    let waited = sync.as_ref().map(|sync| sync.wait_ready(once, &registry.taken_over, stop));
    let taken_over = match waited {
        Some(Waited::TakenOver(by)) => Some(by),
        Some(Waited::InVain(reason)) => {
            registry.stop_gracefully();
            return Err(Error::NoWheels { reason });
        }
        None | Some(Waited::Ready | Waited::Stopped) => match pull::run(&context, &registry, stop) {
            Ok(taken_over) => taken_over,
            Err(e) => {
                registry.stop_gracefully();
                return Err(e);
            }
        },
    };
    // No run will need other wheels.
    drop(sync);
    checks.stop();
    sweeper.stop();
    match taken_over {
        Some(by) => {
            registry.abandon();
            Err(Error::TakenOver { worker_id: context.settings.worker_id.clone(), by })
        }
        None => {
            registry.stop_gracefully();
            log::info!(worker_id = context.settings.worker_id.as_str(); "worker stopped");
            Ok(())
        }
    }
}
