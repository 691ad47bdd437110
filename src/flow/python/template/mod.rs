//! The template process: started once, asked for a run at a time, watched by a thread of its own.

mod ending;
mod host;
mod lines;
mod place;
mod supervisor;

pub(super) use supervisor::TemplateSupervisor;

use std::io::{self, IoSlice, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, select};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::json;

use super::message::Hello;
use super::pipes::{self, Waited};
use super::{Code, PythonError, PythonSettings};
use crate::model::limits::CHILD_POLL;
use crate::model::wheel::WheelSet;
use crate::thread::{self, JoinOnDrop, StopSignal};
use ending::EndingTemplates;
use lines::Lines;
use place::Place;

/// From the end of a Python template's last run until it is killed.
const TEMPLATE_STOP_DEADLINE: Duration = Duration::from_secs(8);
/// What the interpreter is told on its command line: take the rest from standard input, which is
/// the control socket. The name is for people who look at a list of processes.
const COMMAND: &str = "import socket; control = socket.socket(fileno=0); exec(control.recv(65536))";
const PROCESS_LABEL: &str = "pyoco-python-host";
const BOOT: &str = include_str!("../host/boot.py");
/// What comes next, in the order in which they import each other.
const MODULES: [(&str, &str); 10] = [
    ("wheels", include_str!("../host/wheels.py")),
    ("processes", include_str!("../host/processes.py")),
    ("flows", include_str!("../host/flows.py")),
    ("output", include_str!("../host/output.py")),
    ("values", include_str!("../host/values.py")),
    ("progress", include_str!("../host/progress.py")),
    ("tasks", include_str!("../host/tasks.py")),
    ("attempt", include_str!("../host/attempt.py")),
    ("shim", include_str!("../host/shim.py")),
    ("template", include_str!("../host/template.py")),
];
/// The orders grow with the wheels, and the kernel bounds a message; see `host/boot.py`.
const ORDER_PART_BYTES: usize = 64 * 1024;
/// How long a message may wait for the template, which is busy forking at most.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// From the close of a dying template's sockets to its end, at most; also the pause before a template
/// that lives on is asked again.
const DYING_PAUSE: Duration = Duration::from_millis(500);
/// How much of its output an error shows.
const SHOWN_OUTPUT_BYTES: usize = 2000;

/// A running template. Dropping the last clone of its `Arc` has it end; nobody waits for that.
#[derive(Debug)]
pub(crate) struct Template {
    control: Arc<OwnedFd>,
    /// What it has imported from. Its runs may outlive the process, and go on to import.
    code: Option<Arc<Code>>,
    /// Where its runs are executed.
    place: Place,
    pub pid: u32,
    pub python: String,
    pub pyoco: Option<String>,
    is_dead: Arc<AtomicBool>,
    process: Option<Arc<OwnedFd>>,
    /// Its drop tells the keeper to end the process.
    _ending: PipeWriter,
    /// Taken by the drop.
    keeper: Option<JoinOnDrop>,
    ending_templates: Arc<EndingTemplates>,
}

impl Drop for Template {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            self.ending_templates.take(keeper);
        }
    }
}

