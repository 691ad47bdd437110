//! The seam between a worker and whatever executes a flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::lease::Lease;
use crate::model::run::TaskRecord;
use crate::model::wheel::WheelSet;
use crate::model::workflow::{Workflow, WorkflowRefusal};
use crate::thread::StopSignal;

/// What is to be executed.
#[derive(Debug, Clone)]
pub struct FlowJob {
    /// The run; tasks may see it.
    pub run_id: String,
    /// The flow to resolve when there is no document.
    pub flow_name: String,
    /// Parameters, seen by tasks as `$ctx.params`.
    pub params: Map<String, Value>,
    /// The `flow.yaml` that came with the run; without one `flow_name` is resolved.
    pub workflow: Option<WorkflowDocument>,
}

/// A `flow.yaml`, parsed once: executors that are asked whether they accept it, and the one that runs
/// it, look at the same value. Clones share it.
#[derive(Debug, Clone)]
pub struct WorkflowDocument(Arc<(String, Result<Workflow, WorkflowRefusal>)>);

impl WorkflowDocument {
    /// Parses the text. What is wrong with it is not said before the document is asked: a run with a
    /// document that cannot be read fails with the reason.
    pub fn parse(text: impl Into<String>) -> Self {
        let text = text.into();
        let parsed = Workflow::parse(text.as_bytes());
        WorkflowDocument(Arc::new((text, parsed)))
    }

    /// As it was submitted; Python reads it by itself.
    pub fn text(&self) -> &str {
        &self.0.0
    }

    /// What it says.
    pub fn workflow(&self) -> Result<&Workflow, &WorkflowRefusal> {
        self.0.1.as_ref()
    }
}

/// What an execution reports, in order. After `Finished` nothing more comes; when the channel
/// closes without it, the executor itself has died.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are of the large variant")]
pub enum FlowEvent {
    /// Which wheels the run has; told before all else, and only where there are generations of them.
    Wheels(WheelSet),
    /// The flow was found: its canonical name and all of its tasks, none of them started.
    Started {
        /// The flow's own name, which may differ from the one asked for.
        flow_name: String,
        /// Task names in graph order.
        tasks: Vec<String>,
    },
    /// A task has changed its state.
    Task {
        /// Its name in the graph.
        name: String,
        /// What is known of it now.
        record: TaskRecord,
    },
    /// The flow has ended; how is the outcome.
    Finished(Outcome),
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All that had to run has succeeded.
    Completed,
    /// The flow failed with this text.
    Failed {
        /// Text of the error, shown as the run's `error`.
        error: String,
    },
    /// This worker does not have the flow; the text says what is missing.
    FlowNotFound {
        /// What is missing, without the `flow_not_found` prefix of the run's `error`.
        error: String,
    },
    /// It ended because its token was cancelled.
    Cancelled,
    /// Something of this machine does not work: the flow was not started, or has failed for that alone. The
    /// worker gives the job back and asks for no more until [`Executor::check`] says that it can work.
    HostFault {
        /// What does not work.
        error: String,
        /// Whether code of the flow had been executed. Then the flow may be what has broken the machine, and
        /// its job is given back a few times only.
        has_begun: bool,
    },
    /// It was ended because this process stood still for too long. That says nothing of the flow: the
    /// job is given back, unless another worker has it already.
    Interrupted {
        /// What has happened, for the log.
        error: String,
    },
}

/// Why an execution could not be started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StartError {
    /// Something of this machine does not work; see [`Outcome::HostFault`].
    #[error("{0}")]
    Host(String),
    /// The flow itself; the text is the run's `error`.
    #[error("{0}")]
    Flow(String),
}

impl From<StartError> for Outcome {
    fn from(error: StartError) -> Outcome {
        match error {
            StartError::Host(error) => Outcome::HostFault { error, has_begun: false },
            StartError::Flow(error) => Outcome::Failed { error },
        }
    }
}

/// Runs flows. Implementations never panic across this boundary and never block in `start` for
/// longer than it takes to start a thread or a process.
///
/// ```
/// use pyoco_server::flow::{
///     CancelToken, Executor, FlowEvent, FlowJob, NativeExecutor, Outcome, Registry, WorkflowDocument,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = NativeExecutor::new(Registry::with_builtins());
/// let yaml = "flow: {graph: hello}\ntasks: {hello: {use: builtin/echo, inputs: {to: world}}}\n";
/// let job = FlowJob {
///     run_id: "r1".to_owned(),
///     flow_name: "main".to_owned(),
///     params: serde_json::Map::new(),
///     workflow: Some(WorkflowDocument::parse(yaml)),
/// };
/// assert!(executor.accepts(&job));
/// let (sender, events) = crossbeam_channel::bounded(16);
/// let execution = executor.start(job, CancelToken::new(), sender)?;
/// let ended = events.iter().find(|event| matches!(event, FlowEvent::Finished(_)));
/// assert!(matches!(ended, Some(FlowEvent::Finished(Outcome::Completed))), "{ended:?}");
/// drop(execution);
/// # Ok(())
/// # }
/// ```
pub trait Executor: Send + Sync {
    /// Whether this executor is the one for `job`.
    fn accepts(&self, job: &FlowJob) -> bool;

