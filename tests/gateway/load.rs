//! Submits under load while NATS is killed for ten seconds: no accepted run is lost.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::jetstream;
use crate::stage::{Stage, all_pages};
use crate::support::http;
use crate::support::wait::{PATIENCE, eventually};

const CLIENTS: usize = 6;
const AWAY: Duration = Duration::from_secs(10);
/// `PYOCO_NATS_REQUEST_TIMEOUT_SEC` here, the second that an undo may take, and a busy machine.
const LONGEST: Duration = Duration::from_millis(4_500);

/// What one client has seen: accepted runs, refusals, and the longest answer.
#[derive(Default)]
struct Seen {
    accepted: Vec<String>,
    refused: usize,
    longest: Duration,
}

fn fill(address: std::net::SocketAddr, lane: usize, done: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut n = 0;
    while !done.load(Ordering::Relaxed) {
        n += 1;
        let begun = Instant::now();
        let body = json!({"flow_name": "m", "params": {"lane": lane, "n": n}});
        let answer = http::post_json(address, "/runs", &body);
        seen.longest = seen.longest.max(begun.elapsed());
        match answer.status {
            200 => seen.accepted.push(answer.json()["run_id"].as_str().unwrap().to_owned()),
            503 => {
                assert!(answer.header("retry-after").is_some());
                seen.refused += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
        // A client that is refused tries again a little later; this paces the load, nothing else.
        std::thread::sleep(Duration::from_millis(if answer.status == 200 { 5 } else { 50 }));
    }
    seen
}

#[test]
fn every_accepted_run_is_there_with_its_job_after_nats_was_killed_under_load() {
    let mut stage = Stage::start_with(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "2")]);
    let address = stage.address();
    let done = AtomicBool::new(false);
    let count = || all_pages(address, "limit=200").len();
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let done = &done;
        let clients: Vec<_> =
            (0..CLIENTS).map(|lane| scope.spawn(move || fill(address, lane, done))).collect();
        eventually(PATIENCE, "some runs", || (count() > 100).then_some(()));
        stage.nats.kill();
        let killed = Instant::now();
        while killed.elapsed() < AWAY {
            assert_eq!(http::get(address, "/health").status, 200);
            std::thread::sleep(Duration::from_millis(200));
        }
        stage.nats.restart();
        eventually(PATIENCE, "the gateway to be ready", || {
            (http::get(address, "/readyz").status == 200).then_some(())
        });
        let before = count();
        eventually(PATIENCE, "the load to go on", || (count() > before + 100).then_some(()));
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let accepted: HashSet<String> = seen.iter().flat_map(|s| s.accepted.iter().cloned()).collect();
    let refused: usize = seen.iter().map(|s| s.refused).sum();
    let longest = seen.iter().map(|s| s.longest).max().unwrap();
    assert!(refused > 0, "NATS was away and nobody noticed");
    assert!(longest < LONGEST, "an answer took {longest:?}");

    // Submits that were answered 503 are taken back in the background.
    let bus = crate::stage::connect(&stage.nats);
    eventually(PATIENCE, "the undo of what was refused", || {
        let listed: HashSet<String> = all_pages(address, "limit=200").into_iter().collect();
        let lost: Vec<_> = accepted.difference(&listed).collect();
        assert!(lost.is_empty(), "accepted and not there: {lost:?}");
        (listed == accepted).then_some(())
    });
    let jobs = jobs(&stage);
    for run_id in &accepted {
        assert!(bus.runs().get(run_id).unwrap().is_some(), "{run_id} has no snapshot");
        assert_eq!(jobs.get(run_id), Some(&1), "{run_id} has no job, or several");
    }
}

/// How many jobs each run has in the queue.
fn jobs(stage: &Stage) -> HashMap<String, usize> {
    let state = jetstream::call(&stage.nats, "STREAM.INFO.PYOCO_WORK", &json!(null));
    let first = state["state"]["first_seq"].as_u64().unwrap();
    let last = state["state"]["last_seq"].as_u64().unwrap();
    let bus = crate::stage::connect(&stage.nats);
    let mut jobs: HashMap<String, usize> = HashMap::new();
    for seq in first..=last {
        if let Some(job) = bus.queue().stored_job(seq).unwrap() {
            let fields: serde_json::Value = serde_json::from_slice(&job.payload).unwrap();
            *jobs.entry(fields["run_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    jobs
}
