//! Clients that submit and cancel, and remember every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pyoco_server::client::{Client, Error as ClientError, Submission};
use serde_json::Map;

use super::Error;
use super::journal::Journal;
use super::programs::client;
use super::random::Random;
use super::worker::FLOW;

/// Runs that may be under way at once: the storm hits runs, not a backlog.
const MOST_UNDER_WAY: usize = 300;
/// One submit in so many is followed by a cancel of some run.
const CANCEL_ONE_IN: usize = 50;
/// It is one of so many that were accepted last, most of which have not ended.
const CANCEL_NEWEST: usize = 8;
/// After a refusal, or when enough is under way.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a task takes, in seconds.
const TASK: Range<f64> = 0.02..0.3;
/// How long one in so many takes, so that each fault finds some that run.
const LONG_TASK: Range<f64> = 1.0..4.0;
const LONG_ONE_IN: usize = 20;

/// What happened, as the clients saw it.
#[derive(Default)]
pub struct Tally {
    /// Submits that were sent.
    pub asked: AtomicUsize,
    accepted: Mutex<Vec<String>>,
    refused: Mutex<BTreeMap<String, usize>>,
    /// Runs for which a cancel was sent, whatever the answer.
    pub cancels: Mutex<BTreeSet<String>>,
    /// Runs whose cancel was answered with 200.
    pub cancels_accepted: Mutex<BTreeSet<String>>,
    /// Runs that had ended before the first one of these.
    ended_before: usize,
    /// The clients are to end.
    pub is_over: AtomicBool,
}

impl Tally {
    /// Runs that have ended by now are not among those that it counts.
    pub fn after(journal: &Journal) -> Tally {
        Tally { ended_before: journal.ended(), ..Tally::default() }
    }

    /// Ids of all runs that were answered with 200.
    pub fn accepted(&self) -> Vec<String> {
        self.accepted.lock().map(|ids| ids.clone()).unwrap_or_default()
    }

    /// Requests without a 200, by what came instead.
    pub fn refused(&self) -> BTreeMap<String, usize> {
        self.refused.lock().map(|kinds| kinds.clone()).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.accepted.lock().map_or(0, |ids| ids.len())
    }

    /// Remembers the id of a run that was accepted.
    pub fn accept(&self, run_id: String) {
        if let Ok(mut ids) = self.accepted.lock() {
            ids.push(run_id);
        }
    }

    fn refuse(&self, what: &str, error: &ClientError) {
        let kind = match error {
            ClientError::Unreachable { .. } => "connection refused".to_owned(),
            ClientError::TimedOut { .. } => "no answer in time".to_owned(),
            ClientError::Broken { .. } => "connection broken".to_owned(),
            ClientError::Status { status, .. } => format!("HTTP {status}"),
            other => other.to_string(),
        };
        if let Ok(mut kinds) = self.refused.lock() {
            *kinds.entry(format!("{what}: {kind}")).or_default() += 1;
        }
    }

    fn under_way(&self, journal: &Journal) -> usize {
        let cancelled = self.cancels.lock().map_or(0, |ids| ids.len());
        (self.count() + self.ended_before).saturating_sub(journal.ended() + cancelled)
    }
}

/// One run of the flow that takes `seconds`.
pub fn submission(tag: &str, seconds: f64) -> Submission {
    let mut params = Map::new();
    params.insert("seconds".to_owned(), seconds.into());
    Submission { flow_name: FLOW.to_owned(), params, tag: Some(tag.to_owned()), ..Submission::default() }
}

/// Submits until the tally is over. The other gateway is asked when one refuses connections.
/// Each submit is followed by `pace`.
pub fn submit(
    urls: &[String],
    tag: &str,
    tally: &Tally,
    journal: &Journal,
    seed: u64,
    pace: Duration,
) -> Result<(), Error> {
    let clients: Vec<Client> = urls.iter().map(|url| client(url)).collect::<Result<_, _>>()?;
    let mut random = Random::new(seed);
    while !tally.is_over.load(Ordering::SeqCst) {
        if tally.under_way(journal) >= MOST_UNDER_WAY {
            std::thread::sleep(PAUSE);
            continue;
        }
        std::thread::sleep(pace);
        let first = random.below(clients.len());
        let task = if random.below(LONG_ONE_IN) == 0 { LONG_TASK } else { TASK };
        let run = submission(tag, random.seconds(task));
        tally.asked.fetch_add(1, Ordering::Relaxed);
        let answer = either(&clients, first, tally, "submit", |client| client.submit(&run));
        let Some(answer) = answer else {
            std::thread::sleep(PAUSE);
            continue;
        };
        tally.accept(answer["run_id"].as_str().unwrap_or_default().to_owned());
        if random.below(CANCEL_ONE_IN) == 0 {
            cancel(&clients, first, tally, &mut random);
        }
    }
    Ok(())
}

fn cancel(clients: &[Client], first: usize, tally: &Tally, random: &mut Random) {
    let run_id = tally.accepted.lock().ok().and_then(|ids| {
        let newest = ids.len().min(CANCEL_NEWEST);
        ids.get(ids.len() - newest + random.below(newest)).cloned()
    });
    let Some(run_id) = run_id else { return };
    if let Ok(mut ids) = tally.cancels.lock() {
        ids.insert(run_id.clone());
    }
    let answer = either(clients, first, tally, "cancel", |client| client.cancel(&run_id, None));
    if let (Some(_), Ok(mut ids)) = (answer, tally.cancels_accepted.lock()) {
        ids.insert(run_id);
    }
}

fn either<T>(
    clients: &[Client],
    first: usize,
    tally: &Tally,
    what: &str,
    call: impl Fn(&Client) -> Result<T, ClientError>,
) -> Option<T> {
    for n in 0..clients.len() {
        match call(&clients[(first + n) % clients.len()]) {
            Ok(answer) => return Some(answer),
            Err(error) => {
                tally.refuse(what, &error);
                if !matches!(error, ClientError::Unreachable { .. }) {
                    return None;
                }
            }
        }
    }
    None
}