impl Template {
    /// Starts the interpreter and waits until it has imported everything, from `code` first. The
    /// template's thread goes to `ending_templates` in the end. Gives up when `stop` says so.
    fn start(
        settings: &PythonSettings,
        (code, place): (Option<&Arc<Code>>, Place),
        ending_templates: &Arc<EndingTemplates>,
        stop: &StopSignal,
    ) -> Result<Template, PythonError> {
        let system = |e: io::Error| PythonError::System(e.to_string());
        let search_path = code.map(|code| code.search_path()).transpose()?;
        let interpreter = settings.interpreter.as_str();
        let (control, far_control) = pipes::message_pair().map_err(system)?;
        let (stopped, ending) = pipes::waker().map_err(system)?;
        let mut child = Command::new(interpreter)
            .args(["-c", COMMAND, PROCESS_LABEL])
            .current_dir(&place.path)
            .env_clear()
            .envs(settings.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(far_control))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at the worker's terminal is the worker's business.
            .process_group(0)
            .spawn()
            .map_err(|e| PythonError::NoInterpreter {
                interpreter: interpreter.to_owned(),
                reason: e.to_string(),
                is_missing: e.kind() == io::ErrorKind::NotFound,
            })?;
        let pid = child.id();
        let process = pidfd(pid).map(Arc::new);
        let control = Arc::new(control);
        let is_dead = Arc::new(AtomicBool::new(false));
        let (tell, told) = bounded(1);
        let output = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let keeper = Keeper {
            process: process.clone(),
            child,
            control: Arc::clone(&control),
            stopped,
            output: output.into_iter().flatten().map(Lines::new).collect(),
            tell: Some(tell),
            is_dead: Arc::clone(&is_dead),
            was_ready: false,
            recent: String::new(),
            _code: code.cloned(),
        };
        let keeper = thread::spawn("py-template", move || keeper.run()).map_err(system)?;
        let orders = json!({
            "modules": MODULES,
            "settings": {
                "resolver": settings.resolver,
                "memory_limit": settings.memory_limit,
                "max_value_bytes": settings.max_value_bytes,
                "term_grace_sec": settings.term_grace.as_secs_f64(),
                "search_path": search_path,
            },
        });
        let orders = orders.to_string() + "\n";
        // When this fails, it has died, and the keeper tells that with what it has printed.
        let _ = send(&control, BOOT.as_bytes(), &[]).and_then(|()| {
            let mut parts = orders.as_bytes().chunks(ORDER_PART_BYTES);
            parts.try_for_each(|part| send(&control, part, &[]))
        });
        let died = |what: &str, output: String| PythonError::Died {
            interpreter: interpreter.to_owned(),
            what: what.to_owned(),
            output,
        };
        let mut is_stopped = false;
        let said = select! {
            recv(told) -> said => said.ok(),
            recv(stop) -> _ => {
                is_stopped = true;
                None
            }
            default(settings.start_deadline) => None,
        };
        let why = match said {
            Some(Said::Hello(Hello::Ready { python, pyoco })) => {
                return Ok(Template {
                    control,
                    code: code.cloned(),
                    place,
                    pid,
                    python,
                    pyoco,
                    is_dead,
                    process,
                    _ending: ending,
                    keeper: Some(keeper),
                    ending_templates: Arc::clone(ending_templates),
                });
            }
            Some(Said::Hello(Hello::Failed { failed, error, traceback, python })) => {
                refused(settings, &failed, error, traceback, python)
            }
            Some(Said::Died { output }) => died("ended before it was ready", output),
            None => {
                // It has ignored us so far, so it is not asked to end.
                kill(pid);
                let deadline = settings.start_deadline.as_secs();
                match is_stopped {
                    true => PythonError::Stopped,
                    false => died(&format!("was not ready within {deadline} s"), String::new()),
                }
            }
        };
        // The keeper ends by this, and is joined after it.
        drop(ending);
        drop(keeper);
        Err(why)
    }

    /// The wheels that its runs get; `None` where there are no generations.
    pub(crate) fn wheels(&self) -> Option<&WheelSet> {
        self.code.as_ref().map(|code| &code.set)
    }

    /// Whether runs that it forks would be executed where they are to be.
    fn is_in(&self, place: &Place) -> bool {
        self.place.is_same(place)
    }

    /// Whether it can still fork.
    pub(crate) fn is_alive(&self) -> bool {
        !self.is_dead.load(Ordering::SeqCst)
    }

    /// Gives a template that may be dying the time to do so: its sockets close before its keeper can know.
    pub(crate) fn settle(&self) {
        let Some(process) = &self.process else { return };
        let process = Some(Waited { fd: process.as_fd(), to_write: false });
        let ended = pipes::wait(&[process], Some(Instant::now() + DYING_PAUSE));
        if ended.is_ok_and(|ready| ready[0]) {
            self.is_dead.store(true, Ordering::SeqCst);
        }
    }

    /// Ends a template that does not do its work; runs that it has started go on.
    pub(crate) fn give_up(&self) {
        if !self.is_dead.swap(true, Ordering::SeqCst) {
            log::error!(pid = self.pid; "the Python template process does not answer; killing it");
            match &self.process {
                // It may have ended in this moment.
                Some(process) => {
                    let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
                }
                None => kill(self.pid),
            }
        }
    }

