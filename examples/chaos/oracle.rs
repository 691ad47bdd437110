//! Compares what clients were promised with what tasks did and with how runs stand at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyoco_server::client::{Client, Include, ListQuery, PageQuery};
use serde_json::Value;

use super::Error;
use super::clients::Tally;
use super::journal::{Execution, Journal};
use super::programs::{Installation, client};

/// From the last fault to the end of all runs.
const SETTLE: Duration = Duration::from_secs(240);
/// Repeats of a request whose answer is needed.
const REPEATS: usize = 20;
/// Runs of which evidence is kept.
const MOST_EVIDENCE: usize = 20;
/// Most of a page that a gateway allows.
const PAGE: i64 = 200;

/// What is found at the end.
#[derive(Default)]
pub struct Findings {
    /// COMPLETED, FAILED and CANCELLED runs that were accepted.
    pub ends: BTreeMap<String, usize>,
    /// Texts of FAILED runs, up to the first colon. The flow itself never fails.
    pub failures: BTreeMap<String, usize>,
    /// Accepted runs that are not ended as they must, with the reason.
    pub lost: BTreeMap<String, String>,
    /// Accepted runs that began more than once.
    pub started_again: usize,
    /// Accepted runs that ended more than once.
    pub ended_twice: usize,
    /// The longest time that two executions of one run overlapped, in seconds, as far as signs of life tell:
    /// one that was killed may have gone on for up to a second after its last one.
    pub longest_overlap: f64,
    /// Runs that no client was promised: their submits were answered with something else, or not at all.
    pub orphans: BTreeMap<String, usize>,
    /// Jobs in the queue.
    pub left_in_queue: u64,
    /// Runs that are PENDING, RUNNING or CANCELLING, accepted or not.
    pub not_ended: usize,
    /// From the end of the storm until nothing was left, in seconds.
    pub settled_in: f64,
}

