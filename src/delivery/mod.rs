//! How a run gets from the queue to its end, whatever fails: the delivery protocol as decisions.
//!
//! A step of the protocol is a [`Protocol`]: it says what to ask NATS for next, decides on the newest
//! snapshot of the run, and is told the answer. It reads no clock, no channel and no socket. [`drive`]
//! carries the steps out over the bus; the simulator (`examples/simulate`) carries the same steps out over
//! a model of JetStream, with faults between any two of them.
//!
//! The rules that keep a run from being lost or counted wrongly:
//!
//! - A snapshot names the message that stands for its run (`job_seq`), once a worker or a requeue has written
//!   it. A message is removed only when the run has ended, or when the snapshot names another one.
//! - A message that was published anew carries the revision that it was decided on. Only a write that expects
//!   this very revision names it. So it is not removed while the snapshot is at this revision.
//! - A worker that gives a job back says so in the snapshot first. Only a claim over a snapshot that was not
//!   released counts as the death of a worker. How often NATS has delivered a message counts for nothing.
//! - After any trouble a step begins anew; each of them may be repeated from its start.
//!
//! This floor does not know how a flow is executed, HTTP, or when a step is due.

pub mod cancel;
pub mod claim;
pub mod drive;
pub mod give_back;
pub mod mends;
pub mod owner;
pub mod reconcile;
pub mod requeue;
pub mod rescue;
pub mod undelivered;
pub mod undo;

use std::time::Duration;

use mends::Mend;

use crate::bus::Meta;
use crate::model::job::Job;
use crate::model::limits::MISSED_HEARTBEATS;
use crate::model::run::{Delivery, RunSnapshot, RunStatus};

/// It writes every second by default.
const LEAST_FOREIGN_SILENCE: Duration = Duration::from_secs(6);

/// The newest message of a run's key.
#[derive(Debug, Clone, Copy)]
pub struct Newest<'a> {
    /// 0 when there never was one.
    pub revision: u64,
    pub stored: Stored<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    Missing,
    /// A tombstone: the submit was taken back, or an operator has deleted the run.
    Deleted,
    /// It cannot be read; the job itself says all that is needed.
    Unreadable,
    Run(&'a RunSnapshot),
}

/// What becomes of the snapshot.
#[derive(Debug, Clone)]
pub enum Change {
    Put(Box<RunSnapshot>),
    Delete,
    Leave,
}

