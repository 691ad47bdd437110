//! Runs an operation on several threads and prints its rate and latencies.

use std::time::{Duration, Instant};

/// How long each row is measured, after a tenth of it as a warm-up.
const ROW: Duration = Duration::from_secs(2);

/// The numbers of clients that every row is measured with.
pub const CLIENTS: [usize; 3] = [1, 4, 16];

/// Measures `make_client()`'s closure on `clients` threads for a while and prints a row.
pub fn row<F: FnMut(u64) -> bool + Send>(
    what: &str,
    clients: usize,
    make_client: impl Fn(usize) -> F + Sync,
) {
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let make_client = &make_client;
                scope.spawn(move || {
                    let mut operation = make_client(client);
                    let begin = Instant::now() + ROW / 10;
                    let end = begin + ROW;
                    let mut latencies = Vec::new();
                    for n in 0.. {
                        let before = Instant::now();
                        if before >= end {
                            break;
                        }
                        assert!(operation(n), "{what}: an operation failed");
                        if before >= begin {
                            latencies.push(before.elapsed());
                        }
                    }
                    latencies
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    print(what, clients, latencies, ROW);
}

/// Prints a row of latencies that were measured in `took`.
pub fn print(what: &str, clients: usize, mut latencies: Vec<Duration>, took: Duration) {
    latencies.sort();
    if latencies.is_empty() {
        println!("{what:<44} {clients:>7} {:>12}", "nothing");
        return;
    }
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{what:<44} {clients:>7} {:>12.0} {:>10} {:>10}",
        latencies.len() as f64 / took.as_secs_f64(),
        micros(at(0.5)),
        micros(at(0.99))
    );
}

fn micros(latency: Duration) -> String {
    let micros = latency.as_secs_f64() * 1e6;
    if micros < 10_000.0 { format!("{micros:.0} µs") } else { format!("{:.1} ms", micros / 1e3) }
}
