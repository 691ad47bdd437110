//! Whether a server that answers PINGs is cut off from its cluster: what needs a leader is not answered.
//!
//! Writes and calls are looked at apart: a leader that was cut off with its server goes on to answer calls
//! for a while, and refuses writes, but stores nothing. What was stored has reached a leader.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So long, and so often, a kind of request has to fail without any success. An election takes less.
const PATIENCE: Duration = Duration::from_secs(10);
const LEAST_FAILURES: u32 = 2;
/// Failures that lie further apart have nothing to do with each other.
const MAX_GAP: Duration = Duration::from_secs(5);
/// Of an answer that no leader has given, and of any refusal.
const NO_LEADER: &[u8] = br#""code":503"#;
const REFUSAL: &[u8] = br#""error":"#;
/// A refusal is not larger.
const MAX_REFUSAL_BYTES: usize = 512;

/// Kinds of requests that only a leader answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has to be stored.
    Write,
    /// A call of JetStream's API.
    Call,
}

#[derive(Debug, Default)]
pub(crate) struct Unanswered(Mutex<[Failures; 2]>);

#[derive(Debug, Default, Clone, Copy)]
struct Failures {
    /// When the first one since the last success was asked, and when the last one was given up.
    seen: Option<(Instant, Instant)>,
    count: u32,
}

impl Kind {
    /// `None` for what any server may answer, and for settlements: of a consumer that is gone nobody answers
    /// them.
    pub(crate) fn of(subject: &str, api_prefix: &str) -> Option<Kind> {
        match subject.strip_prefix(api_prefix) {
            Some(call) if call.starts_with("DIRECT.") => None,
            Some(call) if !call.starts_with("$KV.") => Some(Kind::Call),
            None if subject.starts_with("$JS.ACK.") => None,
            _ => Some(Kind::Write),
        }
    }
}

impl Unanswered {
    /// A request was answered.
    pub(crate) fn answered(&self, kind: Kind) {
        let mut kinds = self.0.lock();
        match kind {
            Kind::Write => *kinds = Default::default(),
            Kind::Call => kinds[kind as usize] = Failures::default(),
        }
    }

    /// A request of this moment was not answered.
    pub(crate) fn failed(&self, kind: Kind, asked: Instant) {
        self.0.lock()[kind as usize].add(asked, Instant::now());
    }

    /// Either of the two, by what has come.
    pub(crate) fn note(&self, kind: Kind, asked: Instant, answer: &[u8]) {
        let says = |what: &[u8]| {
            answer.len() <= MAX_REFUSAL_BYTES && answer.windows(what.len()).any(|part| part == what)
        };
        if says(NO_LEADER) {
            self.failed(kind, asked);
        } else if kind == Kind::Call || !says(REFUSAL) {
            self.answered(kind);
        }
    }

    /// There is another connection.
    pub(crate) fn forget(&self) {
        *self.0.lock() = Default::default();
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        let now = Instant::now();
        self.0.lock().iter().any(|failures| failures.are_too_many(now))
    }
}

impl Failures {
    fn add(&mut self, asked: Instant, now: Instant) {
        let before = self.seen.filter(|(_, last)| asked.saturating_duration_since(*last) < MAX_GAP);
        self.count = if before.is_some() { self.count.saturating_add(1) } else { 1 };
        self.seen = Some((before.map_or(asked, |(first, _)| first), now));
    }

    fn are_too_many(&self, now: Instant) -> bool {
        let is_long = |(first, last): (Instant, Instant)| {
            last.saturating_duration_since(first) >= PATIENCE && now.saturating_duration_since(last) < MAX_GAP
        };
        self.count >= LEAST_FAILURES && self.seen.is_some_and(is_long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_leader_is_told_by_its_subject() {
        let kind = |subject| Kind::of(subject, "$JS.hub.API.");
        assert_eq!(kind("$JS.hub.API.$KV.pyoco_runs.r1"), Some(Kind::Write));
        assert_eq!(kind("pyoco.work.default"), Some(Kind::Write));
        assert_eq!(kind("$JS.hub.API.STREAM.INFO.KV_pyoco_runs"), Some(Kind::Call));
        assert_eq!(kind("$JS.hub.API.DIRECT.GET.KV_pyoco_runs"), None);
        assert_eq!(kind("$JS.ACK.PYOCO_WORK.c.1.2.3.4.5"), None);
    }

    #[test]
    fn only_what_fails_for_long_and_without_any_success_is_cut_off() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let are_too_many = |requests: &[(u64, u64)], now: u64| {
            let mut failures = Failures::default();
            requests.iter().for_each(|(asked, given_up)| failures.add(at(*asked), at(*given_up)));
            failures.are_too_many(at(now))
        };
        assert!(are_too_many(&[(0, 5), (5, 10)], 10));
        assert!(!are_too_many(&[(0, 5), (5, 9)], 12), "an election takes as long");
        assert!(!are_too_many(&[(0, 12)], 12), "it is one request");
        assert!(!are_too_many(&[(0, 5), (5, 10)], 16), "nothing has failed lately");
        assert!(!are_too_many(&[(0, 1), (1, 2), (10, 11)], 12), "these are two troubles");
        let unanswered = Unanswered::default();
        let counts = || unanswered.0.lock().map(|failures| failures.count);
        unanswered.failed(Kind::Call, start);
        unanswered.note(Kind::Write, start, br#"{"error":{"code":503,"err_code":10077}}"#);
        unanswered.note(Kind::Write, start, br#"{"error":{"code":400,"err_code":10071}}"#);
        unanswered.note(Kind::Call, start, br#"{"state":{}}"#);
        assert_eq!(counts(), [1, 0]);
        unanswered.failed(Kind::Call, start);
        unanswered.note(Kind::Write, start, br#"{"stream":"s","seq":9}"#);
        assert_eq!(counts(), [0, 0]);
    }
}
