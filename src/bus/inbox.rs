//! What comes back over a link: the answer to one request, or all that a long-lived inbox is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::link::Shared;
use super::message::Message;
use super::routes::{Answer, Routed, left};
use super::{Error, Result};

/// A request that was sent and whose answer is still to be waited for; dropping it forgets the
/// answer, not the request.
pub(super) struct Pending {
    pub(super) shared: Arc<Shared>,
    pub(super) sent: Sent,
}

impl Pending {
    /// Waits for the answer, until the time that the request was given is over.
    pub(super) fn wait(self) -> Result<Message> {
        self.sent.answer(self.sent.deadline)
    }

    /// The same, until `deadline` if that is earlier.
    pub(super) fn wait_until(self, deadline: Instant) -> Result<Message> {
        self.sent.answer(deadline.min(self.sent.deadline))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.routes.forget(self.sent.id);
    }
}

/// What a sent request waits for.
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) subject: String,
    pub(super) answer: Receiver<Answer>,
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
}

impl Sent {
    pub(super) fn answer(&self, deadline: Instant) -> Result<Message> {
        match self.answer.recv_timeout(left(deadline)) {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(Error::NoResponders(_))) => Err(Error::NoResponders(self.subject.clone())),
            Ok(Err(e)) => Err(e),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Timeout { subject: self.subject.clone(), after: self.timeout })
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Disconnected),
        }
    }
}

/// A long-lived inbox of a link; dropping it closes it.
pub(super) struct Route {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) messages: Receiver<Routed>,
}

impl Route {
    /// The reply subject for the route's pull number `pull`.
    pub(super) fn reply_subject(&self, pull: u64) -> String {
        format!("{}.{}-{pull}", self.shared.inbox, self.id)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.routes.close(self.id);
    }
}
