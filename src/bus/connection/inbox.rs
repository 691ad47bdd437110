//! What comes back over a link: the answer to one request, or all that a long-lived inbox is sent.

use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::bus::connection::message::Message;
use crate::bus::connection::routes::{Answer, Routed, Routes};
use crate::bus::connection::unanswered::Kind;
use crate::bus::left;
use crate::bus::{Error, Result};

/// A request whose answer is still to come; dropping it forgets the answer, not the request.
pub(crate) struct Pending {
    pub(crate) routes: Arc<Routes>,
    pub(crate) id: u64,
    pub(crate) subject: String,
    pub(crate) kind: Option<Kind>,
    pub(crate) answer: Receiver<Answer>,
    pub(crate) asked: Instant,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
}

impl Pending {
    /// Waits for the answer, until the time that the request was given is over.
    pub(crate) fn wait(self) -> Result<Message> {
        let deadline = self.deadline;
        self.wait_until(deadline)
    }

    /// The same, until `deadline` if that is earlier.
    pub(crate) fn wait_until(mut self, deadline: Instant) -> Result<Message> {
        let received = self.answer.recv_timeout(left(deadline.min(self.deadline)));
        if let Some(kind) = self.kind {
            let (unanswered, asked) = (&self.routes.unanswered, self.asked);
            match &received {
                Ok(Ok(answer)) => unanswered.note(kind, asked, &answer.data),
                Ok(Err(Error::NoResponders(_))) | Err(RecvTimeoutError::Timeout) => {
                    unanswered.failed(kind, asked);
                }
                // Its connection is lost.
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        match received {
            Ok(Err(Error::NoResponders(_))) => Err(Error::NoResponders(take(&mut self.subject))),
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Timeout { subject: take(&mut self.subject), after: self.timeout })
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Disconnected),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.routes.forget(self.id);
    }
}

pub(crate) struct Route {
    pub(crate) routes: Arc<Routes>,
    pub(crate) id: u64,
    pub(crate) messages: Receiver<Routed>,
}

impl Route {
    pub(crate) fn reply_subject(&self, pull: u64) -> String {
        format!("{}.{}-{pull}", self.routes.inbox, self.id)
    }

    /// The same for a pull that has to end before its connection does.
    pub(crate) fn pull_reply_subject(&self, pull: u64) -> String {
        format!("{}.{}-{pull}", self.routes.pulls(), self.id)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.routes.close(self.id);
    }
}
