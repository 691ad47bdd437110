//! Ten thousand runs: lists and single runs are answered from memory.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::runs::{completed, ids};

const RUNS: usize = 10_000;
const WRITERS: usize = 16;
/// Generous: a build without optimisation on a busy machine. A scan of the bucket takes seconds.
const QUICK: Duration = Duration::from_secs(1);

/// The middle one of five tries, so that one bad moment of the machine does not count.
fn typical(mut question: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            question();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[2]
}

#[test]
fn ten_thousand_runs_are_listed_and_shown_quickly_also_after_a_restart() {
    let cluster = Cluster::with_gateway();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let cluster = &cluster;
            scope.spawn(move || {
                for n in (writer..RUNS).step_by(WRITERS) {
                    cluster.put_run(&format!("run-{n:05}"), n as f64, |run| {
                        if n % 100 == 0 {
                            completed(run);
                            run.end_time = Some(n as f64);
                        }
                    });
                }
            });
        }
    });
    // Times are given by hand, so that the order does not depend on who wrote first.
    cluster.wait_count(RUNS);
    let second = cluster.another_gateway();
    for gateway in [&cluster.gateways[0], &second] {
        let first = ids(&gateway.get("/runs?limit=200").json());
        assert_eq!((first.len(), first[0].as_str()), (200, "run-09999"));
        // Ready means complete: nothing is waited for here.
        assert_eq!(gateway.all_pages("limit=200").len(), RUNS);
        assert_eq!(gateway.all_pages("limit=200&status=COMPLETED").len(), RUNS / 100);
        for path in [
            "/runs",
            "/runs?limit=200",
            "/runs?status=COMPLETED&limit=200",
            // Walks everything and finds nothing.
            "/runs?flow=nobody",
            "/runs?limit=200&cursor=&updated_after=5000",
            "/runs/run-00000",
            "/runs/run-09999",
        ] {
            let time = typical(|| assert_eq!(gateway.get(path).status, 200));
            assert!(time < QUICK, "{path}: {time:?}");
        }
    }
}
