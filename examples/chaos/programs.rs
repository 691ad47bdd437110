//! Two gateways and three workers, each with a link of its own to NATS.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyoco_server::client::{Client, ClientSettings, WorkersQuery};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Error;
use super::nats::{Nats, PASSWORD, free_port, program};
use super::relay::Relay;
use super::worker::{JOURNAL, PYTHON_FLOWS, WORKER};

/// SIGTERM to the end of a program: the drain of a worker and what comes after it.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Start to readiness, also of Python workers.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// For a request of a client.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a program is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Gateway {
        port: u16,
    },
    Native,
    /// With the path of an interpreter.
    Python(String),
}

/// A program that can be killed and started again.
pub struct Program {
    pub name: String,
    pub kind: Kind,
    pub link: Relay,
    child: Option<Child>,
}

/// What a process holds.
#[derive(Clone, Debug)]
pub struct Holdings {
    pub resident_kib: u64,
    pub threads: usize,
    pub descriptors: usize,
}

/// How workers are started.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub tag: &'static str,
    pub concurrency: usize,
    /// `None`: the product's own.
    pub ack_wait_sec: Option<u64>,
}

/// Everything that runs, and where it keeps its files.
pub struct Installation {
    pub nats: Nats,
    pub programs: Vec<Program>,
    pub options: WorkerOptions,
    pub dir: PathBuf,
    bin: PathBuf,
}

impl Installation {
    /// NATS and two gateways, ready; the workers come with [`Installation::start_workers`].
    pub fn start(dir: &Path, pythons: [Option<String>; 2], options: WorkerOptions) -> Result<Self, Error> {
        let bin = std::env::current_exe()?;
        let bin = bin.parent().and_then(Path::parent).ok_or("no target folder")?.to_owned();
        if !bin.join("pyoco-worker").exists() {
            return Err("build the programs first: cargo build --bins, with --release as here".into());
        }
        fs::write(dir.join("flows.py"), PYTHON_FLOWS)?;
        let nats = Nats::start(dir)?;
        let init = Command::new(bin.join("pyoco-server-admin"))
            .arg("init")
            .envs(settings(&format!("nats://127.0.0.1:{}", nats.port), "admin"))
            .output()?;
        if !init.status.success() {
            return Err(format!("init has failed: {}", String::from_utf8_lossy(&init.stdout)).into());
        }
        let python = |python: Option<String>| python.map_or(Kind::Native, Kind::Python);
        let [old, new] = pythons;
        let programs = [
            ("gateway-1", Kind::Gateway { port: free_port()? }),
            ("gateway-2", Kind::Gateway { port: free_port()? }),
            ("worker-1", Kind::Native),
            ("worker-2", python(old)),
            ("worker-3", python(new)),
        ];
        let program = |(name, kind): (&str, Kind)| {
            Ok(Program { name: name.to_owned(), kind, link: Relay::start(nats.port)?, child: None })
        };
        let programs = programs.into_iter().map(program).collect::<Result<_, Error>>()?;
        let mut all = Installation { nats, programs, options, dir: dir.to_owned(), bin };
        for gateway in all.gateways() {
            all.launch(gateway)?;
        }
        let deadline = Instant::now() + READY_DEADLINE;
        while !all.urls().iter().all(|url| client(url).is_ok_and(|c| c.ready().is_ok())) {
            all.patience(deadline, "the gateways are ready")?;
        }
        Ok(all)
    }

    /// Starts all workers, or again with other options; returns when the gateway shows them at work.
    pub fn start_workers(&mut self, options: WorkerOptions) -> Result<(), Error> {
        self.options = options;
        for worker in self.workers() {
            self.stop(worker)?;
            self.launch(worker)?;
        }
        let client = client(&self.urls()[0])?;
        let deadline = Instant::now() + READY_DEADLINE;
        while self.count_at_work(&client) < self.workers().len() {
            self.patience(deadline, "the workers are ready")?;
        }
        Ok(())
    }

    /// How many workers of the present tag the gateway shows at work.
    pub fn count_at_work(&self, client: &Client) -> usize {
        let list = client.workers(&WorkersQuery::default()).unwrap_or_default();
        let at_work = |w: &&Value| {
            w["tags"][0] == self.options.tag && matches!(w["state"].as_str(), Some("IDLE" | "RUNNING"))
        };
        list.as_array().map_or(0, |list| list.iter().filter(at_work).count())
    }

    fn patience(&self, deadline: Instant, what: &str) -> Result<(), Error> {
        std::thread::sleep(Duration::from_millis(100));
        if Instant::now() > deadline {
            return Err(format!("waited in vain until {what}; the logs are in {}", self.dir.display()).into());
        }
        Ok(())
    }

    /// Indices of the gateways.
    pub fn gateways(&self) -> Vec<usize> {
        (0..self.programs.len()).filter(|&n| matches!(self.programs[n].kind, Kind::Gateway { .. })).collect()
    }

    /// Indices of the workers.
    pub fn workers(&self) -> Vec<usize> {
        (0..self.programs.len()).filter(|&n| !matches!(self.programs[n].kind, Kind::Gateway { .. })).collect()
    }

    /// Where the gateways are.
    pub fn urls(&self) -> Vec<String> {
        let url = |p: &Program| match p.kind {
            Kind::Gateway { port } => Some(format!("http://127.0.0.1:{port}")),
            _ => None,
        };
        self.programs.iter().filter_map(url).collect()
    }

