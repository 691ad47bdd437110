//! Runs that have no message in the queue: their gateway died during the submit, or an operator has removed
//! messages.
//!
//! NATS finds a message by its sequence, never by its run. So the messages of a tag that has overdue runs are
//! read, each of them once, and it is remembered which run's message has which sequence. A healthy system has
//! no overdue run, so nothing is read. A run fails only for what was read lately, under the connection of
//! now.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::bus::QueueContents;
use crate::delivery::mends::{self, Mend};

/// Before a run fails, the messages of its tag are read anew when the first of them was read longer ago.
const READ_ANEW_AFTER: Duration = Duration::from_secs(600);
/// The messages of a tag are forgotten when it had no overdue run for so long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Messages that are remembered at most, of about 100 bytes each. No run fails for a tag that has more.
const MAX_MESSAGES: usize = 1_000_000;
/// Messages of a tag that one look makes sure of, when some that were seen are not there any more: so many of
/// the first ones, where they mostly go, and then on from where the last look has ended.
const MAX_CHECKS: usize = 5_000;
const FRONT_CHECKS: usize = 500;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask for the first message of a tag from a sequence on.
    Message { tag: String, from: u64 },
    /// All is read: tell which runs were overdue when the look began, and call [`Missing::lost`].
    Decide { began: Duration },
}

/// Looks for runs without a message. Times are counted from any moment in the past.
#[derive(Debug)]
pub struct Missing {
    seen: HashMap<String, Messages>,
    /// The stream that the messages were seen in: when it was created, its last sequence, and since when
    /// changes of runs are heard of without a gap.
    stream: (String, u64, Duration),
    look: Option<Look>,
    /// Messages of all tags that are remembered, and how many may be.
    held: usize,
    max_held: usize,
}

/// The messages of a tag that were seen.
#[derive(Debug)]
struct Messages {
    /// The run of each; empty for a message that is no job.
    by_seq: BTreeMap<u64, Box<str>>,
    read_to: u64,
    /// Up to here it was made sure that they are still there, in this round through all of them.
    checked_to: u64,
    /// When the first of them was read.
    read_since: Duration,
    /// When the tag had an overdue run last.
    wanted: Duration,
}

#[derive(Debug)]
struct Look {
    began: Duration,
    /// The last sequence of the stream when the look began.
    last: u64,
    reading: VecDeque<Reading>,
    /// Tags that are read up to `last`.
    read: HashSet<String>,
}

#[derive(Debug)]
struct Reading {
    tag: String,
    /// Messages of the tag when the look began.
    stored: u64,
    checks: usize,
    /// Up to here the first ones were made sure of.
    front: u64,
}

impl Default for Missing {
    fn default() -> Self {
        let stream = (String::new(), 0, Duration::ZERO);
        Missing { seen: HashMap::new(), stream, look: None, held: 0, max_held: MAX_MESSAGES }
    }
}

impl Messages {
    fn new(now: Duration) -> Messages {
        Messages { by_seq: BTreeMap::new(), read_to: 0, checked_to: 0, read_since: now, wanted: now }
    }
}

impl Reading {
    fn new(tag: &str, stored: u64) -> Reading {
        Reading { tag: tag.to_owned(), stored, checks: 0, front: 0 }
    }

    /// Up to where it was made sure.
    fn checked_to(&self, messages: &Messages) -> u64 {
        if self.checks < FRONT_CHECKS { self.front } else { self.front.max(messages.checked_to) }
    }
}

