//! The order of lists, and what can be counted or found without walking all runs.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use crate::model::run::{RunStatus, RunSummary};

/// Where a run stands in a list: by `updated_at`, then by `run_id`.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Unix seconds.
    pub updated_at: f64,
    /// The run.
    pub run_id: String,
}

impl Position {
    /// A run's place.
    pub fn of(run: &RunSummary) -> Self {
        Position { updated_at: run.updated_at.unwrap_or(0.0), run_id: run.run_id.clone() }
    }
}

impl Eq for Position {}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        self.updated_at.total_cmp(&other.updated_at).then_with(|| self.run_id.cmp(&other.run_id))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Keeps runs in order; the caller removes a version before it inserts the next.
#[derive(Debug, Default)]
pub(super) struct Order {
    by_time: BTreeSet<Position>,
    counts: HashMap<RunStatus, usize>,
    unfinished: HashSet<String>,
}

impl Order {
    pub(super) fn insert(&mut self, run: &RunSummary) {
        self.by_time.insert(Position::of(run));
        *self.counts.entry(run.status).or_default() += 1;
        if !run.status.is_terminal() {
            self.unfinished.insert(run.run_id.clone());
        }
    }

    pub(super) fn remove(&mut self, run: &RunSummary) {
        self.by_time.remove(&Position::of(run));
        if let Some(count) = self.counts.get_mut(&run.status) {
            *count = count.saturating_sub(1);
        }
        self.unfinished.remove(&run.run_id);
    }

    pub(super) fn count(&self, status: RunStatus) -> usize {
        self.counts.get(&status).copied().unwrap_or(0)
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = &str> {
        self.unfinished.iter().map(String::as_str)
    }

    /// Run ids, newest first, strictly behind `after`.
    pub(super) fn newest_first(&self, after: Option<&Position>) -> impl Iterator<Item = &str> {
        let end = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_time.range((Bound::Unbounded, end)).rev().map(|position| position.run_id.as_str())
    }
}
