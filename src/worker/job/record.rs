//! Writes one run's snapshot, by compare-and-set only, and finds out when the run is lost.

use std::time::{Duration, Instant};

use super::size_budget::SizeBudget;
use crate::bus::{self, Edit, Entry, Kv};
use crate::delivery::owner::Conflict;
use crate::delivery::{drive, owner};
use crate::flow::FlowEvent;
use crate::model::clock;
use crate::model::run::{Delivery, RunSnapshot, RunStatus};

/// Least time between two snapshot writes for task transitions (`docs/contract.md#writing-snapshots`).
const SNAPSHOT_COALESCE: Duration = Duration::from_millis(250);
/// What headers may add to a snapshot on its way to the server.
const HEADER_ROOM: usize = 2048;
/// Between a failed write and the next one.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// For one write of a run that goes on: its slot cannot see a cancel or a stop meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The owner of a run's snapshot for one attempt.
pub(crate) struct Recorder {
    kv: Kv,
    snapshot: RunSnapshot,
    revision: u64,
    /// ACK subjects of our deliveries; a snapshot with another one was claimed by another attempt, perhaps of
    /// this same worker.
    acks: Vec<String>,
    heartbeat_interval: Duration,
    budget: SizeBudget,
    /// Task transitions that are not stored yet.
    dirty: bool,
    last_write: Instant,
    /// After a failed write, an outage must not be met with a hot loop.
    not_before: Instant,
    /// Whether a task has changed its state, and whether that was ever stored: the first change goes
    /// out at once.
    has_transition: bool,
    wrote_transition: bool,
}

#[derive(Debug)]
pub(crate) enum NotWritten {
    /// Another worker has the run, or it has ended: stop, write nothing more, ACK nothing.
    Lost(String),
    /// So many tasks that no message can hold their names.
    TooManyTasks(usize),
    /// NATS trouble; the same write may succeed later.
    Trouble(bus::Error),
}

impl From<bus::Error> for NotWritten {
    fn from(error: bus::Error) -> Self {
        NotWritten::Trouble(error)
    }
}

impl Recorder {
    /// Takes over after a successful claim, which was stored at `revision`.
    pub(crate) fn new(
        kv: Kv,
        snapshot: RunSnapshot,
        revision: u64,
        heartbeat_interval: Duration,
        max_bytes: usize,
    ) -> Self {
        Recorder {
            kv: kv.with_timeout(WRITE_TIMEOUT),
            acks: snapshot.delivery.iter().map(|delivery| delivery.ack.clone()).collect(),
            snapshot,
            revision,
            heartbeat_interval,
            budget: SizeBudget::new(max_bytes),
            dirty: false,
            last_write: Instant::now(),
            not_before: Instant::now(),
            has_transition: false,
            wrote_transition: false,
        }
    }

    /// Whether somebody has asked to cancel, as far as writes have shown.
    pub(crate) fn is_cancelling(&self) -> bool {
        self.snapshot.status == RunStatus::Cancelling
    }

    /// Goes on under a newer delivery of the job, which the snapshot has to name.
    pub(crate) fn adopt(&mut self, delivery: Delivery) {
        self.acks.push(delivery.ack.clone());
        if !self.snapshot.status.is_terminal() {
            self.snapshot.attempt = Some(self.snapshot.attempt.unwrap_or(0) + 1);
            self.snapshot.delivery = Some(delivery);
            self.dirty = true;
        }
    }

    /// The ACK subjects by which the stored snapshot may name this attempt.
    pub(crate) fn acks(&self) -> &[String] {
        &self.acks
    }

    pub(crate) fn apply(&mut self, event: FlowEvent) {
        match event {
            FlowEvent::Wheels(set) => self.snapshot.set_wheels(&set),
            FlowEvent::Started { flow_name, tasks } => {
                self.snapshot.flow_name = flow_name;
                for task in tasks {
                    self.snapshot.tasks.entry(task).or_insert_with(|| "PENDING".into());
                }
            }
            FlowEvent::Task { name, record } => {
                self.has_transition = true;
                let state = serde_json::to_value(record.state).unwrap_or_default();
                self.snapshot.tasks.insert(name.clone(), state);
                self.budget.keep(&mut self.snapshot, name, record);
            }
            FlowEvent::Finished(_) => return,
        }
        self.dirty = true;
    }

    /// When the next write is due: for transitions soon, for the heartbeat in time.
    pub(crate) fn next_write(&self) -> Instant {
        let is_first = self.has_transition && !self.wrote_transition;
        let due = match self.dirty {
            true if is_first => self.last_write,
            true => self.last_write + SNAPSHOT_COALESCE.min(self.heartbeat_interval),
            false => self.last_write + self.heartbeat_interval,
        };
        due.max(self.not_before)
    }

    pub(crate) fn write(&mut self) -> Result<(), NotWritten> {
        let now = clock::now();
        self.snapshot.heartbeat_at = Some(now);
        self.snapshot.updated_at = Some(now);
        let written = self.store();
        if written.is_ok() {
            self.last_write = Instant::now();
            self.wrote_transition |= self.has_transition;
            self.dirty = false;
        } else {
            self.not_before = Instant::now() + RETRY_PAUSE;
        }
        written
    }

    /// Turns the run to a terminal state and writes it; may be repeated after `Trouble`.
    pub(crate) fn finish(&mut self, status: RunStatus, error: Option<String>) -> Result<(), NotWritten> {
        if !self.snapshot.status.is_terminal() {
            self.snapshot.finish(status, error, clock::now());
        }
        self.store()
    }

    pub(crate) fn snapshot(&self) -> &RunSnapshot {
        &self.snapshot
    }

    fn store(&mut self) -> Result<(), NotWritten> {
        loop {
            let (kv, run_id) = (self.kv.clone(), self.snapshot.run_id.clone());
            let first = Edit::Put(self.document()?, ());
            let edited =
                kv.edit_from(&run_id, self.revision, first, kv.deadline(), |newest| self.read_back(newest));
            match edited {
                Ok(edited) => {
                    self.revision = edited.written.map_or(self.revision, |entry| entry.revision);
                    return Ok(());
                }
                // The server's own limit is below ours: from now on it counts.
                Err(NotWritten::Trouble(bus::Error::TooLarge { limit, .. }))
                    if self.budget.max_bytes > limit.saturating_sub(HEADER_ROOM) =>
                {
                    self.budget.max_bytes = limit.saturating_sub(HEADER_ROOM);
                }
                // Without its records it is too large still; a run must be able to end.
                Err(NotWritten::Trouble(bus::Error::TooLarge { .. })) => {
                    if !owner::shrink(&mut self.snapshot, clock::now()) {
                        return Err(NotWritten::TooManyTasks(self.snapshot.tasks.len()));
                    }
                    self.budget.clear();
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    fn document(&mut self) -> Result<Vec<u8>, NotWritten> {
        let document = self.budget.document(&mut self.snapshot);
        document.map_err(|e| NotWritten::Lost(format!("its snapshot cannot be written as JSON: {e}")))
    }

    /// Another writer was quicker.
    fn read_back(&mut self, newest: Option<&Entry>) -> Result<Edit<()>, NotWritten> {
        let conflict =
            drive::newest(newest, |newest| owner::on_conflict(&mut self.snapshot, &self.acks, newest));
        match conflict {
            Conflict::Lost(why) => Err(NotWritten::Lost(why)),
            Conflict::Stored => Ok(Edit::Leave(())),
            Conflict::Again => Ok(Edit::Put(self.document()?, ())),
        }
    }
}
