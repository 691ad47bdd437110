//! Counts of durations by fixed bounds.

use std::time::Duration;

/// A histogram; `N` upper bounds in seconds, rising.
#[derive(Debug, Clone)]
pub(crate) struct Histogram<const N: usize> {
    pub bounds: &'static [f64; N],
    /// Per bound, not cumulated; what is above all bounds is in `count` alone.
    counts: [u64; N],
    pub sum: f64,
    pub count: u64,
}

impl<const N: usize> Histogram<N> {
    pub(crate) fn new(bounds: &'static [f64; N]) -> Self {
        Histogram { bounds, counts: [0; N], sum: 0.0, count: 0 }
    }

    pub(crate) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(at) = self.bounds.iter().position(|bound| seconds <= *bound) {
            self.counts[at] += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    pub(crate) fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut total = 0;
        self.bounds.iter().zip(self.counts).map(move |(bound, count)| {
            total += count;
            (*bound, total)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulated_and_a_bound_is_included() {
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        for millis in [500, 750, 1000, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!(histogram.cumulated().collect::<Vec<_>>(), [(0.5, 1), (1.0, 3)]);
        assert_eq!((histogram.count, histogram.sum), (4, 7.25));
    }
}
