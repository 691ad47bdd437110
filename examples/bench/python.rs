//! Runs of a Python flow, beside what one start of the interpreter per run would cost.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use pyoco_server::flow::python::visible_environment;
use pyoco_server::flow::{PythonExecutor, PythonSettings};

use crate::dispatch::Seen;
use crate::gateway::{Http, wait_ready};
use crate::measure::print;
use crate::setup::Setup;

/// Runs that are submitted one after the other.
const SINGLE_RUNS: usize = 300;
/// Runs of the burst, and how many of them run at the same time.
const BURST_RUNS: usize = 500;
const SLOTS: usize = 2;
/// Starts of an interpreter for comparison.
const STARTS: usize = 40;

const FLOWS: &str = "
import pyoco
@pyoco.task
def one(ctx): return {'n': ctx.params['n']}
flow = pyoco.Flow(name='main')
flow >> one
def resolve_flow(name): return flow
";

pub fn run(setup: &Setup) -> Result<(), Box<dyn std::error::Error>> {
    let interpreter = std::env::var("PYOCO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("flows.py");
    std::fs::write(&file, FLOWS)?;
    let executor = PythonExecutor::new(PythonSettings {
        interpreter: interpreter.clone(),
        resolver: Some(format!("{}:resolve_flow", file.display())),
        memory_limit: None,
        environment: visible_environment(std::env::vars_os(), |_| false),
        start_deadline: Duration::from_secs(60),
        max_value_bytes: setup.config.run.max_snapshot_bytes,
        term_grace: setup.config.run.term_grace,
    });
    if let Err(e) = executor.warm_up() {
        println!("no Python runs: {e}");
        return Ok(());
    }
    // Pyoco makes a folder for artifacts where it runs.
    let home = std::env::current_dir()?;
    std::env::set_current_dir(&folder)?;
    starts(&interpreter, "pass")?;
    starts(&interpreter, "import pyoco")?;
    flows(setup, executor)?;
    std::env::set_current_dir(home)?;
    Ok(())
}

/// What each run would cost at least if it had an interpreter of its own.
fn starts(interpreter: &str, code: &str) -> std::io::Result<()> {
    let begin = Instant::now();
    let mut latencies = Vec::new();
    for _ in 0..STARTS {
        let before = Instant::now();
        let status = Command::new(interpreter)
            .args(["-c", code])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        assert!(status.success(), "{interpreter} -c {code:?}: {status}");
        latencies.push(before.elapsed());
    }
    print(&format!("for comparison: python3 -c \"{code}\""), 1, latencies, begin.elapsed());
    Ok(())
}

fn flows(setup: &Setup, executor: PythonExecutor) -> Result<(), Box<dyn std::error::Error>> {
    let gateway = setup.gateway()?;
    let address = gateway.local_addr();
    wait_ready(address);
    let seen = Seen::follow(setup)?;
    let worker = setup.worker_with(SLOTS, Arc::new(executor), None)?;
    let mut http = Http::connect(address);
    let (run, ended) = submit(&mut http, &seen);
    seen.wait(&run, &ended);

    let begin = Instant::now();
    let mut latencies = Vec::new();
    for _ in 0..SINGLE_RUNS {
        let before = Instant::now();
        let (run, ended) = submit(&mut http, &seen);
        let (_, completed) = seen.wait(&run, &ended);
        latencies.push(completed.saturating_duration_since(before));
    }
    print("Python run, submit → COMPLETED seen", 1, latencies, begin.elapsed());

    let begin = Instant::now();
    let runs: Vec<_> = (0..BURST_RUNS).map(|_| submit(&mut http, &seen)).collect();
    for (run, ended) in &runs {
        seen.wait(run, ended);
    }
    let took = begin.elapsed();
    println!(
        "{:<44} {:>7} {:>12.0}   ({BURST_RUNS} runs in {:.2} s)",
        "Python runs per second, 2 slots",
        SLOTS,
        BURST_RUNS as f64 / took.as_secs_f64(),
        took.as_secs_f64()
    );
    drop(worker);
    gateway.stop(Duration::from_secs(2));
    Ok(())
}

fn submit(http: &mut Http, seen: &Seen) -> (String, Receiver<()>) {
    let (status, body) = http.post("/runs", r#"{"flow_name":"main","params":{"n":1}}"#);
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("the answer is JSON");
    let run = answer["run_id"].as_str().expect("it names the run").to_owned();
    let ended = seen.expect(&run);
    (run, ended)
}
