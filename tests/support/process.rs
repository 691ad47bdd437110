//! Programs, ours above all, started as a user starts them and gone when the test ends.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait::eventually;

/// Lines of each stream that are kept; the oldest go first.
const KEPT_LINES: usize = 2_000;
/// For what an ended program has said to be read; a child that it has left may hold its streams open.
const OUTPUT_DELAY: Duration = Duration::from_secs(2);

/// One of our programs.
#[derive(Debug, Clone, Copy)]
pub enum Binary {
    /// `pyoco-server`
    Server,
    /// `pyoco-worker`
    Worker,
    /// `pyoco-client`
    Client,
    /// `pyoco-server-admin`
    Admin,
}

impl Binary {
    /// Where cargo has put it.
    pub fn path(self) -> &'static str {
        match self {
            Binary::Server => env!("CARGO_BIN_EXE_pyoco-server"),
            Binary::Worker => env!("CARGO_BIN_EXE_pyoco-worker"),
            Binary::Client => env!("CARGO_BIN_EXE_pyoco-client"),
            Binary::Admin => env!("CARGO_BIN_EXE_pyoco-server-admin"),
        }
    }

    /// A command that inherits no setting of ours; see [`without_settings`].
    pub fn command(self) -> Command {
        without_settings(self.path())
    }
}

/// A command for any program that inherits no setting of ours: no `PYOCO_*`, no `.env`, no proxy.
pub fn without_settings(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("PYOCO_") || text.ends_with("_PROXY") || text == "NO_COLOR" {
            command.env_remove(&name);
        }
    }
    command.env("PYOCO_LOAD_DOTENV", "0");
    command
}

/// How a program ended that was run to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` to its end with `input` on stdin; kills it and panics at the deadline.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Finished {
    let mut running = Running::start_with_stdin(command, Stdio::piped());
    if let Some(mut stdin) = running.child.stdin.take() {
        // A program that does not read its stdin may have ended: its output tells.
        let _ = stdin.write_all(input);
    }
    let status = running.wait(deadline);
    running.join_readers();
    Finished {
        code: status.code(),
        signal: status.signal(),
        stdout: running.stdout(),
        stderr: running.stderr(),
    }
}

/// A program in a process group of its own; the group is killed on drop.
pub struct Running {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Tail>>,
    stderr: Arc<Mutex<Tail>>,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` with captured output and no input.
    pub fn start(command: &mut Command) -> Running {
        Self::start_with_stdin(command, Stdio::null())
    }

    fn start_with_stdin(command: &mut Command, stdin: Stdio) -> Running {
        let mut running = Self::spawn(command.stdin(stdin).stderr(Stdio::piped()));
        let stderr = running.child.stderr.take().expect("stderr is piped");
        running.readers.push(read_lines(stderr, Arc::clone(&running.stderr)));
        running
    }

    /// Starts `command` with a pipe as stderr that is full and that nobody reads before [`Unread::read`].
    pub fn start_unread(command: &mut Command) -> (Running, Unread) {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("a pipe can be non-blocking");
        while writer.write(&[b'\n'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).expect("a pipe can be blocking");
        let running = Self::spawn(command.stdin(Stdio::null()).stderr(Stdio::from(writer)));
        // The command has kept the writer.
        command.stderr(Stdio::null());
        (running, Unread(Some(reader)))
    }

    fn spawn(command: &mut Command) -> Running {
        let name = format!("{:?}", command.get_program());
        let mut child = command
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![read_lines(child.stdout.take().expect("stdout is piped"), Arc::clone(&stdout))];
        Running { name, child, stdout, stderr, readers, ended: None }
    }

    /// Its process id, which is that of its group too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its stdout.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// The last lines of its stderr.
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Waits until a line of stdout or stderr satisfies `wanted`, and returns it.
    pub fn wait_for_line(&mut self, deadline: Duration, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let what = format!("{}: line with {what}", self.name);
        eventually(deadline, &what, || {
            // Asked first: what a program says at its end is looked at once more.
            let has_ended = !self.is_running();
            if has_ended {
                self.let_output_come();
            }
            let found = [&self.stdout, &self.stderr].into_iter().find_map(|tail| {
                let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                tail.lines.iter().find(|line| wanted(line)).cloned()
            });
            if found.is_none() && has_ended {
                self.assert_alive();
            }
            found
        })
    }

    /// Waits until something accepts connections at `address`.
    pub fn wait_for_port(&mut self, address: SocketAddr, deadline: Duration) {
        let what = format!("{} listening on {address}", self.name);
        eventually(deadline, &what, || {
            self.assert_alive();
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
        });
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid_of(&self.child), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGINT to the whole group, as Ctrl-C in a terminal sends it.
    pub fn interrupt(&self) {
        kill_process_group(pid_of(&self.child), Signal::INT)
            .unwrap_or_else(|error| panic!("cannot interrupt {}: {error}", self.name));
    }

    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("cannot wait for a child");
        }
        self.ended.is_none()
    }

    /// Waits for its end, and for what it has said.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let status = self.wait_end(deadline);
        self.let_output_come();
        status
    }

    fn wait_end(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("end of {}", self.name);
        eventually(deadline, &what, || (!self.is_running()).then_some(()));
        self.ended.expect("it has ended")
    }

    /// SIGTERM, then waits for its end.
    pub fn stop(&mut self, deadline: Duration) -> ExitStatus {
        if self.is_running() {
            self.terminate();
        }
        self.wait(deadline)
    }

    /// SIGKILL to the program alone: its children are left to themselves, as in a real crash.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
            self.wait_end(Duration::from_secs(10));
        }
    }

    fn assert_alive(&mut self) {
        assert!(self.is_running(), "{} ended too early: {:?}", self.name, self.ended);
    }

    /// The streams end with the program, unless a child of it still holds them; what the program itself has
    /// said is read by then.
    fn let_output_come(&self) {
        let until = Instant::now() + OUTPUT_DELAY;
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The streams have to end with the program.
    fn join_readers(&mut self) {
        eventually(Duration::from_secs(5), "end of output", || {
            self.readers.iter().all(JoinHandle::is_finished).then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group outlives its leader as long as it has members; none of them may outlive us.
        let _ = kill_process_group(pid_of(&self.child), Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stdout of {}\n{}", self.name, self.stdout());
            eprintln!("--- stderr of {}\n{}", self.name, self.stderr());
        }
    }
}

/// The stderr of a program, which nobody reads yet.
pub struct Unread(Option<PipeReader>);

impl Unread {
    /// Reads it from here on; what it brings is in [`Running::stderr`].
    pub fn read(&mut self, running: &mut Running) {
        let reader = self.0.take().expect("it is read already");
        running.readers.push(read_lines(reader, Arc::clone(&running.stderr)));
    }
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    dropped: usize,
}

fn read_lines(stream: impl Read + Send + 'static, tail: Arc<Mutex<Tail>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.lines.len() == KEPT_LINES {
                tail.lines.pop_front();
                tail.dropped += 1;
            }
            tail.lines.push_back(text);
        }
    })
}

fn text_of(tail: &Mutex<Tail>) -> String {
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    if tail.dropped > 0 {
        text.push_str(&format!("({} earlier lines dropped)\n", tail.dropped));
    }
    text.extend(tail.lines.iter().map(String::as_str));
    text
}

fn pid_of(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive pid")
}
