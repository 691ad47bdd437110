//! How long the runs of a lost worker wait for another one, at default settings and without a backlog.

use std::time::{Duration, Instant};

use pyoco_server::client::Include;
use rustix::process::Signal;

use super::Error;
use super::clients::submission;
use super::journal::{Execution, Journal, now};
use super::programs::{Installation, client};

/// Runs of a round; the workers that are left have room for all of them.
const RUNS: usize = 24;
/// Longer than the lease of an execution, so that no run of a frozen worker ends before it is lost.
const SECONDS: f64 = 8.0;
const PATIENCE: Duration = Duration::from_secs(90);

/// Seconds from the loss of a worker to the next start of each run that it had, sorted.
pub struct Rescue {
    pub waits: Vec<f64>,
    pub problems: Vec<String>,
}

/// Loses each worker in turn, by SIGKILL and by SIGSTOP.
pub fn measure(all: &mut Installation, journal: &Journal, rounds: usize) -> Result<Rescue, Error> {
    let mut rescue = Rescue { waits: Vec::new(), problems: Vec::new() };
    let workers = all.workers();
    for round in 0..rounds {
        // Each worker meets both kinds, in six rounds.
        let (victim, freeze) = (workers[round % workers.len()], round % 2 == 1);
        let before = rescue.waits.len();
        lose(all, journal, victim, freeze, &mut rescue)?;
        let (name, how) = (&all.programs[victim].name, if freeze { "frozen" } else { "killed" });
        let most = rescue.waits[before..].iter().fold(0.0, |most: f64, &wait| most.max(wait));
        let runs = rescue.waits.len() - before;
        eprintln!("{name} {how}: {runs} runs start again, the last one after {most:.1} s");
    }
    rescue.waits.sort_by(f64::total_cmp);
    Ok(rescue)
}

fn lose(
    all: &mut Installation,
    journal: &Journal,
    victim: usize,
    freeze: bool,
    rescue: &mut Rescue,
) -> Result<(), Error> {
    let client = client(&all.urls()[0])?;
    let run = submission(all.options.tag, SECONDS);
    let mut ids = Vec::new();
    for _ in 0..RUNS {
        ids.push(client.submit(&run)?["run_id"].as_str().unwrap_or_default().to_owned());
    }
    wait(|| ids.iter().all(|id| !journal.of(id).is_empty()), "all runs begin")?;
    let name = all.programs[victim].name.clone();
    let lost = now();
    if freeze {
        all.signal(victim, Signal::STOP)?;
    } else {
        all.kill(victim)?;
    }
    // The journal may be a moment behind the kill.
    std::thread::sleep(Duration::from_millis(200));
    let is_here = |e: &Execution| e.worker == name && e.begin < lost && e.end.is_none_or(|end| end > lost);
    let held: Vec<&String> = ids.iter().filter(|id| journal.of(id).iter().any(is_here)).collect();
    let again = |id: &str| journal.of(id).iter().map(|e| e.begin).find(|&begin| begin > lost);
    if let Err(error) = wait(|| held.iter().all(|id| again(id).is_some()), "the lost runs begin again") {
        rescue.problems.push(error.to_string());
    }
    rescue.waits.extend(held.iter().filter_map(|id| Some(again(id)? - lost)));
    if freeze {
        all.signal(victim, Signal::CONT)?;
    } else {
        all.launch(victim)?;
    }
    let is_over =
        |id: &String| client.get_run(id, Include::Snapshot).is_ok_and(|run| run["status"] == "COMPLETED");
    if let Err(error) = wait(|| ids.iter().all(is_over), "all runs of the round are COMPLETED") {
        rescue.problems.push(error.to_string());
    }
    // The worker that was lost takes part in the next round.
    wait(|| all.count_at_work(&client) == all.workers().len(), "all workers are ready")
}

fn wait(is_so: impl Fn() -> bool, what: &str) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
