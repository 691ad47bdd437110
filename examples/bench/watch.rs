//! How soon a watcher sees what was written, and what a scrape costs.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use pyoco_server::bus::Kv;
use pyoco_server::model::clock;
use pyoco_server::model::json;
use pyoco_server::model::run::RunSnapshot;

use crate::gateway::{Http, fill, wait_listed, wait_ready};
use crate::measure::{print, row};
use crate::setup::Setup;

/// Writes per row.
const WRITES: u32 = 500;
/// For an event that should come within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(setup: &Setup) -> Result<(), Box<dyn std::error::Error>> {
    let gateway = setup.gateway()?;
    let address = gateway.local_addr();
    wait_ready(address);
    let runs = setup.bus.runs();
    write(&runs, 0)?;
    for watchers in [1, 50] {
        // From before the write, so the time that NATS takes to store it is in it.
        let streams: Vec<_> =
            (0..watchers).map(|_| ids(address, "/runs/watched/watch?timeout_sec=600")).collect();
        let begun = Instant::now();
        let mut latencies = Vec::new();
        for n in 1..=WRITES {
            let before = Instant::now();
            let revision = write(&runs, n)?;
            for stream in &streams {
                latencies.push(seen(stream, revision)? - before);
            }
        }
        let what = format!("KV write to event, {watchers} watching");
        print(&what, watchers, latencies, begun.elapsed());
    }
    let have = 10_000;
    fill(setup, have)?;
    wait_listed(address, have);
    for clients in [1, 4] {
        row("GET /metrics, 10000 runs", clients, |_| {
            let mut http = Http::connect(address);
            move |_| http.get("/metrics") == 200
        });
    }
    gateway.stop(Duration::from_secs(2));
    Ok(())
}

fn write(runs: &Kv, n: u32) -> Result<u64, Box<dyn std::error::Error>> {
    let mut run = RunSnapshot::pending("watched".into(), "main".into(), "default".into(), clock::now());
    run.params.insert("n".into(), n.into());
    Ok(runs.put("watched", &json::to_wire(&run)?)?)
}

/// The ids of a stream's events, with when they came; the reader ends with the stream.
fn ids(address: SocketAddr, path: &str) -> Receiver<(u64, Instant)> {
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_nodelay(true).expect("a TCP socket takes it");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    let (sender, ids) = unbounded();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let id = line.strip_prefix("id: ").and_then(|id| id.trim().parse().ok());
            if let Some(id) = id
                && sender.send((id, Instant::now())).is_err()
            {
                return;
            }
        }
    });
    // The present snapshot: from here on the stream is open.
    ids.recv_timeout(PATIENCE).expect("a watch begins with the present snapshot");
    ids
}

fn seen(ids: &Receiver<(u64, Instant)>, revision: u64) -> Result<Instant, Box<dyn std::error::Error>> {
    loop {
        let (id, at) = ids.recv_timeout(PATIENCE)?;
        if id >= revision {
            return Ok(at);
        }
    }
}
