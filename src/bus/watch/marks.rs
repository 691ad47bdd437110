//! Told messages by which a watch finds where to go on.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::json;

use super::{Followed, WATCH_SILENCE};
use crate::bus::{Result, jetstream};

/// Messages that are looked for: each is about twice as far back as the one before, and the last one is the
/// oldest.
const MAX_MARKS: usize = 24;
/// How far two readings of one time may differ: far more than rounding, far less than two messages.
const SAME_TIME_SEC: f64 = 1e-5;

/// Which message of its subject it is; no other message has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub seq: u64,
    pub stored_at: u64,
}

#[derive(Debug, PartialEq)]
pub(super) struct Mark {
    pub subject: String,
    pub version: Version,
}

impl Mark {
    /// Whether the stream has the message; `None` when there is none in its place.
    pub(super) fn is_in(&self, followed: &Followed) -> Result<Option<bool>> {
        let which = json!({"seq": self.version.seq});
        let found = jetstream::get_message(&followed.link, followed.stream_name(), &which, WATCH_SILENCE)?;
        Ok(found.map(|found| {
            let stored_at = self.version.stored_at as f64 / 1e9;
            let is_same_time = found.time.is_none_or(|time| (time - stored_at).abs() < SAME_TIME_SEC);
            found.subject == self.subject && is_same_time
        }))
    }
}

/// Some of what is the newest of its subject, the newest first. Those that are written all the time, such as
/// the test of writes, are among the first and cost a question each.
pub(super) fn marks(known: &HashMap<String, Version>) -> Vec<Mark> {
    let mut known: Vec<(&String, &Version)> = known.iter().collect();
    known.sort_unstable_by_key(|(_, version)| Reverse(version.seq));
    let oldest = known.len().saturating_sub(1);
    let doubling = std::iter::successors(Some(1), |place: &usize| place.checked_mul(2)).map(|n| n - 1);
    let places = doubling.take_while(|place| *place < oldest).take(MAX_MARKS - 1).chain([oldest]);
    let mark =
        |(subject, version): &(&String, &Version)| Mark { subject: (*subject).clone(), version: **version };
    places.filter_map(|place| known.get(place)).map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_reach_back_to_the_oldest() {
        let known = |count: u64| -> HashMap<String, Version> {
            (1..=count).map(|seq| (format!("k{seq}"), Version { seq, stored_at: seq })).collect()
        };
        let sequences =
            |count| -> Vec<u64> { marks(&known(count)).iter().map(|mark| mark.version.seq).collect() };
        assert_eq!(sequences(0), [0; 0]);
        assert_eq!(sequences(1), [1]);
        assert_eq!(sequences(2), [2, 1]);
        assert_eq!(sequences(10), [10, 9, 7, 3, 1]);
        let many = sequences(100_000);
        assert!(many.len() <= MAX_MARKS && many.last() == Some(&1), "{many:?}");
    }
}
