//! Has the processes of a run made by the template.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::TURN_BYTES;
use super::orders::Orders;
use crate::flow::executor::StartError;
use crate::flow::python::message::ShimMessage;
use crate::flow::python::pipes::{self, RunPipes, Waited};
use crate::flow::python::template::{Template, TemplateSupervisor};
use crate::thread::{self, StopSignal};

/// How often a run is given to another template because the first one has just died.
const MAX_FORKS: usize = 3;
/// Between two looks at a template that owes a shim.
const TEMPLATE_LOOK: Duration = Duration::from_millis(250);

pub(super) struct Forked {
    /// It reaps the shim, so it is kept until then.
    pub template: Arc<Template>,
    pub pipes: RunPipes,
    pub shim_pid: u32,
    pub said: Vec<u8>,
}

/// Has the processes of a run made; `None` when it was killed before, or `stop` has closed.
///
/// Without them nothing of a flow was executed, so that is the host's fault, whatever has ended the template.
pub(super) fn fork(
    supervisor: &TemplateSupervisor,
    orders: &Orders,
    woken: &mut PipeReader,
    stop: &StopSignal,
) -> Result<Option<Forked>, StartError> {
    let mut problem = String::new();
    for _ in 0..MAX_FORKS {
        let template = supervisor.template(stop).map_err(|error| supervisor.blame(&error))?;
        let opened = pipes::open();
        let (pipes, far) =
            opened.map_err(|e| StartError::Host(format!("cannot make pipes for the run: {e}")))?;
        if !orders.may_start() {
            return Ok(None);
        }
        let forked = template.fork(&far.fds());
        drop(far);
        problem = match forked {
            Ok(()) => match wait_for_shim(supervisor, &template, pipes, (orders, woken), stop) {
                Begun::Forked(forked) => return Ok(Some(forked)),
                Begun::Unwanted => return Ok(None),
                Begun::Refused(error) => return Err(StartError::Host(error)),
                Begun::Lost => {
                    template.settle();
                    "the template process has ended or has no file descriptors".to_owned()
                }
            },
            Err(e) => e.to_string(),
        };
    }
    Err(StartError::Host(format!("cannot start a process for the run: {problem}")))
}

enum Begun {
    Forked(Forked),
    /// The run was killed, or the worker stops.
    Unwanted,
    Refused(String),
    /// Nothing of the flow was or will be executed: without the job, whatever was forked ends.
    Lost,
}

fn wait_for_shim(
    supervisor: &TemplateSupervisor,
    template: &Arc<Template>,
    mut pipes: RunPipes,
    (orders, woken): (&Orders, &mut PipeReader),
    stop: &StopSignal,
) -> Begun {
    let deadline = Instant::now() + supervisor.settings.start_deadline;
    let mut text = Vec::new();
    loop {
        let waited = [woken.as_fd(), pipes.shim.as_fd()].map(|fd| Some(Waited { fd, to_write: false }));
        let due = deadline.min(Instant::now() + TEMPLATE_LOOK);
        if pipes::wait(&waited, Some(due)).is_err() {
            return Begun::Lost;
        }
        drain(woken);
        if orders.now().kill.is_some() || thread::is_stopped(stop) {
            return Begun::Unwanted;
        }
        // Looked at first: what a dead template's shim has said is there by now.
        let is_alive = template.is_alive();
        let is_open =
            pipes::read_available(&mut pipes.shim, TURN_BYTES, |bytes| text.extend_from_slice(bytes));
        if let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let said = text.split_off(end + 1);
            return match serde_json::from_slice(&text) {
                Ok(ShimMessage::Started { started: shim_pid }) => {
                    let template = Arc::clone(template);
                    Begun::Forked(Forked { template, pipes, shim_pid, said })
                }
                Ok(other) => Begun::Refused(other.error()),
                Err(e) => Begun::Refused(format!("cannot read what the run's supervisor says: {e}")),
            };
        }
        if !is_open || !is_alive {
            return Begun::Lost;
        }
        if Instant::now() >= deadline {
            template.give_up();
            return Begun::Lost;
        }
    }
}

/// Whatever wakes, the orders themselves are looked at.
pub(super) fn drain(woken: &mut PipeReader) {
    let mut bytes = [0; 64];
    let _ = woken.read(&mut bytes);
}