    /// Starts a program that does not run.
    pub fn launch(&mut self, n: usize) -> Result<(), Error> {
        let (program, options) = (&self.programs[n], &self.options);
        let home = self.dir.join(&program.name);
        fs::create_dir_all(&home)?;
        let mut command = match &program.kind {
            Kind::Gateway { port } => {
                let mut command = Command::new(self.bin.join("pyoco-server"));
                command.args(["up", "--host", "127.0.0.1", "--port", &port.to_string()]);
                command.envs(settings(&program.link.url(), "gateway"));
                command
            }
            Kind::Native => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("worker").envs(settings(&program.link.url(), "worker"));
                command
            }
            Kind::Python(python) => {
                let mut command = Command::new(self.bin.join("pyoco-worker"));
                command.args(["--worker-id", &program.name, "--python", python, "--drain-timeout-sec", "10"]);
                command.arg("--flow-resolver");
                command.arg(format!("{}:resolve_flow", self.dir.join("flows.py").display()));
                command.envs(settings(&program.link.url(), "worker")).env("PYOCO_RUN_ENV", "CHAOS_*");
                command
            }
        };
        command.env("PYOCO_DEFAULT_TAG", options.tag);
        command.env("PYOCO_WORKER_CONCURRENCY", options.concurrency.to_string());
        if let Some(seconds) = options.ack_wait_sec {
            command.env("PYOCO_CONSUMER_ACK_WAIT_SEC", seconds.to_string());
        }
        command.env(JOURNAL, self.journal()).env(WORKER, &program.name).current_dir(home);
        command.stdout(Stdio::null()).stderr(log_file(&self.dir, &program.name)?);
        self.programs[n].child = Some(command.spawn()?);
        Ok(())
    }

    /// The file in which tasks leave their lines.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// SIGKILL.
    pub fn kill(&mut self, n: usize) -> Result<(), Error> {
        if let Some(mut child) = self.programs[n].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM; an exit that is late or not clean is an error.
    pub fn stop(&mut self, n: usize) -> Result<(), Error> {
        let name = self.programs[n].name.clone();
        let Some(mut child) = self.programs[n].child.take() else { return Ok(()) };
        send(&child, Signal::TERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{name} ended after SIGTERM with {status}").into()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        child.kill()?;
        child.wait()?;
        Err(format!("{name} did not end within {STOP_DEADLINE:?} of SIGTERM").into())
    }

    /// Any signal to a program that runs.
    pub fn signal(&self, n: usize, signal: Signal) -> Result<(), Error> {
        self.programs[n].child.as_ref().map_or(Ok(()), |child| send(child, signal))
    }

    /// Names of programs that have ended by themselves.
    pub fn ended(&mut self) -> Vec<String> {
        let has_ended =
            |p: &mut Program| p.child.as_mut().is_none_or(|c| c.try_wait().is_ok_and(|s| s.is_some()));
        self.programs.iter_mut().filter_map(|p| has_ended(p).then(|| p.name.clone())).collect()
    }

    /// What each program holds now.
    pub fn holdings(&self) -> Vec<Holdings> {
        let pids = self.programs.iter().map(|p| p.child.as_ref().map_or(0, Child::id));
        pids.map(holdings).collect()
    }

    /// How many processes there are in the folders of the programs: they, and those of their runs.
    pub fn processes(&self) -> usize {
        let is_ours = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&self.dir))
        };
        fs::read_dir("/proc").map_or(0, |entries| entries.flatten().filter(is_ours).count())
    }

    /// The versions of what runs.
    pub fn versions(&self) -> Vec<String> {
        let first_line = |command: &mut Command| {
            let output = command.output().ok();
            let text = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
            text.filter(|text| !text.is_empty()).unwrap_or_else(|| "?".to_owned())
        };
        let mut versions = vec![
            first_line(Command::new(self.bin.join("pyoco-server")).arg("--version")),
            first_line(Command::new(program()).arg("--version")),
        ];
        for program in &self.programs {
            match &program.kind {
                Kind::Python(python) => {
                    let code = "import importlib.metadata as m; print(m.version('pyoco'))";
                    let version = first_line(Command::new(python).args(["-c", code]));
                    versions.push(format!("{} with pyoco {version}", program.name));
                }
                Kind::Native => versions.push(format!("{} native", program.name)),
                Kind::Gateway { .. } => {}
            }
        }
        versions
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for n in 0..self.programs.len() {
            // It may have ended by itself.
            let _ = self.kill(n);
        }
    }
}

fn settings(url: &str, user: &str) -> Vec<(&'static str, String)> {
    vec![
        ("PYOCO_NATS_URL", url.to_owned()),
        ("PYOCO_NATS_USER", user.to_owned()),
        ("PYOCO_NATS_PASSWORD", PASSWORD.to_owned()),
        ("PYOCO_LOAD_DOTENV", "0".to_owned()),
    ]
}

/// A file to which a program's log is added.
pub fn log_file(dir: &Path, name: &str) -> Result<File, Error> {
    Ok(OpenOptions::new().create(true).append(true).open(dir.join(format!("{name}.log")))?)
}

/// Sends a signal to a child that has not been waited for.
pub fn send(child: &Child, signal: Signal) -> Result<(), Error> {
    let pid = Pid::from_raw(child.id().try_into()?).ok_or("no process")?;
    Ok(kill_process(pid, signal)?)
}

/// A client of one gateway.
pub fn client(url: &str) -> Result<Client, Error> {
    let settings = ClientSettings {
        server: url.to_owned(),
        api_key: None,
        api_key_header: "X-API-Key".to_owned(),
        timeout: REQUEST_TIMEOUT,
    };
    Ok(Client::new(settings)?)
}

fn holdings(pid: u32) -> Holdings {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Holdings {
        resident_kib: field("VmRSS:"),
        threads: usize::try_from(field("Threads:")).unwrap_or(0),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
    }
}