/// Waits until nothing is under way, then judges every run.
pub fn judge(all: &Installation, tally: &Tally, journal: &Journal) -> Result<Findings, Error> {
    let clients: Vec<Client> = all.urls().iter().map(|url| client(url)).collect::<Result<_, _>>()?;
    let mut findings = Findings::default();
    let began = Instant::now();
    loop {
        findings.left_in_queue = queued(all).unwrap_or(u64::MAX);
        let open = ["PENDING", "RUNNING", "CANCELLING"].map(|status| listed(&clients[0], status));
        findings.not_ended = open.iter().map(|count| count.unwrap_or(usize::MAX / 4)).sum();
        findings.settled_in = began.elapsed().as_secs_f64();
        let is_settled = findings.left_in_queue == 0 && findings.not_ended == 0;
        if is_settled || began.elapsed() > SETTLE {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    judge_runs(&clients, tally, journal, &mut findings);
    findings.orphans = orphans(&clients[0], &tally.accepted().into_iter().collect())?;
    Ok(findings)
}

fn queued(all: &Installation) -> Option<u64> {
    all.nats.call("STREAM.INFO.PYOCO_WORK", "").ok()?["state"]["messages"].as_u64()
}

fn listed(client: &Client, status: &str) -> Option<usize> {
    let query = ListQuery { status: Some(status.to_owned()), ..ListQuery::default() };
    client.list(&query).ok()?.as_array().map(Vec::len)
}

fn judge_runs(clients: &[Client], tally: &Tally, journal: &Journal, findings: &mut Findings) {
    let ids = tally.accepted();
    let asked = tally.cancels.lock().map(|ids| ids.clone()).unwrap_or_default();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(findings);
    std::thread::scope(|scope| {
        for client in clients.iter().cycle().take(8) {
            scope.spawn(|| {
                while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = repeat(|| client.get_run(id, Include::Snapshot));
                    if let Ok(mut findings) = found.lock() {
                        findings.take(id, run.as_ref(), &journal.of(id), asked.contains(id));
                    }
                }
            });
        }
    });
}

impl Findings {
    fn take(&mut self, id: &str, run: Result<&Value, &String>, executions: &[Execution], cancel_asked: bool) {
        let status = run.map_or("unknown", |run| run["status"].as_str().unwrap_or("unknown"));
        *self.ends.entry(status.to_owned()).or_default() += 1;
        let ended = executions.iter().filter(|e| e.end.is_some()).count();
        self.started_again += usize::from(executions.len() > 1);
        self.ended_twice += usize::from(ended > 1);
        self.longest_overlap = self.longest_overlap.max(longest_overlap(executions));
        let error = run.map_or_else(|e| e.as_str(), |run| run["error"].as_str().unwrap_or_default());
        let problem = match status {
            "COMPLETED" if ended > 0 => return,
            "COMPLETED" => "COMPLETED, and no execution has ended".to_owned(),
            "CANCELLED" if cancel_asked => return,
            "CANCELLED" => "CANCELLED, and no client asked for it".to_owned(),
            "FAILED" => {
                let kind = error.split(':').next().unwrap_or_default().to_owned();
                *self.failures.entry(kind.clone()).or_default() += 1;
                if kind != "job_lost" {
                    return;
                }
                error.to_owned()
            }
            status => format!("{status} {error}"),
        };
        self.lost.insert(id.to_owned(), problem);
    }
}

fn longest_overlap(executions: &[Execution]) -> f64 {
    let mut longest: f64 = 0.0;
    for (n, one) in executions.iter().enumerate() {
        for other in &executions[n + 1..] {
            longest = longest.max(one.seen.min(other.seen) - one.begin.max(other.begin));
        }
    }
    longest
}

/// All runs that the product has and that no client was promised, by status and error.
fn orphans(client: &Client, accepted: &BTreeSet<String>) -> Result<BTreeMap<String, usize>, Error> {
    let mut orphans = BTreeMap::new();
    let query =
        ListQuery { limit: Some(PAGE), tag: Some(super::STORM_TAG.to_owned()), ..ListQuery::default() };
    let mut cursor = None;
    loop {
        let paging = PageQuery { cursor, ..PageQuery::default() };
        let page = repeat(|| client.list_vnext(&query, &paging))?;
        for run in page["items"].as_array().into_iter().flatten() {
            if !accepted.contains(run["run_id"].as_str().unwrap_or_default()) {
                let error = run["error"].as_str().unwrap_or_default().split(':').next().unwrap_or_default();
                let what = format!("{} {error}", run["status"].as_str().unwrap_or_default());
                *orphans.entry(what.trim_end().to_owned()).or_default() += 1;
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(orphans),
        }
    }
}

fn repeat<T, E: ToString>(call: impl Fn() -> Result<T, E>) -> Result<T, String> {
    let mut problem = String::new();
    for _ in 0..REPEATS {
        match call() {
            Ok(answer) => return Ok(answer),
            Err(error) => problem = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(problem)
}

/// Writes what is known of lost and failed runs, and of the streams, to a file beside the logs.
pub fn keep_evidence(all: &Installation, findings: &Findings, journal: &Journal) -> Result<(), Error> {
    let mut text = String::new();
    for (call, body) in [
        ("STREAM.INFO.PYOCO_WORK", "{\"subjects_filter\":\">\"}"),
        ("STREAM.INFO.KV_pyoco_runs", ""),
        ("STREAM.INFO.PYOCO_ADVISORY", ""),
        ("CONSUMER.LIST.PYOCO_WORK", ""),
        ("CONSUMER.LIST.PYOCO_ADVISORY", ""),
    ] {
        let answer = all.nats.call(call, body).map_or_else(|e| e.to_string(), |answer| answer.to_string());
        writeln!(text, "# {call}\n{answer}\n")?;
    }
    let client = client(&all.urls()[0])?;
    let mut ids: Vec<String> = findings.lost.keys().take(MOST_EVIDENCE).cloned().collect();
    for status in ["PENDING", "RUNNING", "CANCELLING", "FAILED"] {
        let query = ListQuery { status: Some(status.to_owned()), ..ListQuery::default() };
        let list = client.list(&query).unwrap_or_default();
        let listed = list.as_array().into_iter().flatten().filter_map(|run| run["run_id"].as_str());
        ids.extend(listed.take(MOST_EVIDENCE).map(str::to_owned));
    }
    let logs: Vec<(&str, String)> = all.programs.iter().map(|program| log(all, &program.name)).collect();
    for id in ids {
        let snapshot = client.get_run(&id, Include::Records);
        writeln!(text, "# run {id}\n{:?}\n{snapshot:?}\n{:?}", findings.lost.get(&id), journal.of(&id))?;
        for (name, log) in &logs {
            for line in log.lines().filter(|line| line.contains(&id)) {
                writeln!(text, "{name}: {line}")?;
            }
        }
    }
    Ok(fs::write(all.dir.join("evidence.txt"), text)?)
}

fn log<'a>(all: &Installation, name: &'a str) -> (&'a str, String) {
    (name, fs::read_to_string(all.dir.join(format!("{name}.log"))).unwrap_or_default())
}