/// One request to NATS.
#[derive(Debug, PartialEq)]
pub enum Ask {
    /// Change the snapshot by compare-and-set, as [`Protocol::edit`] decides on the newest one.
    Edit,
    /// Is the message of this sequence in the queue, and of this run?
    Find(u64),
    /// Publish the job anew under this message id, with the revision that the decision was made on.
    /// The run had lost so many attempts by then.
    Publish { id: String, revision: u64, lost: u64 },
    /// Remove the message of this sequence, which nobody has in hand.
    Remove(u64),
    /// Settle the delivery in hand.
    Settle(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Ack,
    Nak(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// The revision that was written; `None` when the snapshot was left as it is.
    Edited(Option<u64>),
    Found(bool),
    /// The sequence of the message, and whether it was there under this id before.
    Published {
        seq: u64,
        duplicate: bool,
    },
    /// Removed or settled.
    Done,
}

#[derive(Debug)]
pub enum Step<E> {
    Ask(Ask),
    End(E),
}

/// A step of the protocol. Where an [`Ask`] fails, it is dropped and begun anew later.
pub trait Protocol {
    type End;

    fn next(&mut self) -> Step<Self::End>;

    /// Decides on the newest snapshot; called again when another writer was quicker, the last call counts.
    fn edit(&mut self, newest: &Newest<'_>) -> Change;

    fn answered(&mut self, answer: Answer);
}

/// Bounds of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many attempts may end with the death of their worker (`PYOCO_CONSUMER_MAX_DELIVER`); `None`:
    /// any number.
    max_lost: Option<u64>,
    /// How often the server delivers one message.
    max_deliver: Option<u64>,
}

impl Limits {
    /// `max_lost` as it is configured, not positive for no bound; `max_deliver` as the consumer has it.
    pub fn new(max_lost: i64, max_deliver: Option<u64>) -> Limits {
        Limits { max_lost: u64::try_from(max_lost).ok().filter(|max| *max > 0), max_deliver }
    }

    fn is_exceeded(self, lost: u64) -> bool {
        self.max_lost.is_some_and(|max| lost >= max)
    }

    /// Whether a job is to be published anew rather than delivered on: well before the server's own end, when
    /// what is left of its deliveries may not suffice for the attempts that the run has left. Never at the
    /// first delivery: that one has to be executed.
    fn wants_requeue(self, num_delivered: u64, lost: u64) -> bool {
        let Some(max_deliver) = self.max_deliver.filter(|_| mends::is_in(Mend::OnlyDeathsCount)) else {
            return false;
        };
        let is_late = num_delivered >= max_deliver.div_ceil(2).max(2);
        let left = (max_deliver + 1).saturating_sub(num_delivered);
        is_late && self.max_lost.is_none_or(|max| left < max.saturating_sub(lost))
    }
}

/// What a message is to its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It stands for the run: the snapshot names it, or none.
    Ours,
    /// It was published anew, and the snapshot is as it was when that was decided: whoever has published it
    /// has not named it yet, and cannot any more once this delivery has written.
    Unnamed,
    /// The snapshot names the message of this sequence, and no write that names this one can succeed any
    /// more.
    Other(u64),
}

/// `gone`: a message that the snapshot may name and that is not in the queue.
fn standing(job: &Job, seq: u64, newest: (u64, &RunSnapshot), gone: Option<u64>) -> Standing {
    let (revision, snapshot) = newest;
    let held = snapshot.delivery.as_ref().and_then(stream_seq);
    let named = snapshot.job_seq.or(held);
    match named {
        Some(named) if named == seq => Standing::Ours,
        _ if job.requeued_at_revision == Some(revision) => Standing::Unnamed,
        Some(named) if Some(named) != gone => Standing::Other(named),
        // A worker of the Python side may have written over the name.
        _ => Standing::Ours,
    }
}

/// Whether a later delivery of this very message has been claimed: then this one means nothing any more, and
/// a NAK of it would hit the other one, since NATS counts by message.
fn is_superseded(snapshot: &RunSnapshot, seq: u64, num: u64) -> bool {
    let held = snapshot.delivery.as_ref();
    held.is_some_and(|held| stream_seq(held) == Some(seq) && num_delivered(held) > Some(num))
}

/// Attempts that were lost, as far as the snapshot and the job know: a worker of the Python side keeps only
/// what the job says.
fn lost_attempts(job: &Job, snapshot: &RunSnapshot) -> u64 {
    snapshot.lost_attempts.unwrap_or(0).max(job.lost_attempts.unwrap_or(0))
}

/// How long a run of a worker that knows nothing of deliveries may be silent; `heartbeat` is the interval
/// that this installation has set.
pub fn foreign_silence(heartbeat: Duration) -> Duration {
    LEAST_FOREIGN_SILENCE.max(heartbeat.saturating_mul(MISSED_HEARTBEATS))
}

fn stream_seq(delivery: &Delivery) -> Option<u64> {
    Meta::parse(&delivery.ack).map(|meta| meta.stream_seq)
}

fn num_delivered(delivery: &Delivery) -> Option<u64> {
    Meta::parse(&delivery.ack).map(|meta| meta.num_delivered)
}

/// Whether a worker has it that knows nothing of deliveries: one of the Python side. It writes its id into
/// its first snapshot only.
fn is_foreign(snapshot: &RunSnapshot) -> bool {
    let names_its_job = snapshot.delivery.is_some() || snapshot.job_seq.is_some();
    snapshot.status == RunStatus::Running && !names_its_job
}

/// Text of the `error` of a run whose workers have died too often.
fn exceeded(lost: u64) -> String {
    match lost {
        1 => "max_deliver_exceeded: its worker died during the run".to_owned(),
        _ => format!("max_deliver_exceeded: {lost} attempts have ended with the death of their worker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn job() -> Job {
        Job::parse(br#"{"run_id":"r","flow_name":"main","params":{"a":1}}"#).unwrap()
    }

    pub fn delivery(stream_seq: u64, num_delivered: u64) -> Delivery {
        let ack = format!(
            "$JS.ACK.PYOCO_WORK.pyoco_workers_default.{num_delivered}.{stream_seq}.9.1700000000000000000.0"
        );
        Delivery::new(ack, "i".into(), 1.0)
    }

    pub fn held(by: Delivery) -> RunSnapshot {
        let mut snapshot = job().pending_snapshot(1.0);
        snapshot.status = RunStatus::Running;
        snapshot.worker_id = Some("other".into());
        snapshot.attempt = Some(1);
        snapshot.delivery = Some(by);
        snapshot
    }

    #[test]
    fn a_job_is_published_anew_well_before_the_server_gives_it_up() {
        let limits = Limits::new(20, Some(20));
        assert!(!limits.wants_requeue(9, 0) && limits.wants_requeue(10, 0));
        assert!(limits.wants_requeue(10, 8), "one delivery was given back");
        assert!(!limits.wants_requeue(10, 9), "each delivery has cost a worker: both bounds come at once");
        // With one or two deliveries there is nothing before the last one: the sweep publishes it anew.
        assert!(!Limits::new(20, Some(1)).wants_requeue(1, 0));
        assert!(!Limits::new(2, Some(2)).wants_requeue(2, 1) && Limits::new(2, Some(2)).wants_requeue(2, 0));
        assert!(!Limits::new(20, None).wants_requeue(1_000, 0));
        assert!(Limits::new(-1, Some(4)).wants_requeue(2, 1_000), "any number of workers may die");
        assert!(Limits::new(3, None).is_exceeded(3) && !Limits::new(3, None).is_exceeded(2));
        assert!(!Limits::new(-1, None).is_exceeded(1_000_000));
    }
}
