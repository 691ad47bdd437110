//! One allowance for all connections together: of memory, or of places.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What all connections together may take of something: bytes that they buffer beyond their small
/// free part, or places.
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// A part of a [`Budget`], given back when dropped.
pub struct Reservation<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes or places.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, used: AtomicUsize::new(0) }
    }

    /// The most that can ever be reserved.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// One place; `None` when none is left.
    pub fn take_one(&self) -> Option<Reservation<'_>> {
        let mut place = self.empty();
        place.grow(1).then_some(place)
    }

    /// A reservation of nothing, to be grown.
    pub fn empty(&self) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0 }
    }
}

impl Reservation<'_> {
    /// Reserves more; `false`, and nothing changes, when that much is not left.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.budget.limit);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = Budget::new(10);
        let mut one = budget.empty();
        assert!(one.grow(6));
        let mut two = budget.empty();
        assert!(!two.grow(5));
        assert!(two.grow(4));
        drop(one);
        assert!(two.grow(6));
    }
}