impl Missing {
    /// Begins a look at tags that have overdue runs, unless one is going on. `contents` was asked for after
    /// the runs were seen. `heard_since`: since then changes of runs are heard of without a gap.
    pub fn begin<'a>(
        &mut self,
        now: Duration,
        heard_since: Duration,
        contents: &QueueContents,
        overdue: impl IntoIterator<Item = &'a str>,
    ) {
        let (created, last, since) = &self.stream;
        // Another stream, or one that was restored; or it may have been while nobody heard of it.
        if *created != contents.created || contents.last_seq < *last || *since != heard_since {
            self.seen.clear();
            self.look = None;
        }
        self.stream = (contents.created.clone(), contents.last_seq, heard_since);
        if self.look.is_some() {
            return;
        }
        let mut reading: BTreeMap<&str, Reading> = BTreeMap::new();
        for tag in overdue {
            let stored = contents.by_tag.get(tag).copied().unwrap_or(0);
            if stored == 0 || mends::is_in(Mend::OwnMessage) {
                reading.entry(tag).or_insert_with(|| Reading::new(tag, stored));
            }
        }
        let is_wanted = |tag: &String| reading.contains_key(tag.as_str());
        self.seen.retain(|tag, seen| is_wanted(tag) || now < seen.wanted + FORGET_AFTER);
        for messages in self.seen.values_mut() {
            if messages.by_seq.first_key_value().is_some_and(|(seq, _)| *seq < contents.first_seq) {
                messages.by_seq = messages.by_seq.split_off(&contents.first_seq);
            }
        }
        for (tag, Reading { stored, .. }) in &reading {
            let messages = self.seen.entry((*tag).to_owned()).or_insert_with(|| Messages::new(now));
            if *stored == 0 {
                *messages = Messages { read_to: contents.last_seq, ..Messages::new(now) };
            }
            messages.wanted = now;
        }
        self.count();
        if !reading.is_empty() {
            let reading = reading.into_values().collect();
            self.look = Some(Look { began: now, last: contents.last_seq, reading, read: HashSet::new() });
            self.advance();
        }
    }

    /// `None`: no look is going on.
    pub fn next(&self) -> Option<Next> {
        let look = self.look.as_ref()?;
        let Some(reading) = look.reading.front() else { return Some(Next::Decide { began: look.began }) };
        let from = self.seen.get(&reading.tag).map_or(0, |messages| match messages.read_to < look.last {
            true => messages.read_to,
            false => reading.checked_to(messages),
        });
        Some(Next::Message { tag: reading.tag.clone(), from: from + 1 })
    }

    /// The answer to [`Next::Message`]: its sequence, and its run if it is a job.
    pub fn message(&mut self, found: Option<(u64, Option<&str>)>) {
        let Some(look) = &mut self.look else { return };
        let Some(reading) = look.reading.front_mut() else { return };
        let Some(messages) = self.seen.get_mut(&reading.tag) else { return };
        if messages.read_to >= look.last {
            let next = found.map_or(u64::MAX, |(seq, _)| seq);
            let checked_to = reading.checked_to(messages);
            let unchecked = checked_to + 1..next.max(checked_to + 1);
            let gone: Vec<u64> = messages.by_seq.range(unchecked).map(|(seq, _)| *seq).collect();
            self.held -= gone.len();
            gone.iter().for_each(|seq| drop(messages.by_seq.remove(seq)));
            match next < messages.read_to {
                true if reading.checks < FRONT_CHECKS => reading.front = next,
                true => messages.checked_to = next,
                // Through with all of them.
                false => (reading.checks, messages.checked_to) = (MAX_CHECKS, 0),
            }
            reading.checks += 1;
        } else if let Some((seq, run_id)) = found.filter(|(seq, _)| *seq <= look.last) {
            if self.held >= self.max_held {
                let others = self.held - messages.by_seq.len();
                if others as u64 + reading.stored > self.max_held as u64 {
                    return self.failed();
                }
                // Many of those that were seen are gone.
                (self.held, *messages) = (others, Messages::new(look.began));
                return;
            }
            self.held += 1;
            messages.by_seq.insert(seq, run_id.unwrap_or_default().into());
            messages.read_to = seq;
        } else {
            messages.read_to = look.last;
        }
        self.advance();
    }

    /// What was asked for has failed: no run of this tag fails by this look.
    pub fn failed(&mut self) {
        if let Some(look) = &mut self.look {
            look.reading.pop_front();
            self.advance();
        }
    }

    /// Which of the runs that were overdue when the look began have lost their message. `of`: their tag and
    /// their id. The look may go on after that.
    pub fn lost<R>(&mut self, now: Duration, overdue: Vec<R>, of: impl Fn(&R) -> (&str, &str)) -> Vec<R> {
        let Some(look) = &mut self.look else { return Vec::new() };
        let mut found: HashMap<&str, HashSet<&str>> = HashMap::new();
        for tag in &look.read {
            let messages = self.seen.get(tag).into_iter().flat_map(|messages| messages.by_seq.values());
            found.insert(tag, messages.map(|run_id| &**run_id).collect());
        }
        let is_missing = |run: &R| {
            let (tag, run_id) = of(run);
            found.get(tag).is_some_and(|found| !found.contains(run_id))
        };
        let missing: Vec<R> = overdue.into_iter().filter(is_missing).collect();
        let is_new = |tag: &str| {
            self.seen.get(tag).is_some_and(|messages| look.began < messages.read_since + READ_ANEW_AFTER)
        };
        let (lost, doubtful): (Vec<R>, Vec<R>) = missing.into_iter().partition(|run| is_new(of(run).0));
        let anew: HashSet<&str> = doubtful.iter().map(|run| of(run).0).collect();
        look.read.clear();
        for tag in anew {
            self.seen.insert(tag.to_owned(), Messages::new(now));
            // What is read now was there when the look began, so there is nothing to make sure of.
            look.reading.push_back(Reading::new(tag, u64::MAX));
        }
        if look.reading.is_empty() {
            self.look = None;
        }
        self.count();
        lost
    }

    /// Whether no more messages can be remembered.
    pub fn is_full(&self) -> bool {
        self.held >= self.max_held
    }

    /// Goes on to the first tag of which something is to be asked.
    fn advance(&mut self) {
        let Some(look) = &mut self.look else { return };
        while let Some(reading) = look.reading.front()
            && let Some(messages) = self.seen.get(&reading.tag)
            && messages.read_to >= look.last
            // All that are there were seen, so these are as many as are there if all of them still are.
            && (messages.by_seq.len() as u64 <= reading.stored || reading.checks >= MAX_CHECKS)
        {
            look.read.extend(look.reading.pop_front().map(|reading| reading.tag));
        }
    }

    fn count(&mut self) {
        self.held = self.seen.values().map(|messages| messages.by_seq.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "default";

    /// A queue of one tag, and who looks into it.
    struct Queue {
        jobs: BTreeMap<u64, String>,
        created: &'static str,
        last_seq: u64,
        missing: Missing,
        now: Duration,
        heard_since: Duration,
        requests: usize,
    }

    impl Queue {
        fn of(jobs: u64) -> Queue {
            let mut queue = Queue {
                jobs: BTreeMap::new(),
                created: "once",
                last_seq: 0,
                missing: Missing::default(),
                now: Duration::from_secs(100),
                heard_since: Duration::ZERO,
                requests: 0,
            };
            (1..=jobs).for_each(|n| queue.publish(&format!("r{n}")));
            queue
        }

        fn publish(&mut self, run_id: &str) {
            self.last_seq += 1;
            self.jobs.insert(self.last_seq, run_id.to_owned());
        }

        fn begin(&mut self, overdue: &[&str]) {
            // A message of another tag lies before all of them.
            let (first_seq, count) = (1, self.jobs.len() as u64);
            let by_tag = [(TAG.to_owned(), count)].into_iter().filter(|_| count > 0).collect();
            let created = self.created.to_owned();
            let contents = QueueContents { created, first_seq, last_seq: self.last_seq, by_tag };
            let tags = overdue.iter().map(|_| TAG);
            self.missing.begin(self.now, self.heard_since, &contents, tags);
        }

        /// Answers what is asked; the runs that are lost.
        fn go_on(&mut self, overdue: &[&str]) -> Vec<String> {
            let mut lost = Vec::new();
            while let Some(next) = self.missing.next() {
                match next {
                    Next::Message { from, .. } => {
                        self.requests += 1;
                        let found = self.jobs.range(from..).next();
                        self.missing.message(found.map(|(seq, run_id)| (*seq, Some(run_id.as_str()))));
                    }
                    Next::Decide { .. } => {
                        let runs = overdue.to_vec();
                        lost.extend(self.missing.lost(self.now, runs, |run_id| (TAG, run_id)));
                    }
                }
            }
            lost.into_iter().map(str::to_owned).collect()
        }

        /// A whole look, ten seconds later: the runs that are lost, and how many requests it took.
        fn look(&mut self, overdue: &[&str]) -> (Vec<String>, usize) {
            self.now += Duration::from_secs(10);
            let before = self.requests;
            self.begin(overdue);
            (self.go_on(overdue), self.requests - before)
        }
    }

    fn nobody() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn each_message_is_read_once() {
        let mut queue = Queue::of(1_000);
        let (lost, requests) = queue.look(&["r1", "orphan", "r1000"]);
        assert_eq!((lost, requests), (vec!["orphan".to_owned()], 1_000));
        // What waits goes on to wait, and costs nothing.
        for _ in 0..60 {
            assert_eq!(queue.look(&["r1", "r500", "r1000"]), (nobody(), 0));
        }
        queue.publish("new");
        assert_eq!(queue.look(&["r1", "new"]), (nobody(), 1));
        assert_eq!(queue.look(&[]), (nobody(), 0));
    }

    #[test]
    fn messages_of_ended_runs_and_new_ones_hide_nobody() {
        let mut queue = Queue::of(3);
        // Not one message too few: that of a run that has ended lies there.
        assert_eq!(queue.look(&["r1", "r2", "orphan"]).0, ["orphan"]);
        let mut queue = Queue::of(3);
        queue.begin(&["orphan"]);
        for n in 0..100 {
            queue.publish(&format!("later{n}"));
        }
        assert_eq!(queue.go_on(&["orphan"]), ["orphan"]);
        assert_eq!(queue.requests, 3, "a look ends where the queue ended when it began");
    }

    #[test]
    fn a_run_is_found_wherever_its_message_lies() {
        let mut queue = Queue::of(200);
        // Its snapshot may name 120; its job lies at 57.
        assert_eq!(queue.look(&["r57"]).0, nobody());
        queue.jobs.remove(&57);
        queue.publish("r57");
        assert_eq!(queue.look(&["r57"]).0, nobody());
    }

    #[test]
    fn what_was_seen_and_is_gone_is_found_out() {
        let mut queue = Queue::of(1_000);
        assert_eq!(queue.look(&["r1", "r600"]).0, nobody());
        // Workers take the first ones, which costs one request.
        queue.jobs = queue.jobs.split_off(&101);
        assert_eq!(queue.look(&["r600"]), (nobody(), 1));
        // Two are executed for long, those between them have ended.
        queue.jobs.retain(|seq, _| [101, 150].contains(seq) || *seq > 300);
        assert_eq!(queue.look(&["r600"]), (nobody(), 3));
        // An operator has removed one in the middle of them.
        queue.jobs.remove(&600);
        let (lost, requests) = queue.look(&["r600"]);
        assert_eq!(lost, ["r600"]);
        assert!(requests <= 302, "{requests}");
        // A purge.
        queue.jobs.clear();
        assert_eq!(queue.look(&["r700"]), (vec!["r700".to_owned()], 0));
        assert_eq!(queue.missing.held, 0);
    }

    #[test]
    fn a_long_search_for_what_is_gone_goes_on_with_the_next_look() {
        let mut queue = Queue::of(20_000);
        assert_eq!(queue.look(&["r1"]).0, nobody());
        queue.jobs.remove(&16_000);
        for _ in 0..3 {
            assert_eq!(queue.look(&["r16000"]), (nobody(), MAX_CHECKS));
        }
        assert_eq!(queue.look(&["r16000"]).0, ["r16000"]);
        assert_eq!(queue.look(&["r1"]), (nobody(), 0));
    }

    #[test]
    fn a_run_fails_only_for_what_was_read_lately() {
        let mut queue = Queue::of(10);
        assert_eq!(queue.look(&["r1"]), (nobody(), 10));
        queue.now += READ_ANEW_AFTER;
        // The history is another one, and nothing tells.
        queue.jobs.insert(5, "restored".into());
        assert_eq!(queue.look(&["r1"]), (nobody(), 0));
        assert_eq!(queue.look(&["restored"]), (nobody(), 10));
        assert_eq!(queue.look(&["r5"]), (vec!["r5".to_owned()], 0));
        // Still there when all has to be read anew.
        queue.now += READ_ANEW_AFTER;
        assert_eq!(queue.look(&["r1", "orphan"]), (vec!["orphan".to_owned()], 10));
    }

    #[test]
    fn another_stream_is_read_anew() {
        for change in [
            (|queue: &mut Queue| queue.created = "anew") as fn(&mut Queue),
            |queue| queue.heard_since = queue.now,
            |queue| queue.last_seq = 9,
        ] {
            let mut queue = Queue::of(10);
            assert_eq!(queue.look(&["r1"]), (nobody(), 10));
            queue.jobs.insert(3, "restored".into());
            queue.jobs.remove(&10);
            change(&mut queue);
            assert_eq!(queue.look(&["restored"]).0, nobody());
            assert!(queue.requests > 18, "{}", queue.requests);
        }
    }

    #[test]
    fn an_error_ends_the_look_at_one_tag() {
        let mut queue = Queue::of(10);
        queue.begin(&["orphan"]);
        queue.missing.failed();
        assert_eq!(queue.go_on(&["orphan"]), nobody());
        assert_eq!(queue.look(&["orphan"]).0, ["orphan"]);
    }

    #[test]
    fn memory_has_a_bound_and_no_run_fails_for_it() {
        let mut queue = Queue::of(10);
        queue.missing.max_held = 5;
        assert_eq!(queue.look(&["r9", "orphan"]), (nobody(), 6));
        assert!(queue.missing.is_full());
        queue.jobs = queue.jobs.split_off(&8);
        assert_eq!(queue.look(&["r9", "orphan"]), (vec!["orphan".to_owned()], 4));
        queue.now += FORGET_AFTER;
        queue.look(&[]);
        assert_eq!(queue.missing.held, 0);
    }
}
