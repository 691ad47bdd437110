//! What becomes of a message that NATS delivers no more: a worker learns of it from an advisory, a gateway
//! finds it without one.

use super::drive::Driver;
use super::requeue::{End, Requeue};
use crate::bus::{self, Entry, Kv, StoredJob, WorkQueue};
use crate::model::clock;
use crate::model::dlq::{DlqEntry, DlqReason};
use crate::model::job::{InvalidJob, Job};

/// A message that nobody has in hand, and where its run is.
#[derive(Clone, Copy)]
pub struct Undelivered<'a> {
    pub runs: &'a Kv,
    pub queue: &'a WorkQueue,
    pub seq: u64,
    pub message: &'a StoredJob,
}

impl Undelivered<'_> {
    /// Takes a message that is no job out of the queue. `dlq` gets the entry to be published, with its tag.
    pub fn discard(&self, why: &InvalidJob, dlq: impl FnOnce(&str, DlqEntry)) -> bus::Result<()> {
        let error = why.to_string();
        log::warn!(subject = self.message.subject.as_str(), reason = error.as_str();
            "a message in the work queue is no job");
        dlq(self.tag(), DlqEntry::of_no_job(&self.message.payload, &error, clock::now()));
        self.queue.remove_job(self.seq)
    }

    /// Publishes the job anew, ends its run, or drops the message. `wrote` gets each snapshot that was
    /// stored, `dlq` an entry to be published, with its tag.
    pub fn requeue(
        &self,
        job: &Job,
        mut step: Requeue<'_>,
        wrote: impl FnMut(Entry),
        dlq: impl FnOnce(&str, DlqEntry),
    ) -> bus::Result<End> {
        let driver = Driver {
            runs: self.runs,
            queue: self.queue,
            run_id: &job.run_id,
            message: (self.tag(), &self.message.payload),
            delivered: None,
        };
        let end = driver.run(&mut step, wrote)?;
        if let End::Ended(status, Some(error)) = &end {
            log::warn!(run_id = job.run_id.as_str(), status = status.as_str(), reason = error.as_str();
                "run ended");
            dlq(&job.tag, DlqEntry::of_job(job, DlqReason::MaxDeliverExceeded, error, clock::now()));
        }
        Ok(end)
    }

    /// The last token of its subject.
    fn tag(&self) -> &str {
        self.message.subject.rsplit('.').next().unwrap_or_default()
    }
}
