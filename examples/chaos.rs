//! Counts lost runs while processes are killed: gateways, workers and NATS, again and again.
//!
//! ```text
//! cargo build --release --bins
//! cargo run --release --example chaos -- 20000
//! ```
//! Starts a nats-server that writes through to the disk, a gateway and three workers, submits the
//! given number of runs from eight clients, and kills one process after the other with SIGKILL
//! meanwhile. At the end every run that was answered with 200 must have reached a terminal state.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pyoco_server::bus::{Bus, Entry, WatchEvent};
use pyoco_server::config::{Config, Source};
use pyoco_server::model::json;
use pyoco_server::model::run::{RunSnapshot, RunStatus};

type Error = Box<dyn std::error::Error>;

const WORKFLOW: &str = "flow: {graph: one >> two}\ntasks:\n  one: {use: builtin/echo}\n  \
    two: {use: builtin/sleep, inputs: {seconds: 0.02}}\n";
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(3);
/// After the last submit, for all runs to end: ack_wait and a few redeliveries.
const SETTLE: Duration = Duration::from_secs(180);

fn main() -> Result<(), Error> {
    let wanted: u64 = std::env::args().nth(1).map_or(Ok(5_000), |n| n.parse())?;
    let store = tempfile::tempdir()?;
    let cast = Cast::new(store.path().to_owned())?;
    let mut processes: Vec<Process> =
        (0..cast.roles()).map(|role| cast.start(role)).collect::<Result<_, _>>()?;
    let tally = Tally::default();
    let submitting = AtomicBool::new(true);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| submit_until(&cast, &tally, wanted))).collect();
        let killer = scope.spawn(|| kill_in_turn(&cast, &mut processes, &submitting, &tally));
        for client in clients {
            let _ = client.join();
        }
        submitting.store(false, Ordering::SeqCst);
        let _ = killer.join();
    });
    println!("submitted in {:.0} s; waiting for the runs to end", begin.elapsed().as_secs_f64());
    let lost = cast.count_unfinished(&tally)?;
    drop(processes);
    if lost > 0 {
        return Err(format!("{lost} runs were lost").into());
    }
    Ok(())
}

/// What happened, as the clients saw it.
#[derive(Default)]
struct Tally {
    accepted: Mutex<Vec<String>>,
    refused: AtomicU64,
    kills: AtomicU64,
}

/// The programs and where they listen.
struct Cast {
    bin: PathBuf,
    store: PathBuf,
    nats_port: u16,
    port: u16,
}

/// A program that can be killed and started again.
struct Process {
    role: usize,
    child: Child,
}

impl Cast {
    fn new(store: PathBuf) -> Result<Cast, Error> {
        let bin = std::env::current_exe()?;
        let bin = bin.parent().and_then(|examples| examples.parent()).ok_or("no target folder")?;
        if !bin.join("pyoco-worker").exists() {
            return Err("build the programs first: cargo build --release --bins".into());
        }
        Ok(Cast { bin: bin.to_owned(), store, nats_port: free_port()?, port: free_port()? })
    }

    /// 0 is NATS, 1 the gateway, the others are workers.
    fn roles(&self) -> usize {
        5
    }

