//! One nats-server, and whichever gateways, workers and clients a test puts on it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pyoco_server::model::clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::flows::{FLOWS_PY, STEPS_PY};
use crate::python_environment::PythonEnvironment;
use crate::support::http;
use crate::support::nats::NatsServer;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::python::{package_program, python_08};
use crate::support::wait::{PATIENCE, eventually};

/// Longest wait for a run: a delivery that the Python worker loses comes again after 30 s.
const RUN_PATIENCE: Duration = Duration::from_secs(75);

/// What makes a gateway of either kind ask for keys.
pub const ASKING: [(&str, &str); 2] =
    [("PYOCO_HTTP_AUTH_MODE", "api_key"), ("PYOCO_AUTH_PEPPER", "pepper-of-both")];

/// Where everything of one test lives. Declared first, dropped last.
pub struct Site {
    /// Its NATS.
    pub nats: NatsServer,
    directory: TempDir,
}

impl Site {
    /// A nats-server, and a folder with the flows.
    pub fn start() -> Site {
        let directory = tempfile::Builder::new().prefix("pyoco-interop-").tempdir().unwrap();
        let site = Site { nats: NatsServer::start(), directory };
        site.write("flows.py", FLOWS_PY);
        site.write("steps.py", STEPS_PY);
        site
    }

    /// Writes a file to the folder in which all programs run; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The folder in which all programs run.
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a program in the site's folder, against the site's NATS.
    pub fn place(&self, mut command: Command) -> Command {
        command.current_dir(self.directory.path()).env("PYOCO_NATS_URL", self.nats.url());
        command
    }

    /// Our gateway, ready.
    pub fn our_gateway(&self) -> Gateway {
        self.gateway(Binary::Server.command(), "/readyz")
    }

    /// The gateway of the Python package, alive; it has no readiness.
    pub fn python_gateway(&self) -> Gateway {
        self.gateway(package_program("pyoco-server"), "/health")
    }

    /// Our gateway, asking for API keys.
    pub fn our_asking_gateway(&self) -> Gateway {
        let mut command = Binary::Server.command();
        command.envs(ASKING);
        self.gateway(command, "/readyz")
    }

    /// The gateway of the Python package, asking for API keys.
    pub fn python_asking_gateway(&self) -> Gateway {
        let mut command = package_program("pyoco-server");
        command.envs(ASKING);
        self.gateway(command, "/health")
    }

    fn gateway(&self, command: Command, path: &str) -> Gateway {
        let port = PortLease::take();
        let address = SocketAddr::from(([127, 0, 0, 1], port.port()));
        let mut command = self.place(command);
        command.args(["up", "--host", "127.0.0.1", "--port", &port.port().to_string()]);
        let mut process = Running::start(&mut command);
        process.wait_for_port(address, PATIENCE);
        eventually(PATIENCE, &format!("200 for {path}"), || {
            (http::get(address, path).status == 200).then_some(())
        });
        Gateway { address, _process: process, _port: port }
    }

    /// The worker of the Python package, with wheels of the registry in an environment of its own.
    pub fn python_wheel_worker(&self, environment: &PythonEnvironment, tag: &str) -> Running {
        let mut command = self.place(environment.program("pyoco-worker"));
        command.args(["--tags", tag, "--worker-id", "python"]);
        command.args(["--flow-resolver", "flows.py:resolve_flow"]);
        command.env("PYTHONPATH", self.folder());
        command.env("PYOCO_WHEEL_SYNC_ENABLED", "1").env("PYOCO_WHEEL_SYNC_INTERVAL_SEC", "1");
        command.env("PYOCO_WHEEL_SYNC_DIR", self.folder().join("wheels-of-python"));
        Running::start(&mut command)
    }

    /// Our worker, with wheels of the registry.
    pub fn our_wheel_worker(&self, tag: &str) -> Running {
        let mut command = self.place(Binary::Worker.command());
        command.args(["--tags", tag, "--worker-id", "ours", "--wheel-sync", "--wheel-sync-dir"]);
        command.arg(self.folder().join("wheels-of-ours"));
        command.arg("--python").arg(python_08());
        Running::start(&mut command)
    }

    /// The worker of the Python package, with the resolver of `flows.py`. It takes its jobs from the
    /// queue whenever it is up, so nobody waits for it here.
    pub fn python_worker(&self, tag: &str) -> Running {
        let mut command = self.place(package_program("pyoco-worker"));
        command.args(["--tags", tag, "--worker-id", "python"]);
        command.args(["--flow-resolver", "flows.py:resolve_flow"]);
        // It looks for modules neither in its working directory nor beside the resolver's file.
        command.env("PYTHONPATH", self.folder());
        Running::start(&mut command)
    }
}

/// A gateway on a port of its own, ours or Python's.
pub struct Gateway {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Running,
    _port: PortLease,
}

impl Gateway {
    /// Submits a run by the name of its flow; its id.
    pub fn submit(&self, tag: &str, flow_name: &str, params: Value) -> String {
        let body = json!({"flow_name": flow_name, "tag": tag, "params": params});
        accepted(&http::post_json(self.address, "/runs", &body))
    }

