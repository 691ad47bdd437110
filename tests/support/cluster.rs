//! NATS with gateways and workers on it: all of them real processes on ports of their own, all gone
//! when the [`Cluster`] is dropped, also when the test fails.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pyoco_server::bus::Bus;
use pyoco_server::config::{Config, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Client;
use super::jetstream;
use super::keys::PEPPER;
use super::nats::{NatsOptions, NatsServer};
use super::port::PortLease;
use super::process::{Binary, Running};
use super::python::package_program;
use super::runs::RUN_DEADLINE;
use super::wait::{PATIENCE, eventually};

/// Makes everything that is waited for come soon; see [`Builder::quick`].
const QUICK: [(&str, &str); 4] = [
    ("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "2"),
    ("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.5"),
    ("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0.5"),
    ("PYOCO_LOG_LEVEL", "INFO"),
];
/// Makes a gateway, ours or that of the Python package, ask for API keys.
pub const ASKING: [(&str, &str); 2] = [("PYOCO_HTTP_AUTH_MODE", "api_key"), ("PYOCO_AUTH_PEPPER", PEPPER)];

/// A nats-server, what was started on it, and the test's own way to NATS.
///
/// It dereferences to the [`Client`] of its first gateway, so `cluster.get("/runs")` asks that one. Fields
/// are dropped in this order: workers, gateways, bus, nats-server.
pub struct Cluster {
    /// The workers that the builder has started; see [`Cluster::worker`].
    pub workers: Vec<Worker>,
    /// The gateways that the builder has started.
    pub gateways: Vec<Gateway>,
    /// The test's own connection, with the settings that all parts share.
    pub bus: Bus,
    /// The settings that all parts share.
    pub config: Config,
    pub nats: NatsServer,
    /// The variables that all parts share, that of the nats-server among them.
    pub env: Vec<(String, String)>,
    /// Those of the first gateway.
    gateway_options: Options,
    run_deadline: Duration,
    folder: TempDir,
}

impl Cluster {
    /// Describes a cluster; [`Builder::start`] starts it.
    #[allow(clippy::new_ret_no_self, reason = "a test reads as one sentence: new, parts, start")]
    pub fn new() -> Builder {
        Builder {
            nats: NatsOptions::default(),
            common: Options::default(),
            parts: Vec::new(),
            is_quick: false,
            has_keys: false,
            run_deadline: RUN_DEADLINE,
        }
    }

    /// A cluster of one gateway, which most tests need.
    pub fn with_gateway() -> Cluster {
        Cluster::new().gateway().start()
    }

    /// The same with variables for the gateway.
    pub fn with_gateway_env(env: &[(&str, &str)]) -> Cluster {
        Cluster::new().gateway().envs(env).start()
    }

    /// A folder of the test's own. Programs of the Python package run in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Makes a program run in the folder with the variables that all parts share.
    pub fn place(&self, mut command: Command) -> Command {
        command.current_dir(self.folder()).envs(self.env.iter().cloned());
        command
    }

    /// The worker that the builder has started under this id.
    pub fn worker(&mut self, id: &str) -> &mut Worker {
        let found = self.workers.iter_mut().find(|worker| worker.id == id);
        found.unwrap_or_else(|| panic!("no worker {id} in this cluster"))
    }

    /// One more gateway with the options of the first one, ready.
    pub fn another_gateway(&self) -> Gateway {
        self.start_gateway(self.gateway_options.clone())
    }

    /// One more of our gateways, ready.
    pub fn start_gateway(&self, options: Options) -> Gateway {
        self.start_gateway_with(Binary::Server.command(), options)
    }

    /// The same from the program of another release.
    pub fn start_gateway_with(&self, program: Command, options: Options) -> Gateway {
        let gateway = self.spawn_gateway_with(program, options);
        gateway.wait_answer(gateway.ready_path, 200);
        gateway
    }

    /// One more of our gateways, which listens and may not be ready.
    pub fn spawn_gateway(&self, options: Options) -> Gateway {
        self.spawn_gateway_with(Binary::Server.command(), options)
    }

    fn spawn_gateway_with(&self, program: Command, options: Options) -> Gateway {
        let mut command = self.place(program);
        command.args(["up", "--nats-url", &self.nats.url()]);
        options.apply(&mut command);
        Gateway::start(command, "/readyz", self.run_deadline)
    }

    /// The gateway of the Python package, alive: it has no readiness.
    pub fn start_python_gateway(&self, options: Options) -> Gateway {
        let mut command = self.place(package_program("pyoco-server"));
        command.args(["up", "--host", "127.0.0.1"]);
        options.apply(&mut command);
        let gateway = Gateway::start(command, "/health", self.run_deadline);
        gateway.wait_answer(gateway.ready_path, 200);
        gateway
    }

    /// One more of our workers, which has registered.
    pub fn start_worker(&self, id: &str, options: Options) -> Worker {
        self.start_worker_with(Binary::Worker.command(), id, options)
    }

    /// The same from the program of another release.
    pub fn start_worker_with(&self, program: Command, id: &str, options: Options) -> Worker {
        let worker = self.spawn_worker_with(program, id, options);
        let pid = worker.pid();
        self.wait_record(id, "is there", |record| record["pid"] == pid);
        worker
    }

    /// One more of our workers; nothing is waited for.
    pub fn spawn_worker(&self, id: &str, options: Options) -> Worker {
        self.spawn_worker_with(Binary::Worker.command(), id, options)
    }

    fn spawn_worker_with(&self, program: Command, id: &str, options: Options) -> Worker {
        let folder = tempfile::tempdir().unwrap();
        let mut command = self.place(program);
        command.current_dir(folder.path());
        command.args(["--nats-url", &self.nats.url(), "--worker-id", id]);
        options.apply(&mut command);
        let process = Running::start(&mut command);
        Worker { process, id: id.to_owned(), folder, command }
    }

    /// The worker of the Python package with the resolver of `flows.py` in the folder. It takes its jobs from
    /// the queue whenever it is up, so nothing is waited for.
    pub fn start_python_worker(&self, tag: &str) -> Running {
        self.start_python_worker_with(package_program("pyoco-worker"), tag, Options::default())
    }

    /// The same in another environment.
    pub fn start_python_worker_with(&self, program: Command, tag: &str, options: Options) -> Running {
        let mut command = self.place(program);
        command.args(["--tags", tag, "--worker-id", "python"]);
        command.args(["--flow-resolver", "flows.py:resolve_flow"]);
        // It looks for modules neither in its working directory nor beside the resolver's file.
        command.env("PYTHONPATH", self.folder());
        options.apply(&mut command);
        Running::start(&mut command)
    }

    /// A second connection to NATS, with the settings that all parts share.
    pub fn connect(&self) -> Bus {
        connect(&self.config)
    }
}

impl Deref for Cluster {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.gateways.first().expect("this cluster has no gateway; ask for one with `.gateway()`")
    }
}

fn connect(config: &Config) -> Bus {
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(PATIENCE), "no connection");
    bus
}

