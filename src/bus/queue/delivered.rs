//! A message that was delivered: it is kept alive, and settled in the end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use crate::bus::connection::link::Link;
use crate::bus::connection::message::{Message, Meta};
use crate::bus::queue::nanos;
use crate::bus::{Error, Result};
use crate::model::clock;

/// For the server's confirmation of an ACK, NAK or TERM.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message to be settled. When it is dropped it comes again after its consumer's `ack_wait`.
#[derive(Clone)]
pub struct Delivered {
    pub subject: String,
    pub payload: Vec<u8>,
    pub num_delivered: u64,
    pub stream_seq: u64,
    ack_subject: String,
    link: Link,
    /// Clones share it.
    heard: Arc<Mutex<Heard>>,
}

/// What the queue is known to have heard of a delivery. Times are counted from any moment in the past.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    last: Duration,
    longest: Duration,
}

impl Heard {
    /// The message has arrived.
    pub fn new(now: Duration) -> Heard {
        Heard { last: now, longest: Duration::ZERO }
    }

    /// The queue has confirmed a sign of life that was sent then.
    pub fn confirmed(&mut self, sent: Duration) {
        self.longest = self.silence(sent);
        self.last = self.last.max(sent);
    }

    /// Whether the queue has heard of it within `time`. What needs longer than a moment begins with a sign of
    /// life when it has not.
    pub fn is_within(&self, time: Duration, now: Duration) -> bool {
        now.saturating_sub(self.last) < time
    }

    /// The longest time in which the queue may have heard nothing: where that comes near `ack_wait`, another
    /// worker may have the message.
    pub fn silence(&self, now: Duration) -> Duration {
        self.longest.max(now.saturating_sub(self.last))
    }
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivered")
            .field("subject", &self.subject)
            .field("num_delivered", &self.num_delivered)
            .field("stream_seq", &self.stream_seq)
            .finish_non_exhaustive()
    }
}

impl Delivered {
    pub(super) fn new(message: Message, meta: Meta, link: Link) -> Self {
        Delivered {
            subject: message.subject,
            payload: message.data,
            num_delivered: meta.num_delivered,
            stream_seq: meta.stream_seq,
            ack_subject: message.reply.unwrap_or_default(),
            link,
            heard: Arc::new(Mutex::new(Heard::new(clock::since_boot()))),
        }
    }

    /// The subject that settles this delivery; whoever knows it may give the job back.
    pub fn ack_subject(&self) -> &str {
        &self.ack_subject
    }

    /// Tells the server that the work goes on: `ack_wait` starts anew. Not confirmed.
    pub fn in_progress(&self) -> Result<()> {
        self.link.publish(&self.ack_subject, None, b"+WPI")
    }

    /// The same, confirmed by the server within `timeout`.
    pub fn keep_alive(&self, timeout: Duration) -> Result<()> {
        let sent = clock::since_boot();
        self.ask(b"+WPI", timeout)?;
        self.heard.lock().confirmed(sent);
        Ok(())
    }

    /// The same before something that may take long, unless the queue has heard of the job within `fresh`.
    /// It fails to no harm: what follows meets the same trouble, and finds out whether the job is still ours.
    pub fn refresh(&self, fresh: Duration, timeout: Duration) {
        let is_fresh = self.heard.lock().is_within(fresh, clock::since_boot());
        if !is_fresh && let Err(e) = self.keep_alive(timeout) {
            log::debug!(error = e.to_string(); "NATS has not confirmed an in-progress ACK");
        }
    }

    /// See [`Heard::silence`].
    pub fn silence(&self) -> Duration {
        self.heard.lock().silence(clock::since_boot())
    }

    /// Removes the message from the queue; confirmed by the server.
    pub fn ack(&self) -> Result<()> {
        self.settle(b"+ACK")
    }

    /// Gives the message back, to be delivered again after `delay`; confirmed by the server.
    pub fn nak(&self, delay: Duration) -> Result<()> {
        if delay.is_zero() {
            return self.settle(b"-NAK");
        }
        self.settle(format!("-NAK {}", json!({"delay": nanos(delay)})).as_bytes())
    }

    /// Removes a message that can never be executed; confirmed by the server.
    pub fn term(&self) -> Result<()> {
        self.settle(b"+TERM")
    }

    fn settle(&self, verdict: &[u8]) -> Result<()> {
        self.ask(verdict, SETTLE_TIMEOUT)
    }

    fn ask(&self, verdict: &[u8], timeout: Duration) -> Result<()> {
        match self.link.request(&self.ack_subject, &[], verdict, timeout) {
            Ok(_) => Ok(()),
            // The consumer is gone: nothing was settled.
            Err(Error::NoResponders(_)) => Err(Error::NoResponders(self.ack_subject.clone())),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_not_forgotten_when_it_ends() {
        let at = Duration::from_secs;
        let mut heard = Heard::new(at(100));
        heard.confirmed(at(110));
        assert_eq!((heard.silence(at(115)), heard.silence(at(125))), (at(10), at(15)));
        assert!(heard.is_within(at(5), at(114)) && !heard.is_within(at(5), at(115)));
        heard.confirmed(at(135));
        // Answers may come in another order.
        heard.confirmed(at(134));
        assert_eq!(heard.silence(at(136)), at(25));
    }
}