    /// Submits a run with its document; its id.
    pub fn submit_yaml(&self, tag: &str, flow_name: &str, document: &str) -> String {
        accepted(&self.post_yaml(tag, flow_name, document))
    }

    /// Sends a document, whatever the answer is.
    pub fn post_yaml(&self, tag: &str, flow_name: &str, document: &str) -> http::Response {
        const LINE: &str = "--of-a-form";
        let field = "\r\nContent-Disposition: form-data; name=";
        let body = format!(
            "{LINE}{field}\"flow_name\"\r\n\r\n{flow_name}\r\n\
             {LINE}{field}\"tag\"\r\n\r\n{tag}\r\n\
             {LINE}{field}\"workflow\"; filename=\"flow.yaml\"\r\n\r\n{document}\r\n{LINE}--\r\n"
        );
        let content_type = format!("multipart/form-data; boundary={}", &LINE[2..]);
        let headers = [("Content-Type", content_type.as_str())];
        http::request(self.address, "POST", "/runs/yaml", &headers, body.as_bytes())
    }

    /// What it answers to a GET, which must be a 200.
    pub fn get(&self, path: &str) -> Value {
        let answer = http::get(self.address, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A run with its records.
    pub fn run(&self, run_id: &str) -> Value {
        self.get(&format!("/runs/{run_id}?include=records"))
    }

    /// Asks for a cancel; the answer must be a 200.
    pub fn cancel(&self, run_id: &str) -> Value {
        let path = format!("/runs/{run_id}/cancel");
        let answer = http::post_json(self.address, &path, &json!({"reason": "a test"}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until a run has ended; the run with its records.
    pub fn ended(&self, run_id: &str) -> Value {
        self.wait(run_id, "to end", |run| {
            ["COMPLETED", "FAILED", "CANCELLED"].map(Value::from).contains(&run["status"])
        })
    }

    /// Waits until nothing is written to ended runs any more, which moves them in lists: the Python
    /// worker repeats the last snapshot of a run for half a second.
    pub fn at_rest(&self, run_ids: &[&str]) {
        for run_id in run_ids {
            self.wait(run_id, "to rest", |run| {
                run["updated_at"].as_f64().is_some_and(|at| clock::now() - at > 1.5)
            });
        }
    }

    /// Waits until a task of a run is RUNNING.
    pub fn task_runs(&self, run_id: &str, task: &str) {
        self.wait(run_id, "to execute its task", |run| run["tasks"][task] == "RUNNING");
    }

    /// The same for a run of the Python worker, which must not be cancelled at once: what it writes a
    /// quarter of a second after a task has started overwrites a cancel that came in between.
    pub fn task_runs_in_python(&self, run_id: &str, task: &str) {
        self.wait(run_id, "to execute its task", |run| {
            let started = run["task_records"][task]["started_at"].as_f64();
            let written = run["heartbeat_at"].as_f64();
            let is_late = started.zip(written).is_some_and(|(began, now)| now > began + 0.2);
            run["tasks"][task] == "RUNNING" && is_late
        });
    }

    fn wait(&self, run_id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        eventually(RUN_PATIENCE * 2, &format!("run {run_id} {what}"), || {
            let run = self.run(run_id);
            assert!(
                began.elapsed() < RUN_PATIENCE,
                "waiting for a run {what}, which is still {run}"
            );
            wanted(&run).then_some(run)
        })
    }
}

fn accepted(answer: &http::Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["status"], "PENDING");
    answer["run_id"].as_str().unwrap().to_owned()
}

/// A command-line client with the address of a gateway.
pub struct Client<'a> {
    site: &'a Site,
    program: fn() -> Command,
    server: String,
}

impl<'a> Client<'a> {
    /// `pyoco-client` of the Python package.
    pub fn python(site: &'a Site, gateway: &Gateway) -> Client<'a> {
        let server = format!("http://{}", gateway.address);
        Client { site, program: || package_program("pyoco-client"), server }
    }

    /// Ours.
    pub fn ours(site: &'a Site, gateway: &Gateway) -> Client<'a> {
        let server = format!("http://{}", gateway.address);
        Client { site, program: || Binary::Client.command(), server }
    }

    /// Runs it to its end.
    pub fn finish(&self, arguments: &[&str]) -> Finished {
        let mut command = self.site.place((self.program)());
        run(command.args(["--server", &self.server]).args(arguments), b"", RUN_PATIENCE * 2)
    }

    /// Its stdout; it must succeed.
    pub fn text(&self, arguments: &[&str]) -> String {
        let finished = self.finish(arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
        finished.stdout
    }

    /// The last JSON document on its stdout; it must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(arguments);
        let whole = serde_json::from_str(&text);
        whole
            .or_else(|_| serde_json::from_str(text.lines().last().unwrap_or_default()))
            .unwrap_or_else(|error| panic!("{arguments:?}: not JSON ({error}): {text}"))
    }
}

/// The run ids of a list.
pub fn ids(list: &Value) -> Vec<&str> {
    list.as_array().expect("no list").iter().map(|run| run["run_id"].as_str().unwrap()).collect()
}