/// Flags and variables of one program, in the order in which they are given.
#[derive(Debug, Default, Clone)]
pub struct Options {
    flags: Vec<OsString>,
    env: Vec<(String, String)>,
}

pub fn with_flags<S: Into<OsString> + Clone>(flags: &[S]) -> Options {
    Options::default().flags(flags)
}

pub fn with_env(env: &[(&str, &str)]) -> Options {
    Options::default().envs(env)
}

impl Options {
    pub fn flags<S: Into<OsString> + Clone>(mut self, flags: &[S]) -> Options {
        self.flags.extend(flags.iter().cloned().map(Into::into));
        self
    }

    pub fn envs(mut self, env: &[(&str, &str)]) -> Options {
        self.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// With this interpreter for Python flows.
    pub fn python(self, interpreter: impl Into<PathBuf>) -> Options {
        self.flags(&[OsString::from("--python"), interpreter.into().into_os_string()])
    }

    /// With those of `others`, too.
    pub fn and(mut self, others: Options) -> Options {
        self.flags.extend(others.flags);
        self.env.extend(others.env);
        self
    }

    pub fn apply(&self, command: &mut Command) {
        command.args(&self.flags).envs(self.env.iter().cloned());
    }
}

/// A cluster that is being described. A setting belongs to the part that was named last; before the first
/// part it belongs to all of them and to the test's own connection.
pub struct Builder {
    nats: NatsOptions,
    common: Options,
    parts: Vec<(Part, Options)>,
    is_quick: bool,
    has_keys: bool,
    run_deadline: Duration,
}

enum Part {
    Gateway,
    Worker(String),
}

impl Builder {
    /// A nats-server with these options.
    pub fn nats(mut self, options: NatsOptions) -> Builder {
        self.nats = options;
        self
    }

