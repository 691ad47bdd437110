//! The executor of Python flows: pyoco's own engine, in processes that can be killed.
//!
//! A template process (the worker's `--python`) imports pyoco and the flow resolver once. For each run
//! it forks a shim, and the shim forks the run:
//!
//! ```text
//! py-run thread ══ job, events, cancel ══════════════▶ run      (own process group)
//!       ╠══════════ standard output and error ◀════════ run
//!       ╚══════ leases, term, kill / exit ═══▶ shim ───┘ reaps all that the run has started
//! py-template ══ one message per run, with four descriptors ══▶ template ──forks──▶ shim
//! ```
//! Invariants:
//!
//! - A run ends only when the shim has ended every process below it.
//! - When the worker is gone, each shim sees the end of its socket and ends its run.
//! - When the worker stands still, the lease of each of its runs runs out, and the shim ends the run.
//! - When a shim is killed, the kernel kills its run, and the template kills what that run has started.
//! - A run gets its job only when its shim has reported that it exists. The next template gets a run that
//!   a dying template may or may not have forked, so no run is executed twice.
//! - The worker always drains what a run prints, and keeps its end. It coalesces events per task. So
//!   memory is bounded, however fast a flow goes.
//! - The death of the template costs no run that has started; the next run gets a new template.
//! - What keeps every run from starting, or from going on, is a fault of the host and fails no run. What a
//!   flow does to its own processes is the flow's.
//! - The code of a template never changes. New wheels get a new template, which forks the new runs, and
//!   the old one stays until its last run has ended. So every generation of wheels with runs keeps one
//!   process (20 MB and what its resolver has imported): at most one per run, and one more.
//!
//! The Python side is in `host/`. This side knows nothing of NATS, and not how Pyoco executes a flow.

mod code;
mod environment;
mod error;
mod message;
mod pipes;
mod program;
mod run;
mod template;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, never};
use serde_json::Value;

pub use code::Code;
pub use environment::visible_environment;
pub use error::PythonError;
pub use program::find as find_program;

use super::executor::{CancelToken, Execution, Executor, FlowEvent, FlowJob, StartError};
use crate::thread::StopSignal;
use template::TemplateSupervisor;

/// The lease of [`PythonExecutor::new`].
const DEFAULT_LEASE: Duration = Duration::from_millis(3500);

/// How Python is started and what its runs may use.
#[derive(Debug, Clone)]
pub struct PythonSettings {
    /// The interpreter: a path, or a name that is looked up on `PATH`.
    pub interpreter: String,
    /// `module:function` or `file.py:function`, which turns a flow's name into a `pyoco.Flow`.
    pub resolver: Option<String>,
    /// Bytes that one process of a run may have for data; `None` is no limit.
    pub memory_limit: Option<u64>,
    /// All of the environment that flows see; see [`visible_environment`].
    pub environment: Vec<(OsString, OsString)>,
    /// From the start of the template to its word that it is ready, and from a run's handing over to
    /// the template to the word of its shim; a template that takes longer is killed.
    pub start_deadline: Duration,
    /// Largest JSON of one input or output that is kept.
    pub max_value_bytes: usize,
    /// From SIGTERM to SIGKILL for what a run has left when it has ended.
    pub term_grace: Duration,
}

/// Runs flows of a resolver, and documents whose tasks are Python functions.
#[derive(Debug, Clone)]
pub struct PythonExecutor {
    supervisor: Arc<TemplateSupervisor>,
}

impl PythonExecutor {
    /// Nothing is started yet: the first job does, or [`PythonExecutor::warm_up`].
    pub fn new(settings: PythonSettings) -> Self {
        Self::with_lease(settings, DEFAULT_LEASE)
    }

    /// Like [`PythonExecutor::new`]. A run goes on for `lease` without a sign of life of this process: when
    /// the process stands still (SIGSTOP, a suspended machine) for longer, the run's supervisor ends the
    /// run, so that another worker may execute it.
    pub fn with_lease(settings: PythonSettings, lease: Duration) -> Self {
        PythonExecutor { supervisor: Arc::new(TemplateSupervisor::new(settings, lease)) }
    }

    /// Starts the template now; blocks until it is ready.
    pub fn warm_up(&self) -> Result<(), PythonError> {
        self.supervisor.template(&never()).map(drop)
    }

    /// Gives all runs that are forked from now on this code, by a fresh template; blocks until that is
    /// ready, while runs go on to start from the one before. Runs in flight keep what they have
    /// begun with, and so does a run that is being forked in this moment; each tells which it has by
    /// [`FlowEvent::Wheels`]. Called before the first run this takes the place of
    /// [`PythonExecutor::warm_up`]. Of several calls at once each has its turn.
    ///
    /// # Errors
    /// Why the fresh template could not be started, for example since the resolver cannot be imported with
    /// these wheels. Then nothing has changed, and `code` is dropped.
    pub fn use_code(&self, code: Arc<Code>) -> Result<(), PythonError> {
        self.supervisor.use_code(code, &never())
    }

    /// Like [`PythonExecutor::use_code`], and gives up at once when `stop` says so: a start may take as
    /// long as its deadline allows.
    ///
    /// # Errors
    /// Also [`PythonError::Stopped`].
    pub fn use_code_unless_stopped(&self, code: Arc<Code>, stop: &StopSignal) -> Result<(), PythonError> {
        self.supervisor.use_code(code, stop)
    }
}

impl Executor for PythonExecutor {
    /// Every document that can be read at all, and every name when there is a resolver to ask.
    fn accepts(&self, job: &FlowJob) -> bool {
        match &job.workflow {
            Some(document) => document.workflow().is_ok(),
            None => self.supervisor.settings.resolver.is_some(),
        }
    }

    fn start(
        &self,
        job: FlowJob,
        cancel: CancelToken,
        events: Sender<FlowEvent>,
    ) -> Result<Box<dyn Execution>, StartError> {
        let execution = run::start(Arc::clone(&self.supervisor), job, &cancel, events)
            .map_err(|error| StartError::Host(format!("cannot start a thread for the run: {error}")))?;
        Ok(Box::new(execution))
    }

    /// Has a run forked that gets no job and ends by itself. Without flows in Python there is nothing to
    /// check.
    fn check(&self, stop: &StopSignal) -> Result<(), String> {
        if !self.supervisor.is_wanted() {
            return Ok(());
        }
        // What a template lacks may be its own: descriptors that its resolver holds, a limit that it was
        // given.
        let checked = self.supervisor.look_at_host().and_then(|()| run::check(&self.supervisor, stop));
        checked.inspect_err(|_| self.supervisor.retire())
    }

    fn record_field(&self) -> Option<(&'static str, Value)> {
        Some(("python", self.supervisor.status()))
    }
}
