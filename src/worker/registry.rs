//! The worker's own record: written regularly and on change, by one thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, select};

use super::{Context, Error};
use crate::bus::{self, Edit, Entry};
use crate::model::error::Code;
use crate::model::job::Job;
use crate::model::run::RunStatus;
use crate::model::worker::{WorkerRecord, WorkerState};
use crate::model::{clock, json};
use crate::thread::{self, JoinOnDrop};

/// Least time between two writes on change: a worker may end hundreds of runs a second.
const COALESCE: Duration = Duration::from_millis(250);
/// Between two looks at what executors say of themselves and whether the worker can work; a change is written
/// at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Notes that may wait while the thread writes; further ones hold their slots up.
const MAX_NOTES: usize = 4096;
/// For one write, also the last one on the way out.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Registry {
    pub(super) notes: RunNotes,
    /// Written once by the registry thread: host and pid of the process that took the id over.
    pub(super) taken_over: Receiver<String>,
    thread: JoinOnDrop,
}

/// A slot's end of the channel to the registry thread.
#[derive(Clone)]
pub(super) struct RunNotes(Sender<Note>);

enum Note {
    Started {
        run_id: String,
    },
    Finished {
        run_id: String,
        status: Option<RunStatus>,
        started_at: f64,
    },
    /// Write the last record and end.
    Stop,
    /// End without a word: the record belongs to somebody else.
    Abandon,
}

impl RunNotes {
    pub(super) fn started(&self, run_id: &str) {
        self.send(Note::Started { run_id: run_id.to_owned() });
    }

    /// It is not any more; without a status it has ended elsewhere or will come again.
    pub(super) fn finished(&self, run_id: &str, status: Option<RunStatus>, started_at: f64) {
        self.send(Note::Finished { run_id: run_id.to_owned(), status, started_at });
    }

    pub(super) fn forget_panicked(&self, payload: &[u8]) {
        if let Ok(job) = Job::parse(payload) {
            self.finished(&job.run_id, None, clock::now());
        }
    }

    fn send(&self, note: Note) {
        // The registry thread outlives the slots; if it has died, the record goes stale and says so.
        let _ = self.0.send(note);
    }
}

impl Registry {
    /// Starts the thread; the first record is written as soon as NATS can be reached.
    pub(super) fn start(context: &Arc<Context>) -> Result<Registry, Error> {
        let (sender, notes) = bounded(MAX_NOTES);
        let (tell, taken_over) = bounded(1);
        let body = RegistryThread::new(context.clone(), tell);
        let thread = thread::spawn("registry", move || body.run(&notes))?;
        Ok(Registry { notes: RunNotes(sender), taken_over, thread })
    }

    pub(super) fn stop_gracefully(self) {
        self.notes.send(Note::Stop);
        self.thread.join();
    }

    /// Ends and leaves the record to its new owner.
    pub(super) fn abandon(self) {
        self.notes.send(Note::Abandon);
        self.thread.join();
    }
}

struct RegistryThread {
    context: Arc<Context>,
    record: WorkerRecord,
    tell_taken_over: Sender<String>,
    /// Whether our record was stored once: only then is a foreign instance a takeover.
    registered: bool,
}

impl RegistryThread {
    fn new(context: Arc<Context>, tell_taken_over: Sender<String>) -> Self {
        let settings = &context.settings;
        let record = WorkerRecord {
            worker_id: settings.worker_id.clone(),
            instance_id: context.instance_id.clone(),
            tags: settings.tags.clone(),
            wheel_sync: wheel_sync(&context),
            concurrency: Some(context.slots.load(Ordering::Relaxed)),
            version: Some(crate::VERSION.to_owned()),
            hostname: Some(hostname()),
            pid: Some(std::process::id()),
            ..WorkerRecord::default()
        };
        RegistryThread { context, record, tell_taken_over, registered: false }
    }

    fn run(mut self, notes: &Receiver<Note>) {
        let interval = self.context.settings.registry.heartbeat_interval;
        let mut changed = false;
        let mut last_write: Option<Instant> = None;
        loop {
            let pause = if changed { COALESCE.min(interval) } else { interval };
            let due = last_write.map_or_else(Instant::now, |at| at + pause);
            let look = due.min(Instant::now() + LOOK_INTERVAL);
            select! {
                recv(notes) -> note => match note {
                    Ok(Note::Started { run_id }) => {
                        self.record.current_run_ids.push(run_id);
                        changed = true;
                    }
                    Ok(Note::Finished { run_id, status, started_at }) => {
                        self.note_finished(&run_id, status, started_at);
                        changed = true;
                    }
                    Ok(Note::Stop) => return self.stop(),
                    Ok(Note::Abandon) | Err(_) => return,
                },
                recv(at(look)) -> _ => {
                    if Instant::now() < due {
                        changed |= self.look_at_worker();
                        continue;
                    }
                    last_write = Some(Instant::now());
                    changed = false;
                    // While NATS is away it is the connection's business to say so.
                    if let Err(e) = self.write() {
                        changed = true;
                        if !matches!(e, bus::Error::Disconnected) {
                            log::warn!(worker_id = self.record.worker_id.as_str(),
                                error = e.to_string();
                                "cannot write the worker's record; trying again");
                        }
                    }
                }
            }
        }
    }

