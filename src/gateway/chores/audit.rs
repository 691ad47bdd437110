//! Stores entries of the audit that NATS did not take at once: a stream may have no leader for some seconds
//! while others have one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Next, TIMEOUT, Turn};
use crate::bus::{AuditLog, Noted};
use crate::model::audit::AuditEntry;
use crate::model::error::Code;
use crate::model::json;

/// An answer waits for its entry; one that takes longer is stored in the background.
const NOW_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two tries in the background.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// After which an entry goes to the log instead: less than the two minutes in which NATS knows its id.
const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// Entries that wait at most; each takes about a kilobyte.
const MAX_WAITING: usize = 1_000;

#[derive(Clone)]
pub struct Audit {
    log: AuditLog,
    waiting: Arc<Waiting>,
}

/// Entries that are not stored yet, the oldest first.
#[derive(Default)]
struct Waiting(Mutex<VecDeque<Entry>>);

#[derive(Clone)]
struct Entry {
    entry: AuditEntry,
    noted: Noted,
    since: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().iter().for_each(|waiting| tell_lost(&waiting.entry, "the gateway stops"));
    }
}

impl Audit {
    pub fn new(log: AuditLog) -> Audit {
        Audit { log, waiting: Arc::default() }
    }

    pub fn note(&self, entry: AuditEntry) {
        let noted = json::to_wire(&entry)
            .map_err(|e| e.to_string())
            .and_then(|bytes| self.log.note(&entry.action, bytes).map_err(|e| e.to_string()));
        let noted = match noted {
            Ok(noted) => noted,
            Err(e) => return tell_lost(&entry, &e),
        };
        let Err(e) = self.log.with_timeout(NOW_TIMEOUT).store(&noted) else { return };
        let mut waiting = self.waiting.0.lock();
        if !e.may_pass() || waiting.len() >= MAX_WAITING {
            return tell_lost(&entry, &e.to_string());
        }
        waiting.push_back(Entry { entry, noted, since: Instant::now() });
    }

    pub(super) fn run(&self, turn: &Turn<'_>) -> Next {
        loop {
            let Some(first) = self.waiting.0.lock().front().cloned() else { return Next::InTime };
            if turn.is_over() {
                return Next::Again;
            }
            match self.log.with_timeout(TIMEOUT).store(&first.noted) {
                Ok(()) => {}
                Err(e) if e.may_pass() && first.since.elapsed() < GIVE_UP_AFTER => return Next::InTime,
                Err(e) => tell_lost(&first.entry, &e.to_string()),
            }
            self.waiting.0.lock().pop_front();
        }
    }
}

fn tell_lost(entry: &AuditEntry, why: &str) {
    let code = Code::NatsUnavailable;
    log::error!(err_id = code.err_id(), msg_id = code.msg_id(), error = why,
        request_id = entry.request_id.as_deref().unwrap_or_default(), actor = entry.actor.as_str(),
        action = entry.action.as_str(), object = entry.object.as_deref().unwrap_or_default(),
        status = entry.status, address = entry.address.as_deref().unwrap_or_default();
        "cannot append to the audit");
}
