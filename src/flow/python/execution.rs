//! A Python run as its slot sees it: something that was started and can be killed.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::attempt;
use super::host::Host;
use super::wires;
use crate::flow::executor::{CancelToken, Execution, FlowEvent, FlowJob};
use crate::model::limits::RUN_KILL_DEADLINE;
use crate::thread::{self, JoinOnDrop};

/// What the slot wants, for the run's thread to find when it is woken.
#[derive(Debug)]
pub(super) struct Orders {
    wanted: Mutex<Wanted>,
    wake: PipeWriter,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wanted {
    pub cancel: bool,
    /// With the time that the processes have between being asked and being killed.
    pub kill: Option<Duration>,
    /// Whether processes were started, or are about to be.
    has_started: bool,
}

impl Orders {
    fn change(&self, change: impl FnOnce(&mut Wanted)) -> Wanted {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut wanted);
        *wanted
    }

    pub(super) fn now(&self) -> Wanted {
        self.change(|_| {})
    }

    /// Claims the right to start processes: from now on a kill waits for them. `false` when the kill
    /// has come before.
    pub(super) fn may_start(&self) -> bool {
        self.change(|wanted| wanted.has_started = wanted.kill.is_none()).has_started
    }

    fn wake(&self) {
        // A full pipe wakes as well as one more byte would.
        let _ = (&self.wake).write(&[1]);
    }
}

/// A run in flight; dropping it before its end kills it.
pub(super) struct PythonExecution {
    orders: Arc<Orders>,
    /// Nothing is ever sent; it is disconnected when the thread has done all.
    done: Receiver<()>,
    thread: Option<JoinOnDrop>,
}

/// Starts the thread of a run; everything that takes time happens on it.
pub(super) fn start(
    host: Arc<Host>,
    job: FlowJob,
    cancel: &CancelToken,
    events: Sender<FlowEvent>,
) -> io::Result<PythonExecution> {
    let (woken, wake) = wires::waker()?;
    let orders = Arc::new(Orders { wanted: Mutex::default(), wake });
    let (done_sender, done) = bounded(0);
    let thread = {
        let orders = Arc::clone(&orders);
        let woken: PipeReader = woken;
        thread::spawn("py-run", move || {
            attempt::run(&host, &job, &orders, woken, &events);
            drop(events);
            drop(done_sender);
        })?
    };
    let of_cancel = Arc::downgrade(&orders);
    cancel.on_cancel(move || {
        if let Some(orders) = of_cancel.upgrade() {
            orders.change(|wanted| wanted.cancel = true);
            orders.wake();
        }
    });
    Ok(PythonExecution { orders, done, thread: Some(thread) })
}

impl Execution for PythonExecution {
    fn kill(&mut self, mercy: Duration) {
        let Some(thread) = self.thread.take() else { return };
        let wanted = self.orders.change(|wanted| {
            wanted.kill = Some(wanted.kill.map_or(mercy, |before| before.min(mercy)));
        });
        self.orders.wake();
        if !wanted.has_started {
            // It waits for a template, and will see that it need not.
            return thread.abandon();
        }
        match self.done.recv_timeout(mercy + RUN_KILL_DEADLINE) {
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
        match self.done.recv_timeout(RUN_KILL_DEADLINE) {
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.kill(Duration::ZERO),
            _ => drop(self.thread.take()),
        }
    }
}
