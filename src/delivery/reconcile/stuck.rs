//! Messages that are in the stream and neither wait for a delivery nor are in one: their deliveries were used
//! up, and the advisory about it was lost or could not be stored.

use std::collections::{HashSet, VecDeque};

use crate::bus::{Deliveries, QueueContents};
use crate::delivery::mends::{self, Mend};

/// Tags whose figures one look asks for, in turn: each costs two requests.
const MAX_TAGS_PER_LOOK: usize = 1_000;

/// One request to NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The figures of a tag's consumer.
    Figures(String),
    /// How many messages has this tag?
    Count(String),
    /// The first message of a tag from a sequence on.
    Message { tag: String, from: u64 },
}

/// What becomes of a message that a walk has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Walked {
    /// It was delivered before, so it may be stuck: see [`super::may_be_stuck`].
    Examine,
    /// The walk is over: so many messages of the tag were stuck.
    Over { tag: String, stuck: u64 },
}

/// Looks for stuck messages.
#[derive(Debug, Default)]
pub struct Stuck {
    /// Tags whose figures have said in their last look that messages are stuck. The figures of a cluster come
    /// from nodes that know of a message at different times, so one look alone may be wrong.
    suspects: HashSet<String>,
    /// The tag whose figures were asked for last.
    turn: String,
    tasks: VecDeque<Task>,
}

#[derive(Debug)]
enum Task {
    Figures { tag: String },
    Count { tag: String, before: Deliveries },
    FiguresAgain { tag: String, before: Deliveries, stored: u64 },
    Walk { tag: String, next: u64, last: u64, stuck: u64 },
}

impl Stuck {
    /// Begins a look, unless one is going on.
    pub fn begin(&mut self, contents: &QueueContents) {
        if !self.tasks.is_empty() {
            return;
        }
        self.suspects.retain(|tag| contents.by_tag.contains_key(tag));
        let (mut tags, after): (Vec<_>, Vec<_>) = contents.by_tag.keys().partition(|tag| **tag <= self.turn);
        tags.splice(0..0, after);
        tags.truncate(MAX_TAGS_PER_LOOK);
        self.turn = tags.last().map(|tag| (*tag).clone()).unwrap_or_default();
        self.tasks.extend(tags.into_iter().map(|tag| Task::Figures { tag: tag.clone() }));
    }

    /// `None`: nothing is left to ask.
    pub fn next(&self) -> Option<Ask> {
        Some(match self.tasks.front()? {
            Task::Figures { tag } | Task::FiguresAgain { tag, .. } => Ask::Figures(tag.clone()),
            Task::Count { tag, .. } => Ask::Count(tag.clone()),
            Task::Walk { tag, next, .. } => Ask::Message { tag: tag.clone(), from: *next },
        })
    }

    /// The answer to [`Ask::Figures`]; `None`: without a consumer nothing was ever delivered.
    pub fn figures(&mut self, figures: Option<Deliveries>) {
        match (self.tasks.pop_front(), figures) {
            (Some(Task::Figures { tag }), Some(before)) => self.tasks.push_front(Task::Count { tag, before }),
            (Some(Task::FiguresAgain { tag, before, stored }), Some(after)) => {
                let stuck = stuck_messages(before, stored, after);
                self.compared(tag, stuck, before.delivered_to);
            }
            _ => {}
        }
    }

    /// The answer to [`Ask::Count`].
    pub fn count(&mut self, stored: u64) {
        let Some(Task::Count { tag, before }) = self.tasks.pop_front() else { return };
        // The second figures only lower the number.
        match stuck_messages(before, stored, before) {
            0 => self.compared(tag, 0, 0),
            _ => self.tasks.push_front(Task::FiguresAgain { tag, before, stored }),
        }
    }

    /// Begins a walk when the figures say twice that messages are stuck.
    fn compared(&mut self, tag: String, stuck: u64, last: u64) {
        if stuck == 0 {
            self.suspects.remove(&tag);
        } else if !self.suspects.insert(tag.clone()) {
            self.tasks.push_back(Task::Walk { tag, next: 1, last, stuck: 0 });
        }
    }

    /// The answer to [`Ask::Message`]: the sequence of the message.
    pub fn message(&mut self, found: Option<u64>) -> Walked {
        match self.tasks.pop_front() {
            Some(Task::Walk { tag, last, stuck, .. }) => match found.filter(|seq| *seq <= last) {
                Some(seq) => {
                    // The figures of other tags do not wait for a long walk.
                    self.tasks.push_back(Task::Walk { tag, next: seq + 1, last, stuck });
                    Walked::Examine
                }
                None => Walked::Over { tag, stuck },
            },
            _ => Walked::Over { tag: String::new(), stuck: 0 },
        }
    }

    /// The message that was to be examined was stuck, and is not any more.
    pub fn mended(&mut self) {
        if let Some(Task::Walk { stuck, .. }) = self.tasks.back_mut() {
            *stuck += 1;
        }
    }

    /// What was asked for has failed: the next look begins it anew.
    pub fn failed(&mut self) {
        self.tasks.pop_front();
    }
}

