//! What happens to runs: submits of this gateway, ends and waits that its index has seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::OTHER;
use super::histogram::Histogram;
use super::text::{Kind, Text};
use crate::model::job::DEFAULT_TAG;
use crate::model::limits::MAX_METRIC_LABELS;
use crate::model::name;
use crate::model::run::{RunStatus, RunSummary};

/// Upper bounds of a run's duration, in seconds: from a quick script to a day's work.
const DURATIONS: [f64; 13] =
    [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0];
/// Upper bounds of the wait for a worker, in seconds.
const WAITS: [f64; 12] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0];

#[derive(Clone, Default)]
pub struct RunFigures(Arc<Mutex<Counts>>);

struct Counts {
    submitted: BTreeMap<String, u64>,
    finished: BTreeMap<(&'static str, String), u64>,
    durations: Histogram<13>,
    waits: Histogram<12>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            submitted: BTreeMap::new(),
            finished: BTreeMap::new(),
            durations: Histogram::new(&DURATIONS),
            waits: Histogram::new(&WAITS),
        }
    }
}

impl RunFigures {
    pub fn submitted(&self, tag: &str) {
        let mut counts = self.0.lock();
        let tag = bounded(counts.submitted.keys().map(String::as_str), tag);
        *counts.submitted.entry(tag).or_default() += 1;
    }

    /// Without `old` the run counts only if it was written just now (`is_live`).
    pub fn moved(&self, old: Option<&RunSummary>, new: &RunSummary, is_live: bool) {
        if old.is_none() && !is_live {
            return;
        }
        if let Some(start) = new.start_time
            && old.is_none_or(|old| old.start_time.is_none())
            // The Python gateway does not write it; its first version is from that moment.
            && let Some(submitted) = new.submitted_at.or(old.and_then(|old| old.updated_at))
        {
            self.0.lock().waits.observe(between(submitted, start));
        }
        if new.status.is_terminal() && old.is_none_or(|old| !old.status.is_terminal()) {
            let mut counts = self.0.lock();
            let tag = bounded(counts.finished.keys().map(|(_, tag)| tag.as_str()), &new.tag);
            *counts.finished.entry((new.status.as_str(), tag)).or_default() += 1;
            if let (Some(start), Some(end)) = (new.start_time, new.end_time) {
                counts.durations.observe(between(start, end));
            }
        }
    }

    pub(crate) fn write(&self, text: &mut Text) {
        let counts = self.0.lock();
        let help = "Runs that this gateway has taken.";
        let mut family = text.family("pyoco_runs_submitted_total", Kind::Counter, help);
        for (tag, count) in &counts.submitted {
            family.sample(&[("tag", tag)], *count as f64);
        }
        let help = "Ends of runs that this gateway has seen, also of runs of other gateways.";
        let mut family = text.family("pyoco_runs_finished_total", Kind::Counter, help);
        for ((status, tag), count) in &counts.finished {
            family.sample(&[("status", status), ("tag", tag)], *count as f64);
        }
        // Without any end yet there is still something to take a rate of.
        let ends = RunStatus::ALL.iter().filter(|status| status.is_terminal());
        for status in ends.filter(|_| counts.finished.is_empty()) {
            family.sample(&[("status", status.as_str()), ("tag", DEFAULT_TAG)], 0.0);
        }
        let help = "From the start of a run's last attempt to its end.";
        text.family("pyoco_run_duration_seconds", Kind::Histogram, help).histogram(&[], &counts.durations);
        let help = "From the submit of a run to its first start.";
        text.family("pyoco_run_queue_wait_seconds", Kind::Histogram, help).histogram(&[], &counts.waits);
    }
}

/// Clocks of two machines may disagree: then nothing has passed.
fn between(from: f64, to: f64) -> Duration {
    Duration::try_from_secs_f64(to - from).unwrap_or_default()
}

/// `tag`, or what stands for all others once there are too many. Tags are anybody's choice, and what
/// another program has stored as one may be any text of any length.
fn bounded<'a>(known: impl Iterator<Item = &'a str>, tag: &str) -> String {
    if !name::is_tag(tag) {
        return OTHER.to_owned();
    }
    let (mut distinct, mut last) = (0, None);
    // Keys of a map come sorted by status first, so a tag is met up to three times; that only makes
    // the bound a little tighter.
    for one in known {
        if one == tag {
            return tag.to_owned();
        }
        distinct += usize::from(last != Some(one));
        last = Some(one);
    }
    if distinct < MAX_METRIC_LABELS { tag.to_owned() } else { OTHER.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::run::RunSnapshot;

    fn run(status: RunStatus, start: Option<f64>, end: Option<f64>) -> RunSummary {
        let mut run = RunSnapshot::pending("r".into(), "main".into(), "gpu".into(), 10.0);
        (run.status, run.start_time, run.end_time) = (status, start, end);
        run.summary()
    }

    #[test]
    fn each_start_and_each_end_counts_once() {
        let figures = RunFigures::default();
        let pending = run(RunStatus::Pending, None, None);
        let running = run(RunStatus::Running, Some(12.0), None);
        let again = run(RunStatus::Running, Some(20.0), None);
        let done = run(RunStatus::Completed, Some(20.0), Some(20.5));
        figures.moved(None, &done, false);
        figures.moved(None, &pending, true);
        figures.moved(Some(&pending), &running, true);
        figures.moved(Some(&running), &again, true);
        // Also while the view was stale for a while.
        figures.moved(Some(&again), &done, false);
        figures.moved(Some(&done), &done, true);
        let counts = figures.0.lock();
        assert_eq!((counts.waits.count, counts.waits.sum), (1, 2.0));
        assert_eq!((counts.durations.count, counts.durations.sum), (1, 0.5));
        assert_eq!(counts.finished.len(), 1);
        assert_eq!(counts.finished[&("COMPLETED", "gpu".to_owned())], 1);
    }

    #[test]
    fn tags_are_bounded() {
        let figures = RunFigures::default();
        for n in 0..MAX_METRIC_LABELS + 50 {
            figures.submitted(&n.to_string());
            figures.submitted("0");
        }
        let counts = figures.0.lock();
        assert_eq!(counts.submitted.len(), MAX_METRIC_LABELS + 1);
        assert_eq!(counts.submitted[OTHER], 50);
    }

    #[test]
    fn what_is_no_tag_is_no_label() {
        let figures = RunFigures::default();
        let running = run(RunStatus::Running, Some(12.0), None);
        for tag in ["a\"} 1\nevil 7", "", "x.y", &"x".repeat(1_000_000)] {
            let mut done = run(RunStatus::Failed, Some(12.0), Some(13.0));
            done.tag = tag.to_owned();
            figures.moved(Some(&running), &done, true);
        }
        let counts = figures.0.lock();
        assert_eq!(counts.finished.len(), 1);
        assert_eq!(counts.finished[&("FAILED", OTHER.to_owned())], 4);
    }
}
