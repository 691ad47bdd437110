//! Submits under load while NATS is killed for ten seconds: no accepted run is lost.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::http::Client;
use crate::support::jetstream;
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

fn fill(client: &Client, lane: usize, done: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut n = 0;
    while !done.load(Ordering::Relaxed) {
        n += 1;
        let begun = Instant::now();
        let body = json!({"flow_name": "m", "params": {"lane": lane, "n": n}});
        let answer = client.post("/runs", &body);
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
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "2")]);
    let client = &cluster.client();
    let done = AtomicBool::new(false);
    let count = || client.all_pages("limit=200").len();
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let done = &done;
        let clients: Vec<_> =
            (0..CLIENTS).map(|lane| scope.spawn(move || fill(client, lane, done))).collect();
        eventually(PATIENCE, "some runs", || (count() > 100).then_some(()));
        cluster.nats.kill();
        let killed = Instant::now();
        while killed.elapsed() < AWAY {
            assert_eq!(client.get("/health").status, 200);
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster.nats.restart();
        client.wait_answer("/readyz", 200);
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
    let bus = cluster.connect();
    eventually(PATIENCE, "the undo of what was refused", || {
        let listed: HashSet<String> = client.all_pages("limit=200").into_iter().collect();
        let lost: Vec<_> = accepted.difference(&listed).collect();
        assert!(lost.is_empty(), "accepted and not there: {lost:?}");
        (listed == accepted).then_some(())
    });
    let jobs = jobs(&cluster);
    for run_id in &accepted {
        assert!(bus.runs().get(run_id).unwrap().is_some(), "{run_id} has no snapshot");
        assert_eq!(jobs.get(run_id), Some(&1), "{run_id} has no job, or several");
    }
}

/// How many jobs each run has in the queue.
fn jobs(cluster: &Cluster) -> HashMap<String, usize> {
    let state = jetstream::call(&cluster.nats, "STREAM.INFO.PYOCO_WORK", &json!(null));
    let first = state["state"]["first_seq"].as_u64().unwrap();
    let last = state["state"]["last_seq"].as_u64().unwrap();
    let bus = cluster.connect();
    let mut jobs: HashMap<String, usize> = HashMap::new();
    for seq in first..=last {
        if let Some(job) = bus.queue().stored_job(seq).unwrap() {
            let fields: serde_json::Value = serde_json::from_slice(&job.payload).unwrap();
            *jobs.entry(fields["run_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    jobs
}

/// Clients with an idempotency key send again until they are accepted, while the server freezes now
/// and then: the same request is half done in every possible place.
#[test]
fn a_run_that_was_accepted_at_any_try_stays() {
    const KEYS: usize = 400;
    let cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "0.3")]);
    let client = &cluster.client();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (accepted, refused): (Vec<HashSet<String>>, Vec<usize>) = std::thread::scope(|scope| {
        let (next, done) = (&next, &done);
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(move || submit_until_accepted(client, next, done, KEYS))).collect();
        while clients.iter().any(|client| !client.is_finished()) {
            let before = done.load(Ordering::Relaxed);
            cluster.nats.pause();
            std::thread::sleep(Duration::from_millis(400));
            cluster.nats.resume();
            std::thread::sleep(Duration::from_millis(60));
            // On a busy machine a submit may take longer than that.
            eventually(PATIENCE, "a submit is accepted", || {
                let is_over = clients.iter().all(|client| client.is_finished());
                (is_over || done.load(Ordering::Relaxed) > before).then_some(())
            });
        }
        clients.into_iter().map(|client| client.join().unwrap()).unzip()
    });
    assert!(refused.iter().sum::<usize>() > 0, "no request was refused");
    let accepted: HashSet<String> = accepted.into_iter().flatten().collect();
    assert_eq!(accepted.len(), KEYS);
    // Whatever wants to be undone has its chance; nothing that was accepted may go with it.
    let until = Instant::now() + Duration::from_secs(3);
    let bus = cluster.connect();
    while Instant::now() < until {
        let gone: Vec<_> = accepted.iter().filter(|id| bus.runs().get(id).unwrap().is_none()).collect();
        assert!(gone.is_empty(), "accepted and gone: {gone:?}");
    }
    let jobs = jobs(&cluster);
    for run_id in &accepted {
        assert_eq!(jobs.get(run_id), Some(&1), "{run_id} has no job, or several");
    }
    cluster.wait_count(KEYS);
}

fn submit_until_accepted(
    client: &Client,
    next: &AtomicUsize,
    done: &AtomicUsize,
    keys: usize,
) -> (HashSet<String>, usize) {
    let (mut accepted, mut refused) = (HashSet::new(), 0);
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= keys {
            return (accepted, refused);
        }
        let key = format!("key {n}");
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str())];
        let body = json!({"flow_name": "m", "params": {"n": n}}).to_string();
        let answer = eventually(3 * PATIENCE, "the submit to be accepted", || {
            let answer = client.request("POST", "/runs", &headers, body.as_bytes());
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
            refused += usize::from(answer.status == 503);
            (answer.status == 200).then_some(answer)
        });
        done.fetch_add(1, Ordering::Relaxed);
        accepted.insert(answer.json()["run_id"].as_str().unwrap().to_owned());
    }
}