    /// Short heartbeats and deadlines for all parts, and every revision of a snapshot is kept for
    /// [`Cluster::history`].
    pub fn quick(mut self) -> Builder {
        self.is_quick = true;
        self
    }

    /// Gateways that ask for API keys; [`Cluster::key`] makes some.
    pub fn with_keys(mut self) -> Builder {
        self.has_keys = true;
        self
    }

    /// The longest that [`Client::ended`] waits for a run.
    pub fn run_deadline(mut self, deadline: Duration) -> Builder {
        self.run_deadline = deadline;
        self
    }

    /// One of our gateways.
    pub fn gateway(self) -> Builder {
        self.part(Part::Gateway)
    }

    /// One of our workers under this id; it executes no Python unless it is told to.
    pub fn worker(self, id: &str) -> Builder {
        self.part(Part::Worker(id.to_owned()))
    }

    fn part(mut self, part: Part) -> Builder {
        self.parts.push((part, Options::default()));
        self
    }

    fn edit(mut self, edit: impl FnOnce(Options) -> Options) -> Builder {
        let options = self.parts.last_mut().map_or(&mut self.common, |(_, options)| options);
        *options = edit(std::mem::take(options));
        self
    }

    /// Flags of the part that was named last.
    pub fn flags<S: Into<OsString> + Clone>(self, flags: &[S]) -> Builder {
        self.edit(|options| options.flags(flags))
    }

    /// Variables of the part that was named last.
    pub fn envs(self, env: &[(&str, &str)]) -> Builder {
        self.edit(|options| options.envs(env))
    }

    /// One variable of the part that was named last.
    pub fn env(self, name: &str, value: &str) -> Builder {
        self.envs(&[(name, value)])
    }

    /// The tags of a worker, separated by commas.
    pub fn tags(self, tags: &str) -> Builder {
        self.flags(&["--tags", tags])
    }

    /// The interpreter of a worker: [`super::python::V08`], [`super::python::V06`], or a path.
    pub fn python(self, interpreter: impl Into<PathBuf>) -> Builder {
        self.edit(|options| options.python(interpreter))
    }

    /// The flows of a worker, `file.py:function` or `module:function`.
    pub fn resolver(self, resolver: &str) -> Builder {
        self.flags(&["--flow-resolver", resolver])
    }

