//! NATS, a gateway, a worker, and a browser in front of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::http;
use crate::support::nats::NatsServer;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Running, run, without_settings};
use crate::support::python;
use crate::support::wait::{PATIENCE, eventually};

/// A whole scenario on a loaded machine, the start of the browser included.
const SCENARIO: Duration = Duration::from_secs(180);

/// Field order is the order of the end.
pub struct Stage {
    pub workers: Vec<Running>,
    gateway: Option<Running>,
    command: Command,
    pub nats: NatsServer,
    port: PortLease,
}

impl Stage {
    /// NATS and a gateway.
    pub fn start() -> Stage {
        Stage::start_with(&["--dashboard-lang", "en"], &[])
    }

    /// With these flags and variables for the gateway.
    pub fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Stage {
        let nats = NatsServer::start();
        let port = PortLease::take();
        let mut command = Binary::Server.command();
        command
            .args(["up", "--port", &port.port().to_string(), "--nats-url", &nats.url()])
            .args(flags)
            .envs(environment.iter().copied());
        let mut stage = Stage { workers: Vec::new(), gateway: None, command, nats, port };
        stage.start_gateway();
        stage
    }

    /// Starts the gateway, again after [`Stage::stop_gateway`].
    pub fn start_gateway(&mut self) {
        let address = self.address();
        let gateway = self.gateway.insert(Running::start(&mut self.command));
        gateway.wait_for_port(address, PATIENCE);
        eventually(PATIENCE, "the gateway is ready", || {
            (http::get(address, "/readyz").status == 200).then_some(())
        });
    }

    /// Stops it as an operator would.
    pub fn stop_gateway(&mut self) {
        self.gateway.take().unwrap().stop(PATIENCE);
    }

    /// A worker of the tags `default` and `gpu` beside it.
    pub fn with_worker(self) -> Stage {
        self.with("worker-1", "default,gpu", &["--python", "off"])
    }

    /// One that executes the Python flows of the examples.
    pub fn with_python_worker(self) -> Stage {
        let python = python::python_08().display().to_string();
        let flows = folder().join("../../examples/python/flows.py");
        self.with_python(&python, &flows.canonicalize().unwrap())
    }

    /// The same with an interpreter and a file of one's choice.
    pub fn with_python(self, interpreter: &str, flows: &Path) -> Stage {
        let resolver = format!("{}:resolve_flow", flows.display());
        let flags = ["--python", interpreter, "--flow-resolver", &resolver];
        self.with("worker-1", "default,gpu", &flags)
    }

    /// One more worker.
    pub fn with(mut self, worker_id: &str, tags: &str, flags: &[&str]) -> Stage {
        let mut command = Binary::Worker.command();
        command.args(["--nats-url", &self.nats.url(), "--tags", tags]);
        command.args(["--worker-id", worker_id, "--concurrency", "2"]).args(flags);
        // Pyoco makes a folder for artifacts where it runs.
        command.current_dir(env!("CARGO_TARGET_TMPDIR"));
        self.workers.push(Running::start(&mut command));
        let address = self.address();
        eventually(PATIENCE, "the worker is there", || {
            let answer = http::get(address, "/workers");
            (answer.status == 200 && answer.text().contains(worker_id)).then_some(())
        });
        self
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.port()))
    }

    /// A key for a gateway that asks for them, once the gateway knows it.
    pub fn key(&self, role: &str) -> String {
        let mut command = Binary::Admin.command();
        command.args(["--nats-url", &self.nats.url(), "api-key", "create", "--tenant", "t"]);
        let made = run(command.args(["--role", role]), b"", PATIENCE);
        let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
        let key = made["api_key"].as_str().unwrap().to_owned();
        eventually(PATIENCE, "the key is known", || {
            let headers = [("X-API-Key", key.as_str())];
            let answer = http::request(self.address(), "GET", "/runs", &headers, b"");
            (answer.status == 200).then_some(())
        });
        key
    }

    /// Starts `browser/<name>.py` on this gateway.
    pub fn open(&self, name: &str) -> Running {
        self.open_with(name, &[])
    }

    /// The same with these variables.
    pub fn open_with(&self, name: &str, environment: &[(&str, &str)]) -> Running {
        let script = folder().join("browser").join(format!("{name}.py"));
        let mut command = without_settings(python::playwright());
        command
            .arg(script)
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYOCO_TEST_URL", format!("http://{}", self.address()))
            .env("PYOCO_TEST_CHROMIUM", chromium())
            .envs(environment.iter().copied());
        Running::start(&mut command)
    }

    /// Runs the scenario to its end, which must be a good one.
    pub fn play(&self, name: &str) {
        finish(self.open(name), name);
    }
}

/// Waits for the good end of a scenario.
pub fn finish(mut scenario: Running, name: &str) {
    let status = scenario.wait(SCENARIO);
    assert!(status.success(), "{name}: {status}\n{}{}", scenario.stdout(), scenario.stderr());
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard")
}

/// The browser: `PYOCO_TEST_CHROMIUM`, `CHROMIUM`, then PATH.
fn chromium() -> PathBuf {
    for variable in ["PYOCO_TEST_CHROMIUM", "CHROMIUM"] {
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            return PathBuf::from(path);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut candidates =
        std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| {
        panic!("no chromium; run `bash tests/setup.sh`, or name it with PYOCO_TEST_CHROMIUM")
    })
}
