//! The jobs that this worker executes at the moment, by their message.
//!
//! After an outage that was longer than `ack_wait` the server delivers a job again although its
//! worker lives and still executes it. Executing it twice would be wrong, and so would be dropping
//! the new delivery, for the old one can no longer be kept alive: the attempt takes it over.

use std::collections::HashMap;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::bus::Delivered;
use crate::model::job::Job;

/// Deliveries of one job that may wait for its attempt; one comes per `ack_wait` at most.
const MAX_WAITING: usize = 64;

#[derive(Default)]
pub(crate) struct InFlightJobs(Mutex<HashMap<Key, Sender<Delivered>>>);

/// The run, and the sequence of its message: a work stream that was made anew counts from 1 again.
type Key = (String, u64);

/// A job's entry, held by its attempt; dropping it removes it.
pub(crate) struct InFlightJob<'a> {
    jobs: &'a InFlightJobs,
    key: Key,
    /// Written by whichever slot was given the job again, read by the attempt.
    pub(crate) redelivered: Receiver<Delivered>,
    /// The entry may be another attempt's by now.
    is_over: bool,
}

impl InFlightJobs {
    /// Registers a job; `None` when this worker executes it already, and its attempt now has this delivery.
    pub(crate) fn register(&self, run_id: &str, delivered: &Delivered) -> Option<InFlightJob<'_>> {
        let key = (run_id.to_owned(), delivered.stream_seq);
        let mut jobs = self.0.lock();
        if Self::pass_on(&jobs, &key, delivered) {
            return None;
        }
        let (sender, redelivered) = bounded(MAX_WAITING);
        jobs.insert(key.clone(), sender);
        Some(InFlightJob { jobs: self, key, redelivered, is_over: false })
    }

    /// Whether this worker executes the job; then its attempt now has this delivery.
    pub(crate) fn adopt(&self, delivered: &Delivered) -> bool {
        let Ok(job) = Job::parse(&delivered.payload) else { return false };
        Self::pass_on(&self.0.lock(), &(job.run_id, delivered.stream_seq), delivered)
    }

    fn pass_on(jobs: &HashMap<Key, Sender<Delivered>>, key: &Key, delivered: &Delivered) -> bool {
        let attempt = jobs.get(key);
        // A full channel has newer ones than the attempt will ever need.
        attempt.inspect(|attempt| drop(attempt.try_send(delivered.clone()))).is_some()
    }
}

impl InFlightJob<'_> {
    /// Ends it. A delivery that came after the attempt had looked last means nothing by itself; another claim
    /// finds out.
    pub(crate) fn end(mut self) -> Option<Delivered> {
        self.jobs.0.lock().remove(&self.key);
        self.is_over = true;
        self.redelivered.try_iter().last()
    }
}

impl Drop for InFlightJob<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.jobs.0.lock().remove(&self.key);
        }
    }
}
