//! Waiting for the end of a run.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Ending;
use super::failed_call::failure_of;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::client::{Client, Error, Include};
use crate::model::limits::{CLIENT_WAIT_PATIENCE, CLIENT_WAIT_PAUSES};

/// For a call at the end of the wait.
const LEAST_CALL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// `None` waits for ever.
    pub timeout: Option<Duration>,
    /// Whether the exit code tells how the run ended.
    pub exit_status: bool,
}

impl Wait {
    /// The run's terminal snapshot. Asks again and again, ever more slowly; a gateway that is away
    /// for less than [`CLIENT_WAIT_PATIENCE`] does not end the wait.
    pub fn snapshot(&self, client: &Client, run_id: &str) -> Result<Value, Ending> {
        let end = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let left = || end.map(|end| end.saturating_duration_since(Instant::now()));
        let mut pause = CLIENT_WAIT_PAUSES.0;
        let mut answered = Instant::now();
        loop {
            // No call outlives the wait; the first one always gets a chance.
            let call = left().unwrap_or(Duration::MAX).max(LEAST_CALL);
            match client.within(call).get_run(run_id, Include::Snapshot) {
                Ok(snapshot) if is_terminal(&snapshot) => return Ok(snapshot),
                Ok(_) => answered = Instant::now(),
                Err(_) if left() == Some(Duration::ZERO) => {}
                Err(error) if is_passing(&error) && answered.elapsed() < CLIENT_WAIT_PATIENCE => {}
                Err(error) => return Err(failure_of(error).into()),
            }
            if left() == Some(Duration::ZERO) {
                return Err(timed_out(run_id, self.timeout.unwrap_or_default(), self.exit_status).into());
            }
            // Ctrl-C ends the program from within its signal.
            std::thread::sleep(pause.min(left().unwrap_or(pause)));
            pause = (pause * 2).min(CLIENT_WAIT_PAUSES.1);
        }
    }
}

/// How the program ends after the run has; with `exit_status` that says how the run did.
pub(super) fn exit_of(snapshot: &Value, exit_status: bool) -> Exit {
    match snapshot["status"].as_str() {
        Some("FAILED") if exit_status => Exit::RunFailed,
        Some("CANCELLED") if exit_status => Exit::RunCancelled,
        _ => Exit::Done,
    }
}

pub(super) fn timed_out(run_id: &str, timeout: Duration, exit_status: bool) -> Failure {
    let timeout = timeout.as_secs_f64();
    Failure {
        exit: if exit_status { Exit::TimedOut } else { Exit::Failed },
        id: "ERR-PYOCO-CANCEL".to_owned(),
        title: "the wait timed out",
        reason: format!("run {run_id} has not ended within {timeout} s"),
        usage: None,
        hint: format!(
            "see it with `pyoco-client get {run_id}`, and whether a worker serves its tag; \
             raise --timeout-sec to wait longer"
        ),
    }
}

pub(super) fn is_terminal(snapshot: &Value) -> bool {
    matches!(snapshot["status"].as_str(), Some("COMPLETED" | "FAILED" | "CANCELLED"))
}

pub(super) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::TimedOut { .. } | Error::Broken { .. } => true,
        Error::Status { status, .. } => matches!(status, 429 | 502 | 503 | 504),
        _ => false,
    }
}
