//! Breaks everything around accepted runs, again and again, and counts the runs that are lost.
//!
//! ```text
//! cargo build --release --bins
//! cargo run --release --example chaos -- --runs 100000 --seed 1
//! cargo run --example chaos -- --runs 2000                        four minutes, also as a debug build
//! ```
//! Starts a nats-server, two gateways and three workers: a native one, and two with Python when
//! `PYOCO_TEST_PYTHON_06` and `PYOCO_TEST_PYTHON_08` (or flags) name interpreters. First it measures how
//! long the runs of a lost worker wait. Then clients submit while one fault follows the other. The oracle is
//! outside of the product: the answers that clients got, and the lines that tasks leave in a file. It prints
//! a Markdown table. When a run is lost it ends with 1 and keeps all logs (docs/reliability.md).

mod clients;
mod faults;
mod journal;
mod nats;
mod oracle;
mod programs;
mod random;
mod relay;
mod report;
mod rescue;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use clients::Tally;
use journal::Journal;
use programs::{Holdings, Installation, WorkerOptions};
use report::Report;

type Error = Box<dyn std::error::Error + Send + Sync>;

const CLIENTS: usize = 8;
const STORM_TAG: &str = "storm";
const RESCUE: WorkerOptions = WorkerOptions { tag: "rescue", concurrency: 16, ack_wait_sec: None };
/// A short `ack_wait`, so that freezes beyond it take seconds.
const STORM: WorkerOptions = WorkerOptions { tag: STORM_TAG, concurrency: 8, ack_wait_sec: Some(5) };
/// From here on the test takes long anyway, and more workers are lost before the storm.
const MANY_RUNS: usize = 20_000;
/// Runs before the storm, after which the memory of the programs is read.
const WARM_UP: usize = 100;
/// From then until the memory is read.
const REST: Duration = Duration::from_secs(3);

/// Breaks everything around accepted runs, and counts the runs that are lost
#[derive(Parser)]
struct Args {
    /// Runs to be accepted
    #[arg(long, default_value_t = 2_000)]
    runs: usize,
    /// Decides the faults, their order and their times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Workers to be lost at default settings before the storm; 0 leaves that out
    /// [default: 3, and 12 from 20000 runs on]
    #[arg(long)]
    rescues: Option<usize>,
    /// A Python with pyoco 0.6 [env: PYOCO_TEST_PYTHON_06]
    #[arg(long)]
    python_06: Option<String>,
    /// A Python with pyoco 0.8 [env: PYOCO_TEST_PYTHON_08]
    #[arg(long)]
    python_08: Option<String>,
    /// Keep stores and logs in this folder, which is to be new
    #[arg(long)]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let ended = if std::env::args().nth(1).as_deref() == Some("worker") {
        worker::main().map(|()| true)
    } else {
        run(Args::parse())
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it must be.
fn run(args: Args) -> Result<bool, Error> {
    let began = Instant::now();
    let scratch = tempfile::tempdir()?;
    let dir = args.keep.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let named = |flag: Option<String>, name: &str| flag.or_else(|| std::env::var(name).ok());
    let pythons = [
        named(args.python_06.clone(), "PYOCO_TEST_PYTHON_06"),
        named(args.python_08.clone(), "PYOCO_TEST_PYTHON_08"),
    ];
    let mut all = Installation::start(&dir, pythons, RESCUE)?;
    let journal = Journal::start(&all.journal())?;
    let mut rescue = None;
    let rescues = args.rescues.unwrap_or(if args.runs < MANY_RUNS { 3 } else { 12 });
    if rescues > 0 {
        all.start_workers(RESCUE)?;
        rescue = Some(rescue::measure(&mut all, &journal, rescues)?);
    }
    all.start_workers(STORM)?;
    let tally = Tally::after(&journal);
    let before = warm_up(&all, &tally, &journal)?;
    let storm_began = Instant::now();
    let storm = under_load(&mut all, &tally, &journal, &args)?;
    let storm_seconds = storm_began.elapsed().as_secs_f64();
    eprintln!("the storm is over; waiting for the runs to end");
    let findings = oracle::judge(&all, &tally, &journal)?;
    std::thread::sleep(REST);
    let after = (all.holdings(), all.processes());
    let report = Report {
        seed: args.seed,
        seconds: began.elapsed().as_secs_f64(),
        storm_seconds,
        all: &all,
        tally: &tally,
        storm: &storm,
        rescue: rescue.as_ref(),
        findings: &findings,
        before: &before,
        after: &after,
    };
    report.print();
    let problems = report.problems();
    if problems.is_empty() {
        return Ok(true);
    }
    problems.iter().for_each(|problem| eprintln!("chaos: {problem}"));
    oracle::keep_evidence(&all, &findings, &journal)?;
    drop(all);
    let _ = scratch.keep();
    eprintln!("chaos: logs, store and evidence.txt are in {}", dir.display());
    Ok(false)
}

/// A few runs through all programs; what each of them holds then.
fn warm_up(all: &Installation, tally: &Tally, journal: &Journal) -> Result<(Vec<Holdings>, usize), Error> {
    let ended = journal.ended();
    for n in 0..WARM_UP {
        let urls = all.urls();
        let answer =
            programs::client(&urls[n % urls.len()])?.submit(&clients::submission(STORM_TAG, 0.02))?;
        tally.asked.fetch_add(1, Ordering::Relaxed);
        tally.accept(answer["run_id"].as_str().unwrap_or_default().to_owned());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while journal.ended() < ended + WARM_UP {
        if Instant::now() > deadline {
            return Err("the first runs do not end".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(REST);
    Ok((all.holdings(), all.processes()))
}

fn under_load(
    all: &mut Installation,
    tally: &Tally,
    journal: &Journal,
    args: &Args,
) -> Result<faults::Storm, Error> {
    let urls = all.urls();
    // Ten minutes, and a tenth of a second per run: a storm that takes longer has found something.
    let deadline = Instant::now() + Duration::from_secs(600) + Duration::from_millis(100) * args.runs as u32;
    // Runs are under way during each fault of the first round, also when few are wanted.
    let pace = faults::ROUND.mul_f64(CLIENTS as f64 / args.runs.max(1) as f64);
    std::thread::scope(|scope| {
        let submit = |n: usize| {
            let (urls, seed) = (&urls, args.seed.wrapping_mul(1_000).wrapping_add(n as u64));
            scope.spawn(move || clients::submit(urls, STORM_TAG, tally, journal, seed, pace))
        };
        let clients: Vec<_> = (0..CLIENTS).map(submit).collect();
        let storm = faults::storm(all, tally, args.runs, args.seed, deadline);
        tally.is_over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().map_err(|_| "a client has panicked")??;
        }
        Ok(storm)
    })
}
