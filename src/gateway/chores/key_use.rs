//! Notes when keys were used, and ends the streams of keys whose time is over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{select, tick};

use crate::bus::{self, Edit, Entry, Kv};
use crate::gateway::view::keys::KeyMirror;
use crate::model::key::{self, KeyRecord};
use crate::model::limits::LAST_USED_STEP;
use crate::model::{clock, json};
use crate::thread::{self, JoinOnDrop, StopSignal, StopSource};

const INTERVAL: Duration = Duration::from_secs(1);
/// For one note; nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// After a note that could not be written, perhaps because NATS lets this gateway only read.
const PAUSE: Duration = Duration::from_secs(60);

/// The notes; the thread that writes them ends with this value.
///
/// Field order is the shutdown order.
pub(crate) struct Care {
    /// Keys whose use is to be noted; written by handlers, read by the thread.
    used: Arc<Mutex<HashSet<String>>>,
    _stop: StopSource,
    _thread: JoinOnDrop,
}

impl Care {
    pub(crate) fn start(records: Kv, mirror: KeyMirror) -> std::io::Result<Care> {
        let used = Arc::<Mutex<HashSet<String>>>::default();
        let (stop, stopped) = thread::stop_channel();
        let keeper = Keeper { records, mirror, used: Arc::clone(&used) };
        let thread = thread::spawn("key-care", move || keeper.run(&stopped))?;
        Ok(Care { used, _stop: stop, _thread: thread })
    }

    /// A key has opened something.
    pub(crate) fn used(&self, record: &KeyRecord) {
        if is_stale(record, clock::now()) {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert(record.key_id.clone());
        }
    }
}

/// Whether what the record says of its use is too old to be left. One note per step is enough, over
/// all gateways: each sees those of the others.
fn is_stale(record: &KeyRecord, now: f64) -> bool {
    record.last_used_at.is_none_or(|at| now - at >= LAST_USED_STEP.as_secs_f64())
}

struct Keeper {
    records: Kv,
    mirror: KeyMirror,
    used: Arc<Mutex<HashSet<String>>>,
}

impl Keeper {
    fn run(&self, stop: &StopSignal) {
        let look = tick(INTERVAL);
        let mut resume_at = Instant::now();
        let mut looked_at = clock::now();
        loop {
            select! {
                recv(stop) -> _ => return,
                recv(look) -> _ => {}
            }
            let now = clock::now();
            self.mirror.end_expired(looked_at, now);
            looked_at = now;
            if Instant::now() >= resume_at && !self.note(now, stop) {
                resume_at = Instant::now() + PAUSE;
            }
        }
    }

    /// `false` when a note could not be written.
    fn note(&self, now: f64, stop: &StopSignal) -> bool {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        for key_id in used {
            if thread::is_stopped(stop) {
                return true;
            }
            let deadline = Instant::now() + TIMEOUT;
            let noted = self.records.edit(&key::record_key(&key_id), deadline, |newest| {
                match newest.and_then(Entry::live_value).map(json::from_wire::<KeyRecord>) {
                    Some(Ok(record)) if is_stale(&record, now) => {
                        let record = KeyRecord { last_used_at: Some(now), ..record };
                        Ok::<_, bus::Error>(Edit::Put(json::to_wire(&record)?, ()))
                    }
                    // Deleted, unreadable, or another gateway has noted it.
                    _ => Ok(Edit::Leave(())),
                }
            });
            match noted.map(|edited| edited.written) {
                Ok(Some(entry)) => self.mirror.wrote(entry.key, entry.value, entry.revision),
                Ok(None) => {}
                Err(e) => {
                    log::debug!(key_id = key_id.as_str(), error = e.to_string();
                        "cannot note the use of an API key");
                    return false;
                }
            }
        }
        true
    }
}
