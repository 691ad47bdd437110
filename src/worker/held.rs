//! The jobs that this worker executes at the moment, by their message.
//!
//! After an outage that was longer than `ack_wait` the server delivers a job again although its
//! worker lives and still executes it. Executing it twice would be wrong, and so would be dropping
//! the new delivery, for the old one can no longer be kept alive: the attempt takes it over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::bus::Delivered;

/// Deliveries of one job that may wait for its attempt; one comes per `ack_wait` at most.
const MAX_WAITING: usize = 64;

/// All of them.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<u64, Sender<Delivered>>>);

/// An attempt's entry; dropping it ends it.
pub(super) struct Hold<'a> {
    held: &'a Held,
    stream_seq: u64,
    /// Written by whichever slot was given the job again, read by the attempt.
    pub(super) redelivered: Receiver<Delivered>,
}

impl Held {
    /// Registers a job; `None` when this worker executes it already, and its attempt now has this
    /// delivery.
    pub(super) fn hold(&self, delivered: &Delivered) -> Option<Hold<'_>> {
        let stream_seq = delivered.stream_seq;
        let mut jobs = self.lock();
        if let Some(attempt) = jobs.get(&stream_seq) {
            // A full channel has newer ones than the attempt will ever need.
            let _ = attempt.try_send(delivered.clone());
            return None;
        }
        let (sender, redelivered) = bounded(MAX_WAITING);
        jobs.insert(stream_seq, sender);
        Some(Hold { held: self, stream_seq, redelivered })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Sender<Delivered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.held.lock().remove(&self.stream_seq);
    }
}