    /// Takes over what executors, wheels and the worker's health are like; `true` when it is not what it was.
    fn look_at_worker(&mut self) -> bool {
        let record = &mut self.record;
        let (reason, since) = match self.context.health.unavailable() {
            Some(why) => (Some(why.reason), Some(why.since)),
            None => (None, None),
        };
        let concurrency = Some(self.context.slots.load(Ordering::Relaxed));
        let is_other = record.unavailable_reason != reason || record.concurrency != concurrency;
        (record.unavailable_reason, record.unavailable_since) = (reason, since);
        record.concurrency = concurrency;
        self.look_at_executors() || is_other
    }

    fn look_at_executors(&mut self) -> bool {
        let executors = self.context.executors.iter();
        let fields = executors.filter_map(|executor| executor.record_field());
        let said = fields.map(|(name, value)| (name.to_owned(), value)).collect();
        let wheel_sync = wheel_sync(&self.context);
        let is_news = self.record.extra != said || has_other_wheels(&self.record.wheel_sync, &wheel_sync);
        self.record.extra = said;
        self.record.wheel_sync = wheel_sync;
        is_news
    }

    fn note_finished(&mut self, run_id: &str, status: Option<RunStatus>, started_at: f64) {
        if let Some(at) = self.record.current_run_ids.iter().position(|id| id == run_id) {
            self.record.current_run_ids.remove(at);
        }
        if let Some(status) = status {
            self.record.last_run_id = Some(run_id.to_owned());
            self.record.last_run_status = Some(status.as_str().to_owned());
            self.record.last_run_started_at = Some(started_at);
            self.record.last_run_finished_at = Some(clock::now());
        }
    }

    fn stop(mut self) {
        self.record.state = WorkerState::StoppedGraceful;
        self.record.stopped_at = Some(clock::now());
        self.record.stop_reason = Some("graceful_shutdown".to_owned());
        if let Err(e) = self.write() {
            log::warn!(worker_id = self.record.worker_id.as_str(), error = e.to_string();
                "cannot write the worker's last record; it will show as DISCONNECTED");
        }
    }

    fn write(&mut self) -> bus::Result<()> {
        let now = clock::now();
        self.look_at_worker();
        if self.record.state != WorkerState::StoppedGraceful {
            let idle = self.record.current_run_ids.is_empty();
            self.record.state = if idle { WorkerState::Idle } else { WorkerState::Running };
        }
        self.record.current_run_id = self.record.current_run_ids.first().cloned();
        self.record.last_seen_at = Some(now);
        self.record.last_heartbeat_at = Some(now);
        self.record.heartbeat_at = Some(now);
        self.record.updated_at = Some(now);
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let (record, is_registered) = (&mut self.record, self.registered);
        let worker_id = record.worker_id.clone();
        let edited = self.context.workers.edit(&worker_id, deadline, |newest| {
            let theirs = newest
                .and_then(Entry::live_value)
                .and_then(|value| json::from_wire::<WorkerRecord>(value).ok());
            if let Some(theirs) = theirs {
                // The operator's word, whoever wrote the rest.
                record.hidden = theirs.hidden;
                if theirs.instance_id != record.instance_id && is_registered {
                    return Ok(Edit::Leave(Some(theirs)));
                }
            }
            Ok::<_, bus::Error>(Edit::Put(json::to_wire(record)?, None))
        })?;
        match edited.result {
            Some(theirs) => self.tell_takeover(&theirs),
            None => self.registered = true,
        }
        Ok(())
    }

    fn tell_takeover(&self, theirs: &WorkerRecord) {
        let host = theirs.hostname.as_deref().unwrap_or("an unknown host");
        let pid = theirs.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        let by = format!("{host}, pid {pid}");
        let code = Code::CannotStart;
        log::error!(err_id = code.err_id(), msg_id = code.msg_id(),
            worker_id = self.record.worker_id.as_str(), reason = by.as_str();
            "another process has started under this worker id; stopping");
        // Told once is enough.
        let _ = self.tell_taken_over.try_send(by);
    }
}

/// The record's field, with all that a reader may look for.
fn wheel_sync(context: &Context) -> serde_json::Value {
    serde_json::to_value(context.wheels.get()).unwrap_or_default()
}

/// Whether more than the time of the last attempt is another one.
fn has_other_wheels(known: &serde_json::Value, now: &serde_json::Value) -> bool {
    let lasting = |value: &serde_json::Value| {
        let mut value = value.clone();
        for time in ["last_attempt_at", "last_success_at"] {
            value[time] = serde_json::Value::Null;
        }
        value
    };
    lasting(known) != lasting(now)
}

/// The machine's name, for people and for default worker ids.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
