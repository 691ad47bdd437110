//! A Python run as its slot sees it: something that was started and can be killed. Its thread makes
//! an [`attempt`] of it, which heeds [`orders`] and turns what comes into [`tasks`] and their output.

mod attempt;
mod capture;
mod check;
mod fork;
mod orders;
mod tasks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

pub(super) use check::check;

use super::template::TemplateSupervisor;
use crate::flow::executor::{CancelToken, Execution, FlowEvent, FlowJob};
use crate::thread::{self, JoinOnDrop};
use orders::Orders;

/// From SIGKILL to the end of all processes of a run; only one that is stuck in the kernel takes longer.
const RUN_KILL_DEADLINE: Duration = Duration::from_secs(8);

/// A run in flight; dropping it before its end kills it.
pub(crate) struct PythonExecution {
    /// For what a run has left, before it is killed.
    term_grace: Duration,
    orders: Arc<Orders>,
    /// Nothing is ever sent; it is disconnected when the thread has done all.
    done: Receiver<()>,
    thread: Option<JoinOnDrop>,
}

/// Starts the thread of a run; everything that takes time happens on it.
pub(crate) fn start(
    supervisor: Arc<TemplateSupervisor>,
    job: FlowJob,
    cancel: &CancelToken,
    events: Sender<FlowEvent>,
) -> io::Result<PythonExecution> {
    let (orders, woken) = Orders::new()?;
    let term_grace = supervisor.settings.term_grace;
    let (done_sender, done) = bounded(0);
    let thread = {
        let orders = Arc::clone(&orders);
        thread::spawn("py-run", move || {
            attempt::run(&supervisor, &job, &orders, woken, &events);
            drop(events);
            drop(done_sender);
        })?
    };
    let of_cancel = Arc::downgrade(&orders);
    cancel.on_cancel(move || {
        if let Some(orders) = of_cancel.upgrade() {
            orders.cancel();
        }
    });
    Ok(PythonExecution { term_grace, orders, done, thread: Some(thread) })
}

impl Execution for PythonExecution {
    fn kill(&mut self, term_grace: Duration) {
        let Some(thread) = self.thread.take() else { return };
        if !self.orders.kill(term_grace).has_started {
            // It waits for a template, and will see that it need not.
            return thread.abandon();
        }
        match self.done.recv_timeout(term_grace + RUN_KILL_DEADLINE) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                log::error!("the processes of a run could not be killed; leaving them");
                thread.abandon();
            }
            _ => thread.join(),
        }
    }
}

impl Drop for PythonExecution {
    fn drop(&mut self) {
        // After the flow's end its process is about to exit; the thread sees to it within its deadlines.
        match self.done.recv_timeout(self.term_grace + RUN_KILL_DEADLINE) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.kill(Duration::ZERO),
            _ => drop(self.thread.take()),
        }
    }
}
