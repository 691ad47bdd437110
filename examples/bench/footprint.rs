//! What a gateway costs at rest, and what a watcher adds: threads, descriptors, memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::{Http, wait_ready};
use crate::setup::Setup;

type Error = Box<dyn std::error::Error>;

const WATCHERS: usize = 200;
/// For the gateway to settle after its start, and after watchers have come.
const REST: Duration = Duration::from_secs(2);
/// For the gateway to say where it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures a gateway of its own, as a process: the figures of this one would count the bench, too.
pub fn run(setup: &Setup) -> Result<(), Error> {
    let Some(program) = program() else {
        println!("footprint: skipped, there is no pyoco-server beside this program (cargo build --release)");
        return Ok(());
    };
    let (gateway, address) = start(&program, &setup.url())?;
    wait_ready(address);
    std::thread::sleep(REST);
    let idle = Footprint::of(gateway.0.id())?;
    println!("gateway at rest: {idle}");
    let (_, accepted) = Http::connect(address).post("/runs", r#"{"flow_name":"bench","tag":"nobody"}"#);
    let accepted: serde_json::Value = serde_json::from_str(&accepted)?;
    let run_id = accepted["run_id"].as_str().ok_or("no run id")?;
    let before = Footprint::of(gateway.0.id())?;
    let watchers: Vec<TcpStream> = (0..WATCHERS).map(|_| watch(address, run_id)).collect::<Result<_, _>>()?;
    std::thread::sleep(REST);
    let with = Footprint::of(gateway.0.id())?;
    let each = |with: usize, before: usize| (with as f64 - before as f64) / WATCHERS as f64;
    println!("gateway with {WATCHERS} watchers: {with}");
    println!(
        "each watcher: {:.2} threads, {:.2} descriptors, {:.1} KiB",
        each(with.threads, before.threads),
        each(with.descriptors, before.descriptors),
        each(with.resident_kib, before.resident_kib),
    );
    drop(watchers);
    Ok(())
}

/// Ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `pyoco-server` of the same build: examples lie in a folder below the programs.
fn program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.parent()?.parent()?.join("pyoco-server");
    program.is_file().then_some(program)
}

fn start(program: &PathBuf, nats: &str) -> Result<(Running, SocketAddr), Error> {
    let mut child = Command::new(program)
        .args(["up", "--port", "0", "--nats-url", nats])
        .env("PYOCO_LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    let running = Running(child);
    let deadline = Instant::now() + PATIENCE;
    let mut lines = BufReader::new(stderr).lines();
    while Instant::now() < deadline {
        let line = lines.next().ok_or("the gateway has ended")??;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(address) = line["address"].as_str() {
            let address = address.parse()?;
            // It must always find a reader.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((running, address));
        }
    }
    Err("the gateway does not listen".into())
}

/// A stream whose first event has come.
fn watch(address: SocketAddr, run_id: &str) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /runs/{run_id}/watch?timeout_sec=60 HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    while !read.windows(15).any(|window| window == b"event: snapshot") {
        match stream.read(&mut piece)? {
            0 => return Err("a watch has ended".into()),
            count => read.extend_from_slice(&piece[..count]),
        }
    }
    Ok(stream)
}

/// What a process holds.
struct Footprint {
    threads: usize,
    descriptors: usize,
    resident_kib: usize,
}

impl Footprint {
    fn of(pid: u32) -> Result<Footprint, Error> {
        let count = |folder: &str| Ok::<_, Error>(std::fs::read_dir(folder)?.count());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.split_whitespace().next()).unwrap_or("0");
        Ok(Footprint {
            threads: count(&format!("/proc/{pid}/task"))?,
            descriptors: count(&format!("/proc/{pid}/fd"))?,
            resident_kib: resident.parse()?,
        })
    }
}

impl std::fmt::Display for Footprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = self.resident_kib as f64 / 1024.0;
        write!(f, "{} threads, {} descriptors, {mib:.1} MiB resident", self.threads, self.descriptors)
    }
}