    /// Starts the flow; its events go to `events` from then on.
    ///
    /// # Errors
    /// [`StartError`] when nothing could be started: it says whose fault that is.
    fn start(
        &self,
        job: FlowJob,
        cancel: CancelToken,
        events: Sender<FlowEvent>,
    ) -> Result<Box<dyn Execution>, StartError>;

    /// Whether flows can be executed on this machine at the moment. A worker asks after a fault of the host,
    /// again and again, on a thread of its own; it may take as long as the start of a flow. `stop` is the
    /// worker's: when it closes, the answer is not wanted any more.
    ///
    /// # Errors
    /// What does not work, for the operator.
    fn check(&self, _stop: &StopSignal) -> Result<(), String> {
        Ok(())
    }

    /// What this executor adds to its worker's record: the field's name and its present value.
    fn record_field(&self) -> Option<(&'static str, Value)> {
        None
    }
}

/// A flow in flight.
pub trait Execution: Send {
    /// Gives it the lease of its worker, right after its start. While that has lapsed, the execution begins
    /// no further task. One that sees to this by itself takes no notice.
    fn heed(&mut self, _lease: &Lease) {}

    /// Ends it by force; called when the grace period after a cancel or the time of the run has
    /// passed, or when the run was lost to another worker. A process is asked first and has `term_grace`
    /// to end by itself; when this returns, no process of the run is left, or it could not be
    /// killed and the log says so. No event that comes afterwards is read.
    fn kill(&mut self, term_grace: Duration);
}

/// Tells a flow to end by itself. Clones share one state; it cannot be taken back.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<TokenState>);

#[derive(Debug)]
struct TokenState {
    cancelled: AtomicBool,
    /// Never carries a value: it is disconnected by the cancel, which wakes every `select!`.
    woken: Receiver<()>,
    /// Taken by the cancel.
    wakers: Mutex<Option<Wakers>>,
}

struct Wakers {
    /// Held for its drop, which disconnects `woken`.
    _channel: Sender<()>,
    callbacks: Vec<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for Wakers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wakers({})", self.callbacks.len())
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        let (waker, woken) = bounded(0);
        CancelToken(Arc::new(TokenState {
            cancelled: AtomicBool::new(false),
            woken,
            wakers: Mutex::new(Some(Wakers { _channel: waker, callbacks: Vec::new() })),
        }))
    }

    /// Asks the flow to end.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let wakers = self.0.wakers.lock().take();
        for callback in wakers.into_iter().flat_map(|wakers| wakers.callbacks) {
            callback();
        }
    }

    /// Calls `callback` on the canceller's thread, or at once when the cancel has come already;
    /// for a waiter that has no channel to select on. It must not block.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) {
        let mut wakers = self.0.wakers.lock();
        match &mut *wakers {
            Some(wakers) => wakers.callbacks.push(Box::new(callback)),
            None => {
                drop(wakers);
                callback();
            }
        }
    }

    /// Whether the flow was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// A channel that becomes disconnected by the cancel: for `select!`.
    pub fn signal(&self) -> &Receiver<()> {
        &self.0.woken
    }

    /// Sleeps for `duration`, or until the cancel; says whether it was cancelled.
    pub fn sleep(&self, duration: Duration) -> bool {
        // A timeout is the only way to get an error other than the disconnect.
        let _ = self.0.woken.recv_timeout(duration);
        self.is_cancelled()
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_cancel_wakes_a_sleeper() {
        let token = CancelToken::new();
        let other = token.clone();
        let thread = crate::thread::spawn("canceller", move || other.cancel()).unwrap();
        let before = Instant::now();
        assert!(token.sleep(Duration::from_secs(30)));
        assert!(before.elapsed() < Duration::from_secs(10));
        drop(thread);
        assert!(token.signal().recv().is_err());
    }

    #[test]
    fn a_cancel_calls_back_once_also_those_who_come_late() {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let token = CancelToken::new();
        let count = || {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        token.on_cancel(count());
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        token.cancel();
        token.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        token.on_cancel(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
