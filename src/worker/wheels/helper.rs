//! Runs a short helper script in the configured interpreter, within a time and with bounded output.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::model::limits::CHILD_POLL;
use crate::thread::{self, StopSignal};

/// What is kept of the output of a helper process of Python; its list of tags takes 60 KB.
const MAX_HELPER_OUTPUT_BYTES: usize = 1024 * 1024;

/// How the interpreter of flows is started.
#[derive(Debug, Clone)]
pub struct Python {
    /// A path, or a name that is looked up on `PATH`.
    pub program: String,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
}

#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    until: Instant,
    given: Duration,
    stop: &'a StopSignal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Impatience {
    #[error("was not done within {0} s")]
    Late(u64),
    #[error("the worker is stopping")]
    Stopped,
}

impl<'a> Patience<'a> {
    /// From now on, until `stop` closes.
    pub fn new(given: Duration, stop: &'a StopSignal) -> Patience<'a> {
        Patience { until: Instant::now() + given, given, stop }
    }

    pub fn check(&self) -> Result<(), Impatience> {
        if thread::is_stopped(self.stop) {
            Err(Impatience::Stopped)
        } else if Instant::now() >= self.until {
            Err(Impatience::Late(self.given.as_secs()))
        } else {
            Ok(())
        }
    }

    pub(super) fn pause(&self, pause: Duration) {
        // Nothing is ever sent: this is the time, or the stop.
        let _ = self.stop.recv_timeout(pause);
    }
}

pub(super) struct Said {
    pub status: ExitStatus,
    /// The beginning of it, [`MAX_HELPER_OUTPUT_BYTES`] at most.
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    #[error("cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("cannot be waited for: {0}")]
    Wait(#[source] io::Error),
    #[error(transparent)]
    Over(#[from] Impatience),
}

/// Executes `script` in the folder `place`; its process has ended when this returns.
pub(super) fn run(
    python: &Python,
    script: &str,
    arguments: &[&Path],
    place: &Path,
    patience: &Patience<'_>,
) -> Result<Said, HelperError> {
    let child = Command::new(&python.program)
        // -B: what a script imports is compiled nowhere.
        .args(["-B", "-c", script])
        .args(arguments)
        .current_dir(place)
        .env_clear()
        .envs(python.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What a wrapper of the interpreter starts ends with it, and Ctrl-C is the worker's business.
        .process_group(0)
        .spawn()
        .map_err(HelperError::Start)?;
    let mut running = Running(child);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut from_out, mut from_err) = (running.0.stdout.take(), running.0.stderr.take());
    loop {
        patience.check()?;
        // Asked before its output is looked at: what comes after is nobody's who is waited for.
        let ended = running.0.try_wait().map_err(HelperError::Wait)?;
        let pause = if ended.is_some() { Duration::ZERO } else { CHILD_POLL };
        let streams = [from_out.as_ref().map(AsFd::as_fd), from_err.as_ref().map(AsFd::as_fd)];
        let [out_ready, err_ready] = ready(streams, pause).map_err(HelperError::Wait)?;
        if out_ready && !read(&mut from_out, &mut out) {
            from_out = None;
        }
        if err_ready && !read(&mut from_err, &mut err) {
            from_err = None;
        }
        if let Some(status) = ended
            && !out_ready
            && !err_ready
        {
            return Ok(Said { status, out, err });
        }
    }
}

/// A process that is killed unless it was waited for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that was waited for has given its number back.
        if matches!(self.0.try_wait(), Ok(None))
            && let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
        {
            // It may end in this moment, which is all the same.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// Which of the streams have something; waits for `pause` at most.
fn ready(streams: [Option<BorrowedFd<'_>>; 2], pause: Duration) -> io::Result<[bool; 2]> {
    let mut fds: Vec<PollFd<'_>> =
        streams.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(streams.map(|stream| stream.is_some() && answers.next().unwrap_or(false)))
}

/// Takes what is there; whether more can come.
fn read(stream: &mut Option<impl Read>, kept: &mut Vec<u8>) -> bool {
    let mut block = [0; 8192];
    match stream.as_mut().map_or(Ok(0), |stream| stream.read(&mut block)) {
        Ok(0) => false,
        Ok(count) => {
            let room = MAX_HELPER_OUTPUT_BYTES.saturating_sub(kept.len());
            kept.extend_from_slice(&block[..count.min(room)]);
            true
        }
        Err(e) => e.kind() == io::ErrorKind::Interrupted,
    }
}
