//! Many runs at once through a real gateway.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::flows;
use crate::support::cluster::{Cluster, with_flags};
use crate::support::wait::eventually;

const RUNS: usize = 1000;
const CLIENTS: usize = 8;

#[test]
fn a_thousand_runs_are_all_completed_by_one_worker() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_LOG_LEVEL", "WARNING")]).start();
    let gateway = cluster.another_gateway();
    let worker = cluster.start_worker("w1", with_flags(&["--concurrency", "4"]));
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let runs = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < RUNS {
                    let run_id = gateway.submit_yaml("default", "main", flows::ECHO);
                    runs.lock().unwrap().push(run_id);
                }
            });
        }
    });
    let submitted = began.elapsed();
    eventually(Duration::from_secs(90), "all jobs are settled", || (cluster.queued() == 0).then_some(()));
    let took = began.elapsed();
    eprintln!("{RUNS} runs: submitted in {submitted:?}, all settled after {took:?}");
    let runs = runs.into_inner().unwrap();
    assert_eq!(runs.len(), RUNS);
    for run_id in &runs {
        let snapshot = cluster.stored(run_id).unwrap();
        let end = (&snapshot["status"], &snapshot["attempt"]);
        assert_eq!(end, (&json!("COMPLETED"), &json!(1)), "{snapshot}");
    }
    assert!(cluster.dlq().is_empty());
    // What the gateway shows agrees.
    let page = gateway.get("/runs?status=COMPLETED&limit=200").json();
    assert_eq!(page.as_array().map(Vec::len), Some(200));
    let unfinished: Value = gateway.get("/runs?status=PENDING").json();
    assert_eq!(unfinished, json!([]));
    assert!(worker.stderr().is_empty(), "warnings: {}", worker.stderr());
}
