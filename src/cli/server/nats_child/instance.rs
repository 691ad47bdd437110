//! One process of the server, from its start to its end.
//!
//! Between us and the server stands a shell that reads a pipe whose other end only we hold. When
//! we end, in whatever way, the kernel closes our end, the read returns, and the shell stops the
//! server. (`PR_SET_PDEATHSIG` would fire when the thread that started it ends, and needs `unsafe`.)
//! Both stand in a process group of their own, so that Ctrl-C in a terminal reaches us first.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::NatsChildError;
use super::output::{self, LastLines};
use crate::model::limits::{CHILD_POLL, NATS_STOP_DEADLINE};
use crate::systemd;
use crate::thread::{self, JoinOnDrop, StopSignal};

/// For one greeting of the server.
const NATS_PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// From the start of the local nats-server to its first answer; recovering a large store takes long.
const NATS_READY_DEADLINE: Duration = Duration::from_secs(60);

/// `$0` is the program, `$1` its configuration, `$2` the stop deadline in tenths of a second.
///
/// The server starts before the shell ignores signals, or it would inherit that. The shell gives
/// its stderr up, so that the end of that stream means the end of the server. A first line on
/// stdin asks for SIGTERM, a second for SIGKILL (which a dead server does not mind). The end of
/// stdin means that we are gone: then the shell watches the deadline itself. It always reaps the
/// server, so that no zombie stays where the first process of a container does not care.
const SHIM: &str = r#"
"$0" -c "$1" </dev/null &
server=$!
trap '' HUP INT TERM
exec 2>/dev/null
line=
read -r line
kill -TERM "$server"
if [ -z "$line" ] || ! read -r line; then
    left=$2
    while kill -0 "$server" && [ "$left" -gt 0 ]; do
        sleep 0.1 || sleep 1
        left=$((left - 1))
    done
fi
kill -KILL "$server"
wait "$server"
"#;

#[derive(Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub config: PathBuf,
    /// The locked file of the store; the server holds it as its stdout, to which it never writes.
    pub lock: File,
    pub address: SocketAddr,
    pub server_name: String,
}

/// How long the output of the server may outlast its shell, when both end in good order.
const REAP_PATIENCE: Duration = Duration::from_millis(500);

/// A started server; killed when dropped before [`Instance::stop`].
#[derive(Debug)]
pub struct Instance {
    shell: Child,
    /// Written once, by `stop`; its end tells the shell that we are gone.
    control: Option<ChildStdin>,
    /// Disconnected by the reader thread when the server is gone; carries nothing.
    pub gone: Receiver<()>,
    pub last_lines: LastLines,
    /// Ends with the server; joined after it, which is why it is the last field.
    reader: Option<JoinOnDrop>,
}

impl Launch {
    /// Starts the server and waits until JetStream answers, or until `stop`.
    pub fn start(&self, stop: &StopSignal) -> Result<Instance, NatsChildError> {
        let instance = self.spawn()?;
        let end = Instant::now() + NATS_READY_DEADLINE;
        loop {
            let problem = match self.probe() {
                Ok(()) => return Ok(instance),
                Err(problem) => problem,
            };
            if Instant::now() > end {
                return Err(NatsChildError::NotReady {
                    seconds: NATS_READY_DEADLINE.as_secs(),
                    problem,
                    log: instance.last_lines.text(),
                });
            }
            select! {
                recv(stop) -> _ => return Err(NatsChildError::Stopped),
                recv(instance.gone) -> _ => {
                    return Err(NatsChildError::Died { log: instance.last_lines.text() });
                }
                default(CHILD_POLL) => {}
            }
        }
    }

    fn spawn(&self) -> Result<Instance, NatsChildError> {
        let failed = |source| NatsChildError::CannotStart { path: self.program.clone(), source };
        let lock = self.lock.try_clone().map_err(failed)?;
        let mut command = Command::new("/bin/sh");
        for name in systemd::VARIABLES {
            command.env_remove(name);
        }
        let mut shell = command
            .arg("-c")
            .arg(SHIM)
            .arg(&self.program)
            .arg(&self.config)
            .arg((NATS_STOP_DEADLINE.as_millis() / 100).to_string())
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let control = shell.stdin.take();
        let stderr = shell.stderr.take().expect("stderr is piped");
        let (alive, gone) = bounded(0);
        let last_lines = LastLines::default();
        let kept = last_lines.clone();
        let mut instance = Instance { shell, control, gone, last_lines, reader: None };
        let reader = thread::spawn_small("nats-output", move || {
            // Dropped when the stream ends, and not before.
            let _alive: crossbeam_channel::Sender<()> = alive;
            output::forward(stderr, &kept);
        });
        instance.reader = Some(reader.map_err(|source| NatsChildError::Thread { source })?);
        Ok(instance)
    }

    /// Whether the server at the address is the one we started, with JetStream on. The server
    /// accepts clients only after JetStream has recovered its store.
    fn probe(&self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let stream = TcpStream::connect_timeout(&self.address, NATS_PROBE_DEADLINE).map_err(text)?;
        stream.set_read_timeout(Some(NATS_PROBE_DEADLINE)).map_err(text)?;
        let mut line = String::new();
        BufReader::new(stream.take(64 * 1024)).read_line(&mut line).map_err(text)?;
        let info: Value = line
            .strip_prefix("INFO ")
            .and_then(|json| serde_json::from_str(json).ok())
            .ok_or_else(|| format!("{} is not a NATS server", self.address))?;
        if info["server_name"] != self.server_name.as_str() {
            return Err(format!("another NATS server listens on {}", self.address));
        }
        if info["jetstream"] != true {
            return Err("JetStream is not enabled".to_owned());
        }
        log::debug!("nats-server {} is ready on {}", info["version"], self.address);
        Ok(())
    }
}

impl Instance {
    /// SIGTERM, and SIGKILL at the deadline; returns when the server is gone, with the status that
    /// the shell passes on (128 and the signal's number when a signal ended it).
    pub fn stop(mut self) -> Option<ExitStatus> {
        self.end(NATS_STOP_DEADLINE)
    }

    fn end(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let mut control = self.control.take()?;
        // A failed write means that the shell is gone, which the last resort below covers.
        let _ = control.write_all(b"stop\n");
        if self.gone.recv_timeout(deadline).is_err_and(|e| e.is_timeout()) {
            log::warn!("the local nats-server did not stop within {deadline:?}; killing it");
        }
        let _ = control.write_all(b"kill\n");
        let end = Instant::now() + NATS_PROBE_DEADLINE;
        loop {
            match self.shell.try_wait() {
                Ok(Some(status)) => {
                    // Only the shell was killed: the server lives on in the group, which
                    // keeps the group's number ours.
                    if self.gone.recv_timeout(REAP_PATIENCE).is_err_and(|e| e.is_timeout()) {
                        self.kill_group();
                    }
                    break Some(status);
                }
                Ok(None) if Instant::now() < end => {
                    // The end of a process is no event on a channel; this takes a millisecond.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None) | Err(_) => {
                    self.kill_group();
                    break self.shell.wait().ok();
                }
            }
        }
    }

    /// The last resort: the shell itself does not do its work. One of the group is there still, so
    /// its number is ours.
    fn kill_group(&self) {
        if let Some(group) = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Only a failed start is dropped without `stop`: there is nothing to be saved.
        self.end(Duration::ZERO);
    }
}
