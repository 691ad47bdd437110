//! What comes back over a link: the answer to one request, or all that a long-lived inbox is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::bus::connection::link::LinkShared;
use crate::bus::connection::message::Message;
use crate::bus::connection::routes::{Answer, Routed};
use crate::bus::left;
use crate::bus::{Error, Result};

/// A request that was sent and whose answer is still to be waited for; dropping it forgets the
/// answer, not the request.
pub(crate) struct Pending {
    pub(crate) shared: Arc<LinkShared>,
    pub(crate) sent: Sent,
}

impl Pending {
    /// Waits for the answer, until the time that the request was given is over.
    pub(crate) fn wait(self) -> Result<Message> {
        self.sent.answer(self.sent.deadline)
    }

    /// The same, until `deadline` if that is earlier.
    pub(crate) fn wait_until(self, deadline: Instant) -> Result<Message> {
        self.sent.answer(deadline.min(self.sent.deadline))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.routes.forget(self.sent.id);
    }
}

/// What a sent request waits for.
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) subject: String,
    pub(crate) answer: Receiver<Answer>,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
}

impl Sent {
    pub(crate) fn answer(&self, deadline: Instant) -> Result<Message> {
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

pub(crate) struct Route {
    pub(crate) shared: Arc<LinkShared>,
    pub(crate) id: u64,
    pub(crate) messages: Receiver<Routed>,
}

impl Route {
    /// The reply subject for the route's pull number `pull`.
    pub(crate) fn reply_subject(&self, pull: u64) -> String {
        format!("{}.{}-{pull}", self.shared.inbox, self.id)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.routes.close(self.id);
    }
}