/// How many messages of a tag are neither waiting for a delivery nor in delivery, at least. `stored` was
/// counted after the figures `before` and before the figures `after`, while messages come and go.
pub fn stuck_messages(before: Deliveries, stored: u64, after: Deliveries) -> u64 {
    // The consumer was created anew in between.
    if !mends::is_in(Mend::StuckMessages) || after.deliveries < before.deliveries {
        return 0;
    }
    // Those that wait or are in delivery when the messages are counted: those of the figures before, and what
    // came since. What came since waits in the figures after, or was delivered in between.
    let in_order = before.ack_pending + after.pending + (after.deliveries - before.deliveries);
    stored.saturating_sub(in_order)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn figures(pending: u64, ack_pending: u64, deliveries: u64) -> Deliveries {
        Deliveries { pending, ack_pending, delivered_to: 9, deliveries }
    }

    fn contents(tags: &[&str]) -> QueueContents {
        let by_tag: BTreeMap<_, _> = tags.iter().map(|tag| ((*tag).to_owned(), 3)).collect();
        QueueContents { by_tag, ..QueueContents::default() }
    }

    #[test]
    fn jobs_that_come_and_go_between_the_figures_are_not_stuck() {
        // Ten jobs, two of them in delivery.
        let before = figures(8, 2, 100);
        assert_eq!(stuck_messages(before, 10, before), 0);
        assert_eq!(stuck_messages(before, 13, before), 3);
        // Three have completed before they are counted.
        assert_eq!(stuck_messages(before, 7, figures(8, 2, 100)), 0);
        // Five were submitted before, and workers take some of them.
        assert_eq!(stuck_messages(before, 15, figures(13, 2, 100)), 0);
        assert_eq!(stuck_messages(before, 15, figures(9, 6, 104)), 0);
        assert_eq!(stuck_messages(before, 15, figures(9, 0, 104)), 0, "they have completed after");
        // Two are stuck all the time.
        assert_eq!(stuck_messages(before, 17, figures(13, 2, 100)), 2);
        assert_eq!(stuck_messages(before, 17, figures(9, 6, 104)), 2);
        assert_eq!(stuck_messages(before, 10, figures(0, 0, 0)), 0, "the consumer was created anew");
    }

    /// Answers for a tag until nothing is left to ask; the sequences that were examined.
    fn look(stuck: &mut Stuck, stored: u64, now: Deliveries, mended: bool) -> (Vec<u64>, Option<Walked>) {
        let (mut examined, mut over) = (Vec::new(), None);
        while let Some(ask) = stuck.next() {
            match ask {
                Ask::Figures(_) => stuck.figures(Some(now)),
                Ask::Count(_) => stuck.count(stored),
                Ask::Message { from, .. } => match stuck.message((from <= 12).then_some(from)) {
                    Walked::Examine => {
                        examined.push(from);
                        if mended {
                            stuck.mended();
                        }
                    }
                    walked @ Walked::Over { .. } => over = Some(walked),
                },
            }
        }
        (examined, over)
    }

    #[test]
    fn messages_are_examined_when_two_looks_say_that_some_are_stuck() {
        let mut stuck = Stuck::default();
        let over = |stuck| Some(Walked::Over { tag: "a".into(), stuck });
        for (stored, examined, end) in
            [(10, 0, None), (11, 0, None), (11, 9, over(9)), (10, 0, None), (11, 0, None), (12, 9, over(9))]
        {
            stuck.begin(&contents(&["a"]));
            let (seqs, walked) = look(&mut stuck, stored, figures(8, 2, 100), true);
            assert_eq!((seqs.len(), walked), (examined, end), "{stored}");
        }
        stuck.begin(&contents(&["a"]));
        assert_eq!(look(&mut stuck, 12, figures(8, 2, 100), false).1, over(0), "nothing was stuck after all");
    }

    #[test]
    fn an_error_costs_the_turn_of_one_tag() {
        let mut stuck = Stuck::default();
        stuck.begin(&contents(&["a", "b"]));
        assert_eq!(stuck.next(), Some(Ask::Figures("a".into())));
        stuck.failed();
        assert_eq!(stuck.next(), Some(Ask::Figures("b".into())));
        stuck.begin(&contents(&["c"]));
        stuck.figures(None);
        assert_eq!(stuck.next(), None, "a look was going on");
    }

    #[test]
    fn more_tags_than_one_look_asks_for_have_their_turns() {
        let names: Vec<String> = (0..2_500).map(|n| format!("t{n:04}")).collect();
        let tags: Vec<&str> = names.iter().map(String::as_str).collect();
        let (mut stuck, mut asked) = (Stuck::default(), Vec::new());
        for _ in 0..5 {
            stuck.begin(&contents(&tags));
            while let Some(Ask::Figures(tag)) = stuck.next() {
                asked.push(tag);
                stuck.figures(None);
            }
        }
        assert_eq!(asked.len(), 5_000);
        assert_eq!(asked[..2_500], names[..]);
        assert_eq!(asked[2_500..], names[..]);
    }
}