    /// Has a run forked with these descriptors; see [`pipes::FarEnds::fds`].
    pub(crate) fn fork(&self, fds: &[BorrowedFd<'_>; 4]) -> io::Result<()> {
        let sent = send(&self.control, b"run", fds);
        if sent.is_err() {
            // It has died in this moment, or has not read for long; its keeper may not know yet.
            self.give_up();
        }
        sent
    }
}

/// What becomes readable when the process ends; not to be had on old kernels, where the end of the
/// control socket has to do.
fn pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Kills a process that nobody has reaped yet.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended in this moment.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn refused(
    settings: &PythonSettings,
    failed: &str,
    reason: String,
    traceback: String,
    version: String,
) -> PythonError {
    match failed {
        "no_pyoco" => PythonError::NoPyoco { interpreter: settings.interpreter.clone(), version, reason },
        _ => {
            let what = settings
                .resolver
                .as_ref()
                .map_or_else(|| "pyoco".to_owned(), |resolver| format!("the flow resolver `{resolver}`"));
            PythonError::Load { what, reason, traceback }
        }
    }
}

/// Sends one message, with descriptors beside it; waits for room within a deadline.
fn send(control: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let deadline = Instant::now() + SEND_DEADLINE;
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(control, &[IoSlice::new(message)], &mut beside, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if Instant::now() < deadline => {
                // Its end is news on this socket too, so this cannot outwait it.
                let pause = Instant::now() + CHILD_POLL;
                pipes::wait(
                    &[Some(Waited { fd: control.as_fd(), to_write: true })],
                    Some(pause.min(deadline)),
                )?;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// What the keeper tells whoever has started the template.
enum Said {
    Hello(Hello),
    Died { output: String },
}

/// The thread beside a template: reads what it says and prints, and reaps it.
struct Keeper {
    /// Ends when the process does, also when others hold the other end of `control`.
    process: Option<Arc<OwnedFd>>,
    child: Child,
    control: Arc<OwnedFd>,
    /// Ends when the template is not wanted any more.
    stopped: PipeReader,
    output: Vec<Lines>,
    tell: Option<Sender<Said>>,
    is_dead: Arc<AtomicBool>,
    /// One that could not load its modules says so and ends.
    was_ready: bool,
    /// The end of what it has printed so far, for an error; given up when it is ready.
    recent: String,
    /// Held until the process has ended: it goes with this.
    _code: Option<Arc<Code>>,
}

impl Keeper {
    fn run(mut self) {
        let mut kill_at = None;
        loop {
            let mut waited = vec![
                Some(Waited { fd: self.control.as_fd(), to_write: false }),
                kill_at.is_none().then(|| Waited { fd: self.stopped.as_fd(), to_write: false }),
                self.process.as_ref().map(|fd| Waited { fd: fd.as_fd(), to_write: false }),
            ];
            waited.extend(self.output.iter().map(Lines::waited));
            let Ok(ready) = pipes::wait(&waited, kill_at) else { break };
            self.forward_output(&ready[3..]);
            if ready[0] && !self.take_message() {
                break;
            }
            if ready[2] {
                break;
            }
            if ready[1] && kill_at.is_none() {
                // It ends when its last run has, and the runs of a worker that stops have ended.
                let _ = rustix::net::shutdown(&*self.control, Shutdown::Write);
                kill_at = Some(Instant::now() + TEMPLATE_STOP_DEADLINE);
            }
            if kill_at.is_some_and(|at| at <= Instant::now()) {
                break;
            }
        }
        self.is_dead.store(true, Ordering::SeqCst);
        self.end(kill_at.is_some());
    }

    /// `false` when the other end has closed.
    fn take_message(&mut self) -> bool {
        let mut message = vec![0; 64 * 1024];
        let received = rustix::net::recv(&*self.control, &mut message[..], rustix::net::RecvFlags::DONTWAIT);
        match received {
            Ok((0, _)) => false,
            Ok((length, _)) => {
                if let Ok(hello) = serde_json::from_slice::<Hello>(&message[..length])
                    && let Some(tell) = self.tell.take()
                {
                    self.was_ready = matches!(hello, Hello::Ready { .. });
                    self.recent = String::new();
                    // The starter may have given up waiting; then it drops us next.
                    let _ = tell.try_send(Said::Hello(hello));
                }
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn forward_output(&mut self, ready: &[bool]) {
        for (lines, _) in self.output.iter_mut().zip(ready).filter(|(_, ready)| **ready) {
            lines.read(|line| {
                log::info!(target: "python", "{line}");
                if self.tell.is_some() {
                    self.recent.push_str(line);
                    self.recent.push('\n');
                    let excess = self.recent.len().saturating_sub(SHOWN_OUTPUT_BYTES);
                    let cut = (excess..).find(|&at| self.recent.is_char_boundary(at)).unwrap_or(0);
                    self.recent.drain(..cut);
                }
            });
        }
    }

    fn end(mut self, was_stopped: bool) {
        let deadline = Instant::now() + CHILD_POLL * 10;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(CHILD_POLL),
                Ok(None) => {
                    let _ = self.child.kill();
                    break self.child.wait().ok();
                }
                Err(_) => break None,
            }
        };
        let all = vec![true; self.output.len()];
        self.forward_output(&all);
        let how = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        if let Some(tell) = self.tell.take() {
            let output = match self.recent.trim() {
                "" => format!(" ({how})"),
                text => format!(" ({how}); it had printed:\n{text}"),
            };
            let _ = tell.try_send(Said::Died { output });
        } else if !was_stopped && self.was_ready {
            log::warn!(pid = self.child.id(), status = how;
                "the Python template process has died; the next Python run starts another one");
        }
    }
}
