//! The order of lists, and what can be counted or found without walking all runs.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::model::clock;
use crate::model::run::{RunStatus, RunSummary};

/// Where a run stands in a list: by `updated_at`, then by `run_id`.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    pub updated_at: f64,
    pub run_id: String,
}

impl Position {
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
pub(super) struct RunOrder {
    by_time: BTreeSet<Position>,
    /// The same per tenant, of runs that have one: what others do makes nobody's list slower.
    by_tenant: HashMap<String, BTreeSet<Position>>,
    counts: HashMap<RunStatus, usize>,
    /// The same by the local day of the last write; days on which nothing counts are left out.
    by_day: HashMap<(Date, RunStatus), usize>,
    unfinished: HashSet<String>,
}

impl RunOrder {
    pub(super) fn insert(&mut self, run: &RunSummary) {
        self.by_time.insert(Position::of(run));
        if let Some(tenant) = &run.tenant_id {
            self.by_tenant.entry(tenant.clone()).or_default().insert(Position::of(run));
        }
        *self.counts.entry(run.status).or_default() += 1;
        if let Some(day) = run.updated_at.and_then(local_day) {
            *self.by_day.entry((day, run.status)).or_default() += 1;
        }
        if !run.status.is_terminal() {
            self.unfinished.insert(run.run_id.clone());
        }
    }

    pub(super) fn remove(&mut self, run: &RunSummary) {
        self.by_time.remove(&Position::of(run));
        if let Some(tenant) = &run.tenant_id
            && let Some(runs) = self.by_tenant.get_mut(tenant)
        {
            runs.remove(&Position::of(run));
            if runs.is_empty() {
                self.by_tenant.remove(tenant);
            }
        }
        if let Some(count) = self.counts.get_mut(&run.status) {
            *count = count.saturating_sub(1);
        }
        if let Some(day) = run.updated_at.and_then(local_day)
            && let Some(count) = self.by_day.get_mut(&(day, run.status))
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_day.remove(&(day, run.status));
            }
        }
        self.unfinished.remove(&run.run_id);
    }

    pub(super) fn count(&self, status: RunStatus) -> usize {
        self.counts.get(&status).copied().unwrap_or(0)
    }

    pub(super) fn count_on(&self, day: Option<Date>, status: RunStatus) -> usize {
        day.and_then(|day| self.by_day.get(&(day, status))).copied().unwrap_or(0)
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = &str> {
        self.unfinished.iter().map(String::as_str)
    }

    /// Run ids of one tenant or of all, newest first, strictly behind `after`.
    pub(super) fn newest_first(
        &self,
        tenant: Option<&str>,
        after: Option<&Position>,
    ) -> impl Iterator<Item = &str> {
        let runs = match tenant {
            None => Some(&self.by_time),
            Some(tenant) => self.by_tenant.get(tenant),
        };
        let end = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = runs.map(|runs| runs.range((Bound::Unbounded, end)));
        range.into_iter().flat_map(Iterator::rev).map(|position| position.run_id.as_str())
    }
}

pub(super) fn today() -> Option<Date> {
    local_day(clock::now())
}

/// The day of a time in unix seconds; `None` for what is no time.
fn local_day(at: f64) -> Option<Date> {
    // Saturates; what is out of range is refused below.
    let timestamp = Timestamp::from_second(at as i64).ok()?;
    Some(timestamp.to_zoned(TimeZone::system()).date())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::run::RunSnapshot;

    #[test]
    fn runs_count_on_the_day_of_their_last_write() {
        let run = |at: Option<f64>| {
            let mut run = RunSnapshot::pending("r".into(), "m".into(), "t".into(), 0.0);
            run.updated_at = at;
            run.summary()
        };
        let mut order = RunOrder::default();
        let now = clock::now();
        for at in [Some(now), Some(now), Some(now - 3.0 * 86_400.0), None, Some(1e300)] {
            order.insert(&run(at));
        }
        assert_eq!(order.count_on(today(), RunStatus::Pending), 2);
        assert_eq!(order.count(RunStatus::Pending), 5);
        order.remove(&run(Some(now)));
        order.remove(&run(Some(now)));
        assert_eq!((order.count_on(today(), RunStatus::Pending), order.by_day.len()), (0, 1));
    }
}
