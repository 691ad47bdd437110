//! Random numbers from a seed (SplitMix64), so that faults come in the same order again.

use std::ops::Range;
use std::time::Duration;

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound`, which is not reached.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    pub fn seconds(&mut self, range: Range<f64>) -> f64 {
        range.start + (range.end - range.start) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn duration(&mut self, range: Range<f64>) -> Duration {
        Duration::from_secs_f64(self.seconds(range))
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
