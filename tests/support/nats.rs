//! A real nats-server for one test: own port, own store, gone when the test ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::port::PortLease;
use super::process::Running;
use super::wait::eventually;

/// Start to JetStream answering; a cold start takes a tenth of a second.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// SIGTERM to the end of the process.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What a test may want to be different.
#[derive(Debug, Default, Clone)]
pub struct NatsOptions {
    /// User and password that clients must give.
    pub user: Option<(String, String)>,
    /// Token that clients must give.
    pub token: Option<String>,
    /// Largest message, in bytes.
    pub max_payload: Option<u64>,
    /// JetStream's `sync_interval`, for example `always`.
    pub sync_interval: Option<String>,
    /// Further lines of the configuration's `jetstream` block.
    pub jetstream_lines: Vec<String>,
    /// Further top-level lines of the configuration file.
    pub config_lines: Vec<String>,
}

/// A running server. The store survives [`NatsServer::restart`] and goes with the value.
pub struct NatsServer {
    process: Option<Running>,
    port: PortLease,
    options: NatsOptions,
    directory: TempDir,
}

impl NatsServer {
    /// A server with JetStream and nothing else set.
    pub fn start() -> NatsServer {
        Self::start_with(NatsOptions::default())
    }

    /// A server with options; returns when JetStream answers.
    pub fn start_with(options: NatsOptions) -> NatsServer {
        // The lease keeps other tests away; a stranger can still take the port between the check
        // and the bind, so a start that dies gets another one.
        let mut server = Self::new(options);
        for attempt in 1.. {
            match server.launch() {
                Ok(()) => break,
                Err(_) if attempt < 3 => server.port = PortLease::take(),
                Err(problem) => panic!("{problem}"),
            }
        }
        server
    }

    /// A server that does not answer yet: one node of a cluster, which needs the others.
    pub fn spawn(options: NatsOptions) -> NatsServer {
        let mut server = Self::new(options);
        server.begin();
        server
    }

    /// Returns when JetStream answers.
    pub fn wait_ready(&mut self) {
        if let Err(problem) = self.until_ready() {
            panic!("{problem}");
        }
    }

