//! Carries steps of the protocol out over NATS.

use std::time::{Duration, Instant};

use super::{Answer, Ask, Change, Newest, Protocol, Step, Stored, Verdict, owner};
use crate::bus::{self, Delivered, Edit, Entry, Kv, WorkQueue};
use crate::model::job::{self, Job};
use crate::model::run::RunSnapshot;
use crate::model::{clock, json};

/// Longest step: a look, a publish, a write and a removal, each repeated for a named message that is gone.
const MAX_ASKS: usize = 64;

/// A NAK that comes later than this after the beginning of its step may hit another delivery: whether the job
/// still is in these hands was asked then, and the snapshot was looked at.
pub const NAK_WITHIN: Duration = Duration::from_secs(2);

/// Carries out steps of one run.
pub struct Driver<'a> {
    pub runs: &'a Kv,
    pub queue: &'a WorkQueue,
    pub run_id: &'a str,
    /// Its tag and its bytes, to be published anew.
    pub message: (&'a str, &'a [u8]),
    /// The delivery in hand; without it nothing can be settled.
    pub delivered: Option<&'a Delivered>,
}

impl Driver<'_> {
    /// Asks until the step ends. `wrote` gets each snapshot that was stored. Each request has the deadline of
    /// the bucket; an error leaves the step undone, to be begun anew.
    pub fn run<P: Protocol>(&self, protocol: &mut P, mut wrote: impl FnMut(Entry)) -> bus::Result<P::End> {
        let begun = clock::since_boot();
        for _ in 0..MAX_ASKS {
            let answer = match protocol.next() {
                Step::End(end) => return Ok(end),
                Step::Ask(Ask::Edit) => {
                    let edit = |newest: &Newest<'_>| protocol.edit(newest);
                    let written = edit_run(self.runs, self.run_id, self.runs.deadline(), edit)?;
                    let revision = written.as_ref().map(|entry| entry.revision);
                    written.into_iter().for_each(&mut wrote);
                    Answer::Edited(revision)
                }
                Step::Ask(Ask::Find(seq)) => Answer::Found(is_queued(self.queue, seq, self.run_id)?),
                Step::Ask(Ask::Publish { id, revision, lost }) => {
                    let (tag, payload) = self.message;
                    let payload = job::requeued(payload, revision, lost)?;
                    let ack = self.queue.publish(tag, &id, &payload, self.runs.deadline())?;
                    Answer::Published { seq: ack.seq, duplicate: ack.duplicate }
                }
                Step::Ask(Ask::Remove(seq)) => {
                    self.queue.remove_job(seq)?;
                    Answer::Done
                }
                // This process has stood still meanwhile, or NATS was slow.
                Step::Ask(Ask::Settle(Verdict::Nak(_))) if clock::elapsed(begun) >= NAK_WITHIN => {
                    return Err(bus::Error::Conflict(self.run_id.to_owned()));
                }
                Step::Ask(Ask::Settle(verdict)) => {
                    self.settle(verdict)?;
                    Answer::Done
                }
            };
            protocol.answered(answer);
        }
        Err(bus::Error::Conflict(self.run_id.to_owned()))
    }

    fn settle(&self, verdict: Verdict) -> bus::Result<()> {
        match (self.delivered, verdict) {
            (Some(delivered), Verdict::Ack) => delivered.ack(),
            (Some(delivered), Verdict::Nak(delay)) => delivered.nak(delay),
            (None, _) => Ok(()),
        }
    }
}

/// Whether the message of this sequence is in the queue, and of this run.
pub fn is_queued(queue: &WorkQueue, seq: u64, run_id: &str) -> bus::Result<bool> {
    let job = queue.stored_job(seq)?.and_then(|stored| Job::parse(&stored.payload).ok());
    Ok(job.is_some_and(|job| job.run_id == run_id))
}

/// Changes a run's snapshot by compare-and-set as `decide` says; what no message can hold is made smaller.
/// The message that was stored, if any.
pub fn edit_run(
    runs: &Kv,
    run_id: &str,
    deadline: Instant,
    mut decide: impl FnMut(&Newest<'_>) -> Change,
) -> bus::Result<Option<Entry>> {
    let mut too_large = 0;
    loop {
        let edited = runs.edit(run_id, deadline, |entry| {
            let change = newest(entry, &mut decide);
            Ok::<_, bus::Error>(match change {
                Change::Leave => Edit::Leave(()),
                Change::Delete => Edit::Delete(()),
                Change::Put(mut snapshot) => {
                    for _ in 0..too_large {
                        owner::shrink(&mut snapshot, clock::now());
                    }
                    Edit::Put(json::to_wire(&snapshot)?, ())
                }
            })
        });
        match edited {
            // Records and parameters, then the names of tasks.
            Err(bus::Error::TooLarge { .. }) if too_large < 2 => too_large += 1,
            other => return Ok(other?.written),
        }
    }
}

/// Calls `decide` with what a key's newest message means.
pub fn newest<R>(entry: Option<&Entry>, decide: impl FnOnce(&Newest<'_>) -> R) -> R {
    let read = entry.and_then(Entry::live_value).map(json::from_wire::<RunSnapshot>);
    let stored = match (entry, &read) {
        (None, _) => Stored::Missing,
        (Some(_), None) => Stored::Deleted,
        (Some(_), Some(Ok(snapshot))) => Stored::Run(snapshot),
        (Some(_), Some(Err(_))) => Stored::Unreadable,
    };
    decide(&Newest { revision: entry.map_or(0, |entry| entry.revision), stored })
}
