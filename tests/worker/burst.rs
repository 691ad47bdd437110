//! Many runs at once through a real gateway.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::support::http;
use crate::workers::{gateway, process};
use crate::{flows, support::wait::eventually};

const RUNS: usize = 1000;
const CLIENTS: usize = 8;

fn submit(address: SocketAddr, yaml: &str) -> String {
    let body = format!(
        "--X\r\nContent-Disposition: form-data; name=\"flow_name\"\r\n\r\nmain\r\n\
         --X\r\nContent-Disposition: form-data; name=\"workflow\"; filename=\"f.yaml\"\r\n\r\n{yaml}\r\n--X--\r\n"
    );
    let headers = [("Content-Type", "multipart/form-data; boundary=X")];
    let answer = http::request(address, "POST", "/runs/yaml", &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_thousand_runs_are_all_completed_by_one_worker() {
    let lab = Lab::start(&[("PYOCO_LOG_LEVEL", "WARNING")]);
    let gateway = gateway(&lab);
    let worker = process(&lab, "w1", &["--concurrency", "4"]);
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let runs = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < RUNS {
                    let run_id = submit(gateway.address, flows::ECHO);
                    runs.lock().unwrap().push(run_id);
                }
            });
        }
    });
    let submitted = began.elapsed();
    eventually(Duration::from_secs(90), "all jobs are settled", || {
        (lab.queued() == 0).then_some(())
    });
    let took = began.elapsed();
    eprintln!("{RUNS} runs: submitted in {submitted:?}, all settled after {took:?}");
    let runs = runs.into_inner().unwrap();
    assert_eq!(runs.len(), RUNS);
    for run_id in &runs {
        let snapshot = lab.snapshot(run_id).unwrap();
        let end = (&snapshot["status"], &snapshot["attempt"]);
        assert_eq!(end, (&json!("COMPLETED"), &json!(1)), "{snapshot}");
    }
    assert!(lab.dlq().is_empty());
    // What the gateway shows agrees.
    let page = http::get(gateway.address, "/runs?status=COMPLETED&limit=200").json();
    assert_eq!(page.as_array().map(Vec::len), Some(200));
    let unfinished: Value = http::get(gateway.address, "/runs?status=PENDING").json();
    assert_eq!(unfinished, json!([]));
    assert!(worker.stderr().is_empty(), "warnings: {}", worker.stderr());
}