    fn new(options: NatsOptions) -> NatsServer {
        let directory =
            tempfile::Builder::new().prefix("pyoco-nats-").tempdir().expect("cannot make a store directory");
        NatsServer { process: None, port: PortLease::take(), options, directory }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.port()))
    }

    /// `nats://127.0.0.1:<port>`, without credentials.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// The folder of JetStream; a copy of it, taken while the server is stopped, is a backup.
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Its process id; panics when it is stopped.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// SIGTERM, then waits for its end. The port stays reserved.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate();
            // A paused process sees SIGTERM only when it goes on.
            process.signal(Signal::CONT);
            process.wait(STOP_DEADLINE);
        }
    }

    /// SIGKILL: what a power cut looks like to the process.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: the connections stay open and nobody answers.
    pub fn pause(&self) {
        self.running().signal(Signal::STOP);
        // The signal is on its way when the call returns; a thread may still answer until then.
        let threads = format!("/proc/{}/task", self.pid());
        eventually(STOP_DEADLINE, "nats-server stands still", || {
            let is_stopped = |thread: &fs::DirEntry| {
                fs::read_to_string(thread.path().join("stat"))
                    .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
            };
            let threads = fs::read_dir(&threads).expect("the server runs");
            threads.flatten().all(|thread| is_stopped(&thread)).then_some(())
        });
    }

    /// SIGCONT, after [`NatsServer::pause`].
    pub fn resume(&self) {
        self.running().signal(Signal::CONT);
    }

    /// Starts it again on the same port and store; stops it first if it runs.
    pub fn restart(&mut self) {
        self.stop();
        if let Err(problem) = self.launch() {
            panic!("{problem}");
        }
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        self.running().stderr()
    }

    /// Other options from the next start on.
    pub fn reconfigure(&mut self, options: NatsOptions) {
        self.options = options;
    }

    /// Writes its configuration with other options and makes it read that: SIGHUP, as
    /// `nats-server --signal reload` sends it. Returns when it has been taken over.
    pub fn reload(&mut self, options: NatsOptions) {
        self.options = options;
        fs::write(self.config_path(), self.config_text()).expect("cannot write nats.conf");
        let reloads =
            |server: &NatsServer| server.running().stderr().matches("Reloaded server configuration").count();
        let before = reloads(self);
        self.running().signal(Signal::HUP);
        eventually(STOP_DEADLINE, "nats-server has read its settings again", || {
            (reloads(self) > before).then_some(())
        });
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("nats.conf")
    }

    fn running(&self) -> &Running {
        self.process.as_ref().expect("the server is stopped")
    }

    fn launch(&mut self) -> Result<(), String> {
        self.begin();
        self.until_ready()
    }

    fn begin(&mut self) {
        let config = self.config_path();
        fs::write(&config, self.config_text()).expect("cannot write nats.conf");
        self.process = Some(Running::start(Command::new(binary()).arg("-c").arg(&config)));
    }

    fn until_ready(&mut self) -> Result<(), String> {
        let address = self.address();
        let process = self.process.as_mut().expect("the server was started");
        let end = Instant::now() + READY_DEADLINE;
        loop {
            if !process.is_running() {
                return Err(format!("nats-server ended at once:\n{}", process.stderr()));
            }
            match jetstream_answers(address, &self.options) {
                Ok(()) => return Ok(()),
                Err(problem) if Instant::now() > end => {
                    return Err(format!("nats-server is not ready: {problem}\n{}", process.stderr()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn config_text(&self) -> String {
        let store = self.directory.path().join("store");
        let mut text = format!("listen: \"{}\"\njetstream {{\n", self.address());
        text.push_str(&format!("  store_dir: {:?}\n", store.display().to_string()));
        if let Some(interval) = &self.options.sync_interval {
            text.push_str(&format!("  sync_interval: {interval}\n"));
        }
        for line in &self.options.jetstream_lines {
            text.push_str(&format!("  {line}\n"));
        }
        text.push_str("}\n");
        if let Some(bytes) = self.options.max_payload {
            text.push_str(&format!("max_payload: {bytes}\n"));
        }
        if let Some((user, password)) = &self.options.user {
            text.push_str(&format!("authorization {{ user: {user:?}, password: {password:?} }}\n"));
        }
        if let Some(token) = &self.options.token {
            text.push_str(&format!("authorization {{ token: {token:?} }}\n"));
        }
        for line in &self.options.config_lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// Speaks the protocol by hand: INFO says that JetStream is on, its API answers a request.
fn jetstream_answers(address: SocketAddr, options: &NatsOptions) -> Result<(), String> {
    let limit = Duration::from_secs(2);
    let text = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect_timeout(&address, limit).map_err(text)?;
    stream.set_read_timeout(Some(limit)).map_err(text)?;
    let mut reader = BufReader::new(stream.try_clone().map_err(text)?);
    let mut line = String::new();
    reader.by_ref().take(64 * 1024).read_line(&mut line).map_err(text)?;
    if !line.starts_with("INFO ") || !line.contains("\"jetstream\":true") {
        return Err(format!("unexpected greeting {line:?}"));
    }
    let mut connect = serde_json::json!({"verbose": false, "pedantic": false});
    if let Some((user, password)) = &options.user {
        connect["user"] = user.as_str().into();
        connect["pass"] = password.as_str().into();
    }
    if let Some(token) = &options.token {
        connect["auth_token"] = token.as_str().into();
    }
    let request = format!("CONNECT {connect}\r\nSUB _INBOX.r 1\r\nPUB $JS.API.INFO _INBOX.r 0\r\n\r\n");
    (&stream).write_all(request.as_bytes()).map_err(text)?;
    loop {
        line.clear();
        if reader.by_ref().take(64 * 1024).read_line(&mut line).map_err(text)? == 0 {
            return Err("the connection was closed".to_owned());
        }
        if line.starts_with("-ERR") {
            return Err(line);
        }
        // A users block without an account for JetStream answers 503 here: let tests that
        // configure accounts see that in their own calls.
        if line.starts_with("MSG _INBOX.r") || line.starts_with("HMSG _INBOX.r") {
            return Ok(());
        }
    }
}

/// The server's program: `PYOCO_NATS_SERVER_BIN`, then PATH, then what `tests/setup.sh` keeps.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("PYOCO_NATS_SERVER_BIN").filter(|p| !p.is_empty()) {
            return PathBuf::from(path);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/bin/nats-server");
        installed.chain([target]).find(|candidate| candidate.is_file()).unwrap_or_else(|| {
            panic!(
                "no nats-server found; run `bash tests/setup.sh`, or name one with \
                 PYOCO_NATS_SERVER_BIN"
            )
        })
    })
}
