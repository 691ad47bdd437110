//! Whether a run could begin: one is forked that gets no job, and ends by itself.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::fork::{self, Forked};
use super::orders::Orders;
use crate::flow::executor::{Outcome, StartError};
use crate::flow::python::message::{RunMessage, ShimMessage};
use crate::flow::python::pipes::{self, Waited};
use crate::flow::python::template::TemplateSupervisor;
use crate::model::json;
use crate::thread::{self, StopSignal};

/// Between two looks at the stop while the processes of a check are waited for.
const STOP_LOOK: Duration = Duration::from_millis(250);
/// Most that these processes say.
const MAX_CHECK_BYTES: usize = 64 * 1024;

/// Goes the way of a run, from the template to the report of the shim.
pub(crate) fn check(supervisor: &TemplateSupervisor, stop: &StopSignal) -> Result<(), String> {
    let trouble = |e: std::io::Error| format!("cannot make the pipes of a run: {e}");
    let (orders, mut woken) = Orders::new().map_err(trouble)?;
    let forked = match fork::fork(supervisor, &orders, &mut woken, stop) {
        Ok(forked) => forked,
        // This worker has no Python, and says so to each run that needs it.
        Err(StartError::Flow(_)) => return Ok(()),
        Err(StartError::Host(error)) => return Err(error),
    };
    // The worker stops.
    let Some(Forked { template: _kept, mut pipes, mut said, .. }) = forked else { return Ok(()) };
    // The end of its orders in the place of a job.
    pipes.run.shutdown(Shutdown::Write).map_err(trouble)?;
    let mut told = Vec::new();
    let deadline = Instant::now() + supervisor.settings.start_deadline;
    let mut is_open = true;
    while is_open && !said.contains(&b'\n') {
        if thread::is_stopped(stop) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err("a process that only had to end has not done so".to_owned());
        }
        let waited = [Some(Waited { fd: pipes.shim.as_fd(), to_write: false })];
        pipes::wait(&waited, Some(deadline.min(Instant::now() + STOP_LOOK))).map_err(trouble)?;
        is_open = pipes::read_available(&mut pipes.shim, MAX_CHECK_BYTES, |bytes| said.extend(bytes));
        read(&mut pipes.run, &mut told);
        // What it prints is for the log of a run, and there is none.
        read(&mut pipes.out, &mut Vec::new());
        read(&mut pipes.err, &mut Vec::new());
    }
    read(&mut pipes.run, &mut told);
    let line = told.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if let Ok(RunMessage::End { end, error }) = json::from_wire(line)
        && let Outcome::HostFault { error, .. } = end.outcome(error, false)
    {
        return Err(error);
    }
    let line = said.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match json::from_wire::<ShimMessage>(line) {
        Ok(ShimMessage::Exit { exit: 0, .. }) => Ok(()),
        Ok(other) => Err(other.error()),
        Err(_) => Err("the supervisor of a process that only had to end has died".to_owned()),
    }
}

fn read(pipe: &mut impl Read, into: &mut Vec<u8>) {
    pipes::read_available(pipe, MAX_CHECK_BYTES, |bytes| into.extend(bytes));
}
