//! From the submit to RUNNING, from the submit to COMPLETED, and jobs per second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use pyoco_server::bus::{Watch, WatchEvent};
use pyoco_server::model::json;
use pyoco_server::model::run::{RunStatus, RunSummary};

use crate::gateway::{Http, wait_ready};
use crate::measure::print;
use crate::setup::Setup;

/// Runs that are submitted one after the other.
const SINGLE_RUNS: usize = 300;
/// Runs of the burst.
const BURST_RUNS: usize = 2_000;
/// A run that takes longer than this has been lost.
const PATIENCE: Duration = Duration::from_secs(60);

const FORM: &str = "--XX\r\nContent-Disposition: form-data; name=\"flow_name\"\r\n\r\nbench\r\n\
    --XX\r\nContent-Disposition: form-data; name=\"workflow\"; filename=\"flow.yaml\"\r\n\r\n\
    flow: {graph: one}\ntasks: {one: {use: builtin/echo, inputs: {n: 1}}}\n\r\n--XX--\r\n";

pub fn run(setup: &Setup) -> Result<(), Box<dyn std::error::Error>> {
    let gateway = setup.gateway()?;
    let address = gateway.local_addr();
    wait_ready(address);
    let seen = Seen::follow(setup)?;
    let worker = setup.worker(4)?;
    // The first job also creates the consumer.
    let (run, ended) = submit(&mut Http::connect(address), &seen);
    seen.wait(&run, &ended);

    let mut http = Http::connect(address);
    let (mut dispatch, mut completion) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for _ in 0..SINGLE_RUNS {
        let before = Instant::now();
        let (run, ended) = submit(&mut http, &seen);
        let (running, completed) = seen.wait(&run, &ended);
        dispatch.push(running.saturating_duration_since(before));
        completion.push(completed.saturating_duration_since(before));
    }
    let took = begin.elapsed();
    print("submit → RUNNING seen", 1, dispatch, took);
    print("submit → COMPLETED seen", 1, completion, took);

    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut http = Http::connect(address);
                let runs: Vec<_> = (0..BURST_RUNS / 4).map(|_| submit(&mut http, &seen)).collect();
                runs.iter().for_each(|(run, ended)| {
                    seen.wait(run, ended);
                });
            });
        }
    });
    let took = begin.elapsed();
    println!(
        "{:<44} {:>7} {:>12.0}   ({BURST_RUNS} runs submitted and COMPLETED in {:.2} s)",
        "jobs per second, one worker of 4 slots",
        4,
        BURST_RUNS as f64 / took.as_secs_f64(),
        took.as_secs_f64()
    );
    drop(worker);
    gateway.stop(Duration::from_secs(2));
    Ok(())
}

fn submit(http: &mut Http, seen: &Seen) -> (String, Receiver<()>) {
    let (status, body) = http.post_form("/runs/yaml", FORM);
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).expect("the answer is JSON");
    let run = answer["run_id"].as_str().expect("it names the run").to_owned();
    let ended = seen.expect(&run);
    (run, ended)
}

/// When each run was first seen RUNNING and COMPLETED, by a watch on the bucket.
#[derive(Clone)]
pub struct Seen {
    runs: Arc<Mutex<HashMap<String, Times>>>,
    _watch: Arc<Watch>,
}

#[derive(Default)]
struct Times {
    running: Option<Instant>,
    completed: Option<Instant>,
    waiter: Option<crossbeam_channel::Sender<()>>,
}

impl Seen {
    pub fn follow(setup: &Setup) -> Result<Seen, Box<dyn std::error::Error>> {
        let runs: Arc<Mutex<HashMap<String, Times>>> = Arc::default();
        let noted = runs.clone();
        let watch = setup.bus.runs().watch(move |event| {
            let WatchEvent::Entry(entry) = event else { return };
            let Ok(run) = json::from_wire::<RunSummary>(&entry.value) else { return };
            let mut runs = noted.lock().expect("nobody panics with it");
            let times = runs.entry(run.run_id).or_default();
            let now = Instant::now();
            match run.status {
                RunStatus::Running => {
                    times.running.get_or_insert(now);
                }
                RunStatus::Completed => {
                    times.running.get_or_insert(now);
                    times.completed.get_or_insert(now);
                    times.waiter.take();
                }
                _ => {}
            }
        })?;
        Ok(Seen { runs, _watch: Arc::new(watch) })
    }

    pub fn expect(&self, run: &str) -> Receiver<()> {
        let (waiter, ended) = bounded(0);
        let mut runs = self.runs.lock().expect("nobody panics with it");
        let times = runs.entry(run.to_owned()).or_default();
        if times.completed.is_none() {
            times.waiter = Some(waiter);
        }
        ended
    }

    pub fn wait(&self, run: &str, ended: &Receiver<()>) -> (Instant, Instant) {
        // The watch drops the sender when the run has ended.
        let outcome = ended.recv_timeout(PATIENCE);
        assert_eq!(outcome, Err(crossbeam_channel::RecvTimeoutError::Disconnected), "{run} is lost");
        let runs = self.runs.lock().expect("nobody panics with it");
        let times = &runs[run];
        (times.running.expect("it ran"), times.completed.expect("it ended"))
    }
}
