//! Figures of the queue and the DLQ, fetched from NATS by a thread when somebody asks for them.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::bus::{TagBacklog, WorkQueue};
use crate::gateway::metrics::text::{Kind, Text};
use crate::model::clock;
use crate::model::limits::{
    BACKLOG_FRESH, BACKLOG_KEPT, BACKLOG_PATIENCE, BACKLOG_TIMEOUT, MAX_METRIC_LABELS,
};
use crate::thread::{self, JoinOnDrop, StopSignal, StopSource};

/// The newest figures, and the thread that fetches them.
///
/// Field order is the shutdown order.
pub struct BacklogFigures {
    shared: Arc<Shared>,
    /// Written by scrapes, read by the thread; one pending request is enough.
    kick: Sender<()>,
    _stop: StopSource,
    _thread: JoinOnDrop,
}

#[derive(Default)]
struct Shared {
    newest: Mutex<Newest>,
    renewed: Condvar,
}

#[derive(Default, Clone)]
struct Newest {
    tags: Vec<TagBacklog>,
    dlq_messages: u64,
    /// When they were fetched; `None` before the first time.
    at: Option<Instant>,
}

impl BacklogFigures {
    /// Starts the thread; it asks NATS only when it is asked itself.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(queue: WorkQueue) -> std::io::Result<BacklogFigures> {
        let (kick, kicked) = bounded(1);
        let (stop, stopped) = thread::stop_channel();
        let shared = Arc::new(Shared::default());
        let (queue, theirs) = (queue.with_timeout(BACKLOG_TIMEOUT), shared.clone());
        let thread = thread::spawn("backlog", move || run(&queue, &theirs, &kicked, &stopped))?;
        Ok(BacklogFigures { shared, kick, _stop: stop, _thread: thread })
    }

    /// Writes figures that are at most [`BACKLOG_FRESH`] old, or those that are known when NATS does
    /// not give any within [`BACKLOG_PATIENCE`]. `default_tag` is there also when it is empty.
    pub(crate) fn write(&self, nats_is_up: bool, default_tag: &str, text: &mut Text) {
        let newest = self.newest(nats_is_up);
        let known = newest.at.is_some_and(|at| at.elapsed() < BACKLOG_KEPT) || newest.at.is_none();
        let mut tags: Vec<&TagBacklog> =
            if known { newest.tags.iter().collect() } else { Vec::new() };
        let none = TagBacklog { tag: default_tag.to_owned(), ..TagBacklog::default() };
        if known && !tags.iter().any(|one| one.tag == default_tag) {
            tags.push(&none);
        }
        let mut family =
            text.family("pyoco_queue_depth", Kind::Gauge, "Jobs that no worker has taken yet.");
        for one in &tags {
            family.sample(&[("tag", &one.tag)], one.waiting as f64);
        }
        let help = "Jobs that workers have taken and not ended.";
        let mut family = text.family("pyoco_queue_in_flight", Kind::Gauge, help);
        for one in &tags {
            family.sample(&[("tag", &one.tag)], one.in_flight as f64);
        }
        let help = "Age of the oldest job that no worker has taken yet; 0 without one.";
        let mut family = text.family("pyoco_queue_oldest_age_seconds", Kind::Gauge, help);
        for one in &tags {
            let age = one.oldest_waiting.map_or(0.0, |at| (clock::now() - at).max(0.0));
            family.sample(&[("tag", &one.tag)], age);
        }
        let help = "Entries of the DLQ, as of the last contact with NATS.";
        text.single("pyoco_dlq_messages_total", Kind::Gauge, help, newest.dlq_messages as f64);
    }

    fn newest(&self, nats_is_up: bool) -> Newest {
        let deadline = Instant::now() + BACKLOG_PATIENCE;
        let mut newest = self.shared.lock();
        if !newest.is_fresh() && nats_is_up {
            let _ = self.kick.try_send(());
            let is_old = |newest: &mut Newest| !newest.is_fresh();
            self.shared.renewed.wait_while_until(&mut newest, is_old, deadline);
        }
        newest.clone()
    }
}

impl Newest {
    fn is_fresh(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < BACKLOG_FRESH)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock()
    }
}

fn run(queue: &WorkQueue, shared: &Shared, kicked: &Receiver<()>, stop: &StopSignal) {
    loop {
        select! {
            recv(stop) -> _ => return,
            recv(kicked) -> kick => if kick.is_err() { return },
        }
        // A kick that came while the last look was under way is answered by that look.
        if shared.lock().is_fresh() {
            continue;
        }
        let looked =
            queue.backlog(MAX_METRIC_LABELS).and_then(|tags| Ok((tags, queue.dlq_messages()?)));
        match looked {
            Ok((tags, dlq_messages)) => {
                *shared.lock() = Newest { tags, dlq_messages, at: Some(Instant::now()) };
                shared.renewed.notify_all();
            }
            Err(e) => log::debug!(error = e.to_string(); "cannot look at the queue for metrics"),
        }
    }
}
