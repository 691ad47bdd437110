//! Clients that remember every 200, and a file to which each execution of a run adds a line: together they
//! say what had to become of each run, and no gateway is asked.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::http::Client;
use crate::support::wait::{PATIENCE, eventually};

/// Served by all workers.
pub const MIXED: &str = "mixed";
/// Served by all but the Python worker, which can overwrite a cancel.
pub const RUST: &str = "rust";
/// Between two submits of one client.
const PAUSE: Duration = Duration::from_millis(150);
/// From the submit of a run to its cancel.
const CANCEL_AFTER: Duration = Duration::from_millis(400);

/// The flow `note`: a run says its token in the file, and takes its time. One that is `held` goes on until
/// its worker dies, and ends soon in its next attempt.
pub fn flows(file: &Path) -> String {
    FLOWS.replace("FILE", &file.display().to_string())
}

const FLOWS: &str = r#"
import time
from pyoco import Flow, task


def note(ctx, token, sec):
    with open("FILE", "a+") as lines:
        lines.seek(0)
        if token.startswith("held") and token in lines.read().split():
            sec = 0.1
        lines.write(token + "\n")
    end = time.monotonic() + sec
    while time.monotonic() < end:
        if ctx.is_cancelled:
            return "stopped"
        time.sleep(0.02)
    return token


def resolve_flow(name):
    if name != "note":
        raise KeyError(name)
    flow = Flow(name=name)
    flow >> task(note)
    return flow
"#;

#[derive(Debug, Clone)]
pub struct Accepted {
    pub run_id: String,
    pub token: String,
    /// A gateway has accepted the cancel.
    pub is_cancelled: bool,
}

pub struct Oracle {
    file: PathBuf,
    accepted: Mutex<Vec<Accepted>>,
    /// Gateways, by the name of their client.
    gateways: Mutex<Vec<(&'static str, Client)>>,
    is_over: AtomicBool,
}

impl Oracle {
    pub fn new(file: PathBuf) -> Oracle {
        std::fs::write(&file, "").unwrap();
        Oracle {
            file,
            accepted: Mutex::default(),
            gateways: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Submits to one gateway, which may be away for a while, until all is over. Some runs are cancelled
    /// through any gateway; some are submitted again, under their key, to each gateway that knows keys.
    pub fn client(&self, name: &'static str, gateway: &Client, knows_keys: bool) {
        self.gateways.lock().unwrap().push((name, gateway.clone()));
        let mut to_cancel: Vec<(Accepted, Instant)> = Vec::new();
        for number in 0.. {
            let is_over = self.is_over.load(Ordering::Relaxed);
            let due = to_cancel.extract_if(.., |(_, at)| is_over || at.elapsed() >= CANCEL_AFTER);
            due.for_each(|(run, _)| self.cancel(run));
            if is_over {
                return;
            }
            let token = format!("{name}-{number}");
            let (is_to_cancel, is_repeated) = (number % 6 == 5, number % 6 == 2 && knows_keys);
            let (tag, sec) = if is_to_cancel { (RUST, 60.0) } else { (MIXED, 0.1) };
            if let Some(run_id) = submit(gateway, tag, &token, sec, is_repeated) {
                let run = Accepted { run_id, token, is_cancelled: false };
                if is_repeated {
                    self.repeat(&run);
                }
                match is_to_cancel {
                    true => to_cancel.push((run, Instant::now())),
                    false => self.accepted.lock().unwrap().push(run),
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Submits a run that goes on until its worker dies; its id.
    pub fn hold(&self, gateway: &Client, tag: &str) -> String {
        let token = format!("held-{tag}");
        let run_id = submit(gateway, tag, &token, 60.0, false).expect("it is accepted");
        self.accepted.lock().unwrap().push(Accepted {
            run_id: run_id.clone(),
            token: token.clone(),
            is_cancelled: false,
        });
        eventually(PATIENCE, "the held run executes", || {
            self.executions().contains_key(&token).then_some(())
        });
        run_id
    }

    /// Through the gateways in turn until one has accepted it.
    fn cancel(&self, mut run: Accepted) {
        eventually(PATIENCE, "a gateway cancels", || {
            let mut gateways = self.gateways.lock().unwrap();
            gateways.rotate_left(1);
            let gateway = gateways[0].1.clone();
            drop(gateways);
            let answer = gateway.try_request("POST", &format!("/runs/{}/cancel", run.run_id), &[], b"");
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        });
        run.is_cancelled = true;
        self.accepted.lock().unwrap().push(run);
    }

    /// To every gateway that knows keys and is there: it is the same run.
    fn repeat(&self, run: &Accepted) {
        let gateways = self.gateways.lock().unwrap().clone();
        for (name, gateway) in gateways.iter().filter(|(name, _)| *name != PYTHON) {
            let again = submit(gateway, MIXED, &run.token, 0.1, true);
            assert!(again.is_none_or(|again| again == run.run_id), "another run at {name}: {run:?}");
        }
    }

    /// Ends the clients; they cancel what they have still to cancel.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().unwrap().clone()
    }

    /// How often each token was executed.
    pub fn executions(&self) -> BTreeMap<String, usize> {
        let mut executions = BTreeMap::new();
        for token in std::fs::read_to_string(&self.file).unwrap().lines() {
            *executions.entry(token.to_owned()).or_default() += 1;
        }
        executions
    }

    /// Waits for so many further executions.
    pub fn wait_executions(&self, further: usize) {
        let before = self.executions().len();
        eventually(PATIENCE, "runs execute", || (self.executions().len() >= before + further).then_some(()));
    }

    /// Every run that was accepted is in `ended`, with the status that it has to have, and was executed as
    /// often as it has to be; those in `twice` may have been executed once more.
    pub fn assert_right(&self, ended: &BTreeMap<String, String>, twice: &HashSet<String>) {
        let executions = self.executions();
        let accepted = self.accepted();
        let ids: HashSet<&str> = accepted.iter().map(|run| run.run_id.as_str()).collect();
        assert_eq!(ids.len(), accepted.len(), "a run was accepted twice");
        for run in &accepted {
            let status = ended.get(&run.run_id).map(String::as_str);
            let wanted = if run.is_cancelled { "CANCELLED" } else { "COMPLETED" };
            assert_eq!(status, Some(wanted), "{run:?}");
            let count = executions.get(&run.token).copied().unwrap_or(0);
            let most = 1 + usize::from(twice.contains(&run.run_id));
            let least = usize::from(!run.is_cancelled);
            assert!((least..=most).contains(&count), "executed {count} times: {run:?}");
        }
    }
}

/// The name of the client of the Python gateway.
pub const PYTHON: &str = "python";

/// The id of the run when the gateway has accepted it.
fn submit(gateway: &Client, tag: &str, token: &str, sec: f64, with_key: bool) -> Option<String> {
    let body = json!({"flow_name": "note", "tag": tag, "params": {"token": token, "sec": sec}}).to_string();
    let mut headers = vec![("Content-Type", "application/json")];
    if with_key {
        headers.push(("Idempotency-Key", token));
    }
    let answer = gateway.try_request("POST", "/runs", &headers, body.as_bytes()).ok()?;
    (answer.status == 200).then(|| answer.json()["run_id"].as_str().unwrap().to_owned())
}
