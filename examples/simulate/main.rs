//! Explores the delivery protocol: histories of gateways, workers and NATS with faults, each from a seed.
//!
//! ```text
//! cargo run --release --example simulate -- 1000000        histories from seed 0 on
//! cargo run --release --example simulate -- --seed 4711    one history, step by step
//! ```

#[path = "sim/mod.rs"]
mod sim;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &String| text.parse::<u64>().ok();
    match arguments.as_slice() {
        [flag, seed] if flag == "--seed" => match number(seed) {
            Some(seed) => replay(seed),
            None => usage(),
        },
        [] => explore(100_000),
        [histories] => number(histories).map_or_else(usage, explore),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: simulate [HISTORIES | --seed SEED]");
    ExitCode::from(2)
}

fn replay(seed: u64) -> ExitCode {
    let (trace, problem) = sim::replay(seed);
    trace.iter().for_each(|line| println!("{line}"));
    match problem {
        Some(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: every run has ended as it must");
            ExitCode::SUCCESS
        }
    }
}

fn explore(histories: u64) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let (steps, faults, accepted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let problem = std::thread::scope(|scope| {
        let work = || loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= histories {
                return None;
            }
            match sim::run(seed) {
                Ok(history) => {
                    steps.fetch_add(history.steps, Ordering::Relaxed);
                    faults.fetch_add(history.faults, Ordering::Relaxed);
                    accepted.fetch_add(history.accepted, Ordering::Relaxed);
                }
                Err(problem) => {
                    next.store(histories, Ordering::Relaxed);
                    return Some(problem);
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().find_map(|thread| thread.join().ok().flatten())
    });
    if let Some(problem) = problem {
        println!("{problem}");
        return ExitCode::FAILURE;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{histories} histories in {seconds:.1} s: {} steps, {} faults, {} accepted runs, all of them ended",
        steps.load(Ordering::Relaxed),
        faults.load(Ordering::Relaxed),
        accepted.load(Ordering::Relaxed)
    );
    ExitCode::SUCCESS
}