    fn start(&self, role: usize) -> Result<Process, Error> {
        let nats_url = format!("nats://127.0.0.1:{}", self.nats_port);
        let mut command = match role {
            0 => {
                let server = std::env::var("PYOCO_NATS_SERVER_BIN");
                let mut command = Command::new(server.unwrap_or_else(|_| "nats-server".into()));
                let config = self.store.join("nats.conf");
                std::fs::write(
                    &config,
                    format!(
                        "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
                        self.nats_port,
                        self.store.join("data").display().to_string()
                    ),
                )?;
                command.arg("-c").arg(config);
                command
            }
            1 => {
                let mut command = Command::new(self.bin.join("pyoco-server"));
                command.args(["up", "--port", &self.port.to_string(), "--nats-url", &nats_url]);
                command
            }
            worker => {
                let mut command = Command::new(self.bin.join("pyoco-worker"));
                let id = format!("chaos-{worker}");
                command.args(["--worker-id", &id, "--nats-url", &nats_url, "--concurrency", "4"]);
                command
            }
        };
        let child = command
            .env("PYOCO_LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Process { role, child })
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Follows the bucket until every accepted run has ended, and says how many have not.
    fn count_unfinished(&self, tally: &Tally) -> Result<usize, Error> {
        let mut config = Config::load(&Source::default()).config;
        config.nats.url = format!("nats://127.0.0.1:{}", self.nats_port);
        let bus = Bus::start(&config.nats, &config.resources)?;
        let states: &'static Mutex<HashMap<String, (RunStatus, u64)>> = Box::leak(Box::default());
        let _watch = bus.runs().watch(move |event| {
            if let WatchEvent::Entry(Entry { value, .. }) = event
                && let Ok(run) = json::from_wire::<RunSnapshot>(&value)
                && let Ok(mut states) = states.lock()
            {
                states.insert(run.run_id, (run.status, run.attempt.unwrap_or(0)));
            }
        })?;
        let accepted = tally.accepted.lock().map_err(|e| e.to_string())?;
        let deadline = Instant::now() + SETTLE;
        loop {
            let states = states.lock().map_err(|e| e.to_string())?;
            let found: Vec<_> = accepted.iter().map(|id| states.get(id)).collect();
            let terminal = |s: &&(RunStatus, u64)| s.0.is_terminal();
            let ended = found.iter().flatten().filter(|s| terminal(s)).count();
            if ended == accepted.len() || Instant::now() > deadline {
                let count = |status| found.iter().flatten().filter(|s| s.0 == status).count();
                println!(
                    "{} kills; {} runs accepted, {} requests refused; {} COMPLETED, {} FAILED, {} in a \
                     second or later attempt, {} not ended, {} unknown",
                    tally.kills.load(Ordering::Relaxed),
                    accepted.len(),
                    tally.refused.load(Ordering::Relaxed),
                    count(RunStatus::Completed),
                    count(RunStatus::Failed),
                    found.iter().flatten().filter(|s| s.1 > 1).count(),
                    found.iter().flatten().filter(|s| !terminal(s)).count(),
                    found.iter().filter(|s| s.is_none()).count(),
                );
                return Ok(accepted.len() - ended);
            }
            drop(states);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill_in_turn(cast: &Cast, processes: &mut [Process], submitting: &AtomicBool, tally: &Tally) {
    for turn in 0.. {
        std::thread::sleep(KILL_EVERY);
        if !submitting.load(Ordering::SeqCst) {
            return;
        }
        let process = &mut processes[turn % cast.roles()];
        let role = process.role;
        let _ = process.child.kill();
        let _ = process.child.wait();
        tally.kills.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        match cast.start(role) {
            Ok(started) => *process = started,
            Err(e) => eprintln!("cannot start role {role} again: {e}"),
        }
    }
}

fn submit_until(cast: &Cast, tally: &Tally, wanted: u64) {
    let client = pyoco_server::client::Client::new(pyoco_server::client::ClientSettings {
        server: format!("http://{}", cast.address()),
        api_key: None,
        api_key_header: "X-API-Key".to_owned(),
        timeout: Duration::from_secs(10),
    });
    let Ok(client) = client else { return };
    loop {
        if tally.accepted.lock().is_ok_and(|accepted| accepted.len() as u64 >= wanted) {
            return;
        }
        match client.submit_yaml("chaos", None, WORKFLOW.as_bytes(), None) {
            Ok(answer) => {
                let id = answer["run_id"].as_str().unwrap_or_default().to_owned();
                if let Ok(mut accepted) = tally.accepted.lock() {
                    accepted.push(id);
                }
            }
            Err(_) => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
