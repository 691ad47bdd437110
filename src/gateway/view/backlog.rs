//! Figures of the queue and the DLQ, as they were fetched last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::bus::TagBacklog;

/// How old they may be when a scrape asks for them.
const FRESH: Duration = Duration::from_secs(2);
/// How long a scrape waits for newer ones.
const PATIENCE: Duration = Duration::from_millis(500);
/// After which those that could not be renewed are left out.
const KEPT: Duration = Duration::from_secs(60);

pub struct Backlog {
    newest: Mutex<Queued>,
    renewed: Condvar,
    wanted: AtomicBool,
    /// Wakes the chores; one pending kick is enough.
    kick: Sender<()>,
}

#[derive(Default, Clone)]
pub struct Queued {
    pub tags: Vec<TagBacklog>,
    pub dlq_messages: u64,
    /// When they were fetched; `None` before the first time.
    at: Option<Instant>,
}

impl Backlog {
    pub fn new(kick: Sender<()>) -> Backlog {
        let (newest, renewed) = (Mutex::default(), Condvar::new());
        Backlog { newest, renewed, wanted: AtomicBool::new(false), kick }
    }

    /// Figures at most [`FRESH`] old; older ones when NATS gives none within [`PATIENCE`].
    pub fn newest(&self, nats_is_up: bool) -> Queued {
        let deadline = Instant::now() + PATIENCE;
        let mut newest = self.newest.lock();
        if !newest.is_fresh() && nats_is_up {
            self.wanted.store(true, Ordering::Relaxed);
            let _ = self.kick.try_send(());
            let is_old = |newest: &mut Queued| !newest.is_fresh();
            self.renewed.wait_while_until(&mut newest, is_old, deadline);
        }
        newest.clone()
    }

    /// Whether a scrape has asked since the last look; that answers kicks that came meanwhile.
    pub fn is_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed) && !self.newest.lock().is_fresh()
    }

    pub fn renew(&self, tags: Vec<TagBacklog>, dlq_messages: u64) {
        *self.newest.lock() = Queued { tags, dlq_messages, at: Some(Instant::now()) };
        self.renewed.notify_all();
    }
}

impl Queued {
    fn is_fresh(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Whether they are young enough to be shown.
    pub fn is_kept(&self) -> bool {
        self.at.is_none_or(|at| at.elapsed() < KEPT)
    }
}
