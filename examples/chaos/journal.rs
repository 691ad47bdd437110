//! What the tasks have left in a file: the side effects that the oracle compares with the answers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Error;

const LOOK: Duration = Duration::from_millis(20);

/// One execution of a run, as far as it got.
#[derive(Clone, Debug)]
pub struct Execution {
    pub worker: String,
    /// Unix seconds.
    pub begin: f64,
    /// The last sign of life: its task leaves one every second, and at its end.
    pub seen: f64,
    /// `None`: cut off, or still going on.
    pub end: Option<f64>,
}

/// All executions of all runs. A thread reads what is added to the file.
#[derive(Clone)]
pub struct Journal {
    runs: Arc<Mutex<HashMap<String, Vec<Execution>>>>,
    ended: Arc<AtomicUsize>,
}

impl Journal {
    /// Makes the file and reads it from then on.
    pub fn start(path: &Path) -> Result<Journal, Error> {
        File::create(path)?;
        let mut file = File::open(path)?;
        let journal = Journal { runs: Arc::default(), ended: Arc::default() };
        let shared = journal.clone();
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            while file.read_to_end(&mut rest).is_ok() {
                let whole = rest.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
                let lines: Vec<u8> = rest.drain(..whole).collect();
                shared.take(&String::from_utf8_lossy(&lines));
                std::thread::sleep(LOOK);
            }
        });
        Ok(journal)
    }

    fn take(&self, lines: &str) {
        let Ok(mut runs) = self.runs.lock() else { return };
        for line in lines.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [run_id, word, worker, time] = words[..] else { continue };
            let Ok(time) = time.parse::<f64>() else { continue };
            let run = runs.entry(run_id.to_owned()).or_default();
            if word == "begin" {
                run.push(Execution { worker: worker.to_owned(), begin: time, seen: time, end: None });
                continue;
            }
            if let Some(e) = run.iter_mut().rev().find(|e| e.worker == worker && e.end.is_none()) {
                e.seen = time;
            }
            if word == "alive" {
                continue;
            }
            if run.iter().all(|e| e.end.is_none()) {
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(e) = run.iter_mut().rev().find(|e| e.worker == worker && e.end.is_none()) {
                e.end = Some(time);
            }
        }
    }

    /// How many runs have ended at least once.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    pub fn of(&self, run_id: &str) -> Vec<Execution> {
        self.runs.lock().ok().and_then(|runs| runs.get(run_id).cloned()).unwrap_or_default()
    }
}

/// Unix seconds.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
