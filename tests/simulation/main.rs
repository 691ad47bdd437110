//! The delivery protocol in a simulator: many histories with faults, the mends that they show to be needed,
//! and the simulator's model of JetStream beside a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod bucket;
mod connection;
mod exhaustive;
#[cfg(debug_assertions)]
mod mends;
mod model;
mod queue;
/// The example explores millions of histories by hand with the same simulator.
#[path = "../../examples/simulate/sim/mod.rs"]
mod sim;
#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};

/// Histories in the test command; `PYOCO_SIMULATED_HISTORIES` asks for more.
const HISTORIES: u64 = 100_000;

#[test]
fn every_accepted_run_ends_in_every_history() {
    let asked = std::env::var("PYOCO_SIMULATED_HISTORIES").ok();
    let histories = asked.map_or(HISTORIES, |number| number.parse().unwrap());
    let next = AtomicU64::new(0);
    let work = || {
        let mut accepted = 0;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= histories {
                return accepted;
            }
            match sim::run(seed) {
                Ok(history) => accepted += history.accepted,
                Err(problem) => panic!("{problem}; `cargo run --example simulate -- --seed {seed}` shows it"),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let accepted: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Histories in which nothing is accepted would show nothing.
    assert!(accepted > 2 * histories, "{accepted} runs accepted in {histories} histories");
}
