//! Wheels: how fast a large one passes through the gateway, and how soon the code of a small one runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::client::{Client, ClientSettings, WheelUpload};
use pyoco_server::flow::python::visible_environment;
use pyoco_server::flow::{PythonExecutor, PythonSettings};
use pyoco_server::worker::WheelSyncSettings;
use pyoco_server::worker::wheels::Python;
use serde_json::json;

use crate::dispatch::Seen;
use crate::gateway::{Http, wait_ready};
use crate::measure::print;
use crate::setup::Setup;
use crate::wheel::WheelFile;

type Error = Box<dyn std::error::Error>;

/// The large wheel.
const LARGE_BYTES: usize = 200 * 1024 * 1024;
/// How often it is uploaded and downloaded.
const LARGE_ROUNDS: usize = 3;
/// New versions of the small one.
const VERSIONS: usize = 20;
/// New code that does not run by then never does.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(setup: &Setup) -> Result<(), Error> {
    let gateway = setup.gateway()?;
    let address = gateway.local_addr();
    wait_ready(address);
    let client = Client::new(ClientSettings {
        server: format!("http://{address}"),
        api_key: None,
        api_key_header: "X-API-Key".to_owned(),
        timeout: PATIENCE,
    })?;
    let folder = tempfile::tempdir()?;
    large(&client, address, folder.path())?;
    code(setup, &client, address, folder.path())?;
    gateway.stop(Duration::from_secs(2));
    Ok(())
}

/// Bytes that an archive does not make smaller, in both directions.
fn large(client: &Client, address: SocketAddr, folder: &Path) -> Result<(), Error> {
    let (mut up, mut down) = (Duration::ZERO, Duration::ZERO);
    for round in 0..LARGE_ROUNDS {
        let mut state = round as u64 + 1;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(LARGE_BYTES / 8)
        .flatten()
        .collect();
        let wheel = WheelFile::new("large", &format!("1.{round}")).file("noise", noise);
        let path = wheel.write_to(folder);
        let before = Instant::now();
        upload(client, &path)?;
        up += before.elapsed();
        let before = Instant::now();
        let head =
            format!("GET /wheels/{} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", wheel.file_name());
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(head.as_bytes())?;
        let mut received = 0;
        let mut piece = vec![0; 256 * 1024];
        loop {
            match stream.read(&mut piece)? {
                0 => break,
                count => received += count,
            }
        }
        assert!(received > LARGE_BYTES, "the download broke off at {received} bytes");
        down += before.elapsed();
        client.delete_wheel(&wheel.file_name())?;
        std::fs::remove_file(path)?;
    }
    for (what, took) in [("upload", up), ("download", down)] {
        let rate = (LARGE_ROUNDS * LARGE_BYTES) as f64 / took.as_secs_f64() / 1e6;
        println!("{:<44} {:>7} {rate:>9.0} MB/s", format!("{what} of a wheel of 200 MiB"), 1);
    }
    Ok(())
}

fn upload(client: &Client, path: &Path) -> Result<(), Error> {
    let upload = WheelUpload { path: path.to_owned(), tags: Vec::new(), replace: true };
    client.upload_wheel(&upload, &mut |_, _| {})?;
    Ok(())
}

/// From the answer to an upload until a run with the new code has ended.
fn code(setup: &Setup, client: &Client, address: SocketAddr, folder: &Path) -> Result<(), Error> {
    let interpreter = std::env::var("PYOCO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let environment = visible_environment(std::env::vars_os(), |_| false);
    let executor = PythonExecutor::new(PythonSettings {
        interpreter: interpreter.clone(),
        resolver: Some("bench_flows:resolve_flow".to_owned()),
        memory_limit: None,
        environment: environment.clone(),
        start_deadline: Duration::from_secs(60),
        max_value_bytes: setup.config.run.max_snapshot_bytes,
        term_grace: setup.config.run.term_grace,
    });
    let wheels = WheelSyncSettings {
        dir: folder.join("wheels"),
        interval: Duration::from_secs(10),
        install_timeout: Duration::from_secs(60),
        python: Python { program: interpreter, environment },
        executor: executor.clone(),
    };
    // Pyoco makes a folder for artifacts where it runs.
    let home = std::env::current_dir()?;
    std::env::set_current_dir(folder)?;
    upload(client, &version(0).write_to(folder))?;
    let seen = Seen::follow(setup)?;
    let worker = setup.worker_with(2, Arc::new(executor), Some(wheels))?;
    let mut http = Http::connect(address);
    until_it_runs(&mut http, &seen, 0)?;
    let begin = Instant::now();
    let mut latencies = Vec::new();
    for number in 1..=VERSIONS {
        upload(client, &version(number).write_to(folder))?;
        let before = Instant::now();
        until_it_runs(&mut http, &seen, number)?;
        latencies.push(before.elapsed());
    }
    print("wheel uploaded → a run with its code is done", 1, latencies, begin.elapsed());
    drop(worker);
    std::env::set_current_dir(home)?;
    Ok(())
}

fn version(number: usize) -> WheelFile {
    let text = format!(
        "import pyoco\n@pyoco.task\ndef one(ctx): return {number}\n\
         flow = pyoco.Flow(name='main')\nflow >> one\ndef resolve_flow(name): return flow\n"
    );
    WheelFile::new("bench_flows", &format!("1.{number}")).file("bench_flows.py", text)
}

/// Submits run after run until one has had this version.
fn until_it_runs(http: &mut Http, seen: &Seen, number: usize) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let (status, body) = http.post("/runs", r#"{"flow_name":"main"}"#);
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let run = answer["run_id"].as_str().unwrap_or_default().to_owned();
        seen.wait(&run, &seen.expect(&run));
        let (_, body) = http.get_text(&format!("/runs/{run}?include=records"));
        let run: serde_json::Value = serde_json::from_str(&body)?;
        if run["task_records"]["one"]["output"] == json!(number) {
            return Ok(());
        }
    }
    Err(format!("version {number} did not run within {PATIENCE:?}").into())
}
