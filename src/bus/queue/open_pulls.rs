//! The pulls of one consumer that may be open, and how many messages they may still bring.
//!
//! The server serves them in turn and a message does not tell whose it is, so messages are counted over all
//! of them. A pull that ends early says how many it has not brought; one that has brought all says nothing.
//! What comes of a pull that was forgotten is counted for one that is open; the count is right again when all
//! that are open were sent after that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// From the end of a pull's lifetime until its status must have come.
const STATUS_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct OpenPulls {
    /// In the order of their numbers.
    pulls: VecDeque<OpenPull>,
    /// Messages that they were sent for.
    asked: u64,
    /// Messages that they have brought.
    brought: u64,
    last_brought: Option<Instant>,
}

#[derive(Debug)]
struct OpenPull {
    number: u64,
    batch: u64,
    sent: Instant,
    lifetime: Duration,
}

impl OpenPulls {
    /// Messages that may come.
    pub fn outstanding(&self) -> u64 {
        self.asked.saturating_sub(self.brought)
    }

    /// A pull of a higher number than all before it.
    pub fn sent(&mut self, number: u64, batch: u64, now: Instant, lifetime: Duration) {
        let is_over = |pull: &OpenPull| {
            now.saturating_duration_since(pull.sent) >= pull.lifetime.saturating_add(STATUS_DELAY)
        };
        while self.pulls.front().is_some_and(is_over)
            && let Some(pull) = self.pulls.pop_front()
        {
            self.gone(&pull, pull.batch);
        }
        self.pulls.push_back(OpenPull { number, batch, sent: now, lifetime });
        self.asked += batch;
    }

    pub fn message(&mut self, now: Instant) {
        if !self.pulls.is_empty() {
            self.brought = self.asked.min(self.brought + 1);
            self.last_brought = Some(now);
        }
    }

    /// A pull has ended without so many of its messages; `None`: it has brought none at all. One that was
    /// forgotten changes nothing.
    pub fn ended(&mut self, number: u64, unsent: Option<u64>) {
        let place = self.pulls.binary_search_by_key(&number, |pull| pull.number);
        if let Some(pull) = place.ok().and_then(|place| self.pulls.remove(place)) {
            let brought = pull.batch.saturating_sub(unsent.unwrap_or(pull.batch));
            self.gone(&pull, brought);
        }
    }

    pub fn forget(&mut self) {
        *self = OpenPulls::default();
    }

    fn gone(&mut self, pull: &OpenPull, brought: u64) {
        self.asked = self.asked.saturating_sub(pull.batch);
        self.brought = self.brought.saturating_sub(brought).min(self.asked);
        let oldest = self.pulls.front().map(|pull| pull.sent);
        if oldest.is_none_or(|oldest| self.last_brought.is_none_or(|last| last < oldest)) {
            self.brought = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(4);

    struct Client {
        pulls: OpenPulls,
        start: Instant,
    }

    impl Client {
        fn new() -> Client {
            Client { pulls: OpenPulls::default(), start: Instant::now() }
        }

        fn sends(&mut self, number: u64, batch: u64, second: u64) {
            self.pulls.sent(number, batch, self.start + Duration::from_secs(second), LIFETIME);
        }

        fn gets(&mut self, messages: u64, second: u64) {
            for _ in 0..messages {
                self.pulls.message(self.start + Duration::from_secs(second));
            }
        }
    }

    #[test]
    fn what_pulls_bring_and_leave_is_counted() {
        let mut client = Client::new();
        client.sends(1, 4, 0);
        client.sends(2, 3, 1);
        client.gets(5, 2);
        assert_eq!(client.pulls.outstanding(), 2);
        // The first one has brought three, so the second one has brought two.
        client.pulls.ended(1, Some(1));
        assert_eq!(client.pulls.outstanding(), 1);
        client.gets(1, 3);
        // That was all of the second one, which therefore says nothing any more.
        client.sends(3, 5, 8);
        assert_eq!((client.pulls.outstanding(), client.pulls.pulls.len()), (5, 1));
        client.pulls.ended(3, None);
        assert_eq!(client.pulls.outstanding(), 0);
    }

    #[test]
    fn the_end_of_a_forgotten_pull_is_not_that_of_another() {
        let mut client = Client::new();
        client.sends(1, 4, 0);
        client.pulls.forget();
        client.sends(2, 4, 9);
        client.pulls.ended(1, Some(4));
        assert_eq!(client.pulls.outstanding(), 4);
    }

    #[test]
    fn a_message_of_a_forgotten_pull_is_not_counted_for_ever() {
        let mut client = Client::new();
        client.sends(1, 4, 0);
        client.pulls.forget();
        client.gets(1, 8);
        client.sends(2, 4, 9);
        assert_eq!(client.pulls.outstanding(), 4, "it came before");
        client.gets(1, 10);
        assert_eq!(client.pulls.outstanding(), 3, "it may be of either");
        client.sends(3, 1, 11);
        client.pulls.ended(2, Some(4));
        assert_eq!(client.pulls.outstanding(), 1, "the third one was sent later");
    }
}