    /// Starts everything; returns when gateways are ready and workers have registered.
    pub fn start(self) -> Cluster {
        let nats = NatsServer::start_with(self.nats);
        let quick = if self.is_quick { &QUICK[..] } else { &[] };
        let common = with_env(quick).and(self.common).envs(&[("PYOCO_NATS_URL", &nats.url())]);
        let env = common.env;
        let source = Source::from_pairs(env.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let loaded = Config::load(&source);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let mut cluster = Cluster {
            workers: Vec::new(),
            gateways: Vec::new(),
            bus: connect(&loaded.config),
            config: loaded.config,
            nats,
            env,
            gateway_options: Options::default(),
            run_deadline: self.run_deadline,
            folder: tempfile::Builder::new().prefix("pyoco-test-").tempdir().unwrap(),
        };
        if self.is_quick {
            cluster.keep_revisions();
        }
        for (part, options) in self.parts {
            match part {
                Part::Gateway => {
                    let keys = if self.has_keys { &ASKING[..] } else { &[] };
                    let options = with_env(keys).and(options);
                    let gateway = cluster.start_gateway(options.clone());
                    if cluster.gateways.is_empty() {
                        cluster.gateway_options = options;
                    }
                    cluster.gateways.push(gateway);
                }
                Part::Worker(id) => cluster.workers.push(cluster.start_worker(&id, options)),
            }
        }
        // A gateway that asks for keys does not show its workers to everybody.
        for gateway in cluster.gateways.iter().filter(|_| !self.has_keys) {
            cluster.workers.iter().for_each(|worker| gateway.wait_worker(&worker.id));
        }
        cluster
    }
}

impl Cluster {
    /// Existing buckets are used as they are; with this one every revision can be read later.
    fn keep_revisions(&self) {
        let bucket = json!({
            "name": "KV_pyoco_runs", "subjects": ["$KV.pyoco_runs.>"], "discard": "new",
            "max_msgs_per_subject": 10_000, "allow_rollup_hdrs": true, "allow_direct": true,
            "duplicate_window": 120_000_000_000u64,
        });
        jetstream::call(&self.nats, "STREAM.CREATE.KV_pyoco_runs", &bucket);
        self.bus.ensure_resources().unwrap();
    }

    /// A worker's record as it lies in its bucket.
    pub fn record(&self, worker_id: &str) -> Option<Value> {
        let entry = self.bus.workers().get(worker_id).ok()??;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    /// Waits for a worker's record to satisfy `wanted`.
    pub fn wait_record(&self, worker_id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, &format!("record of {worker_id}: {what}"), || {
            self.record(worker_id).filter(|record| wanted(record))
        })
    }
}

/// A gateway, ours or that of the Python package. It dereferences to the [`Client`] that asks it.
pub struct Gateway {
    pub process: Running,
    client: Client,
    command: Command,
    ready_path: &'static str,
    _port: PortLease,
}

impl Gateway {
    fn start(mut command: Command, ready_path: &'static str, run_deadline: Duration) -> Gateway {
        let port = PortLease::take();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()));
        command.args(["--port", &port.port().to_string()]);
        let process = Running::start(&mut command);
        let client = Client::to(address).with_run_deadline(run_deadline);
        let mut gateway = Gateway { process, client, command, ready_path, _port: port };
        gateway.process.wait_for_port(address, PATIENCE);
        gateway
    }

    /// Stops it as an operator would.
    pub fn stop(&mut self) {
        let status = self.process.stop(PATIENCE);
        assert!(status.success(), "{status:?}");
    }

    /// Starts it again on the same port, after [`Gateway::stop`] or a kill; returns when it is ready.
    pub fn restart(&mut self) {
        assert!(!self.process.is_running(), "stop it or kill it first");
        self.process = Running::start(&mut self.command);
        self.process.wait_for_port(self.client.address, PATIENCE);
        self.wait_answer(self.ready_path, 200);
    }
}

impl Deref for Gateway {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A worker process in a folder of its own. It dereferences to the process.
pub struct Worker {
    pub process: Running,
    pub id: String,
    /// Where it runs, and keeps its wheels unless it is told another place.
    pub folder: TempDir,
    command: Command,
}

impl Worker {
    /// Starts it again in its folder, after its end or a kill. Nothing is waited for.
    pub fn restart(&mut self) {
        assert!(!self.process.is_running(), "stop it or kill it first");
        self.process = Running::start(&mut self.command);
    }
}

impl Deref for Worker {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.process
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.process
    }
}
