//! Until when an execution may begin something new without a further word of its worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::clock;

/// Held by the worker, which renews it as long as its process goes on, and by the execution, which looks at
/// it. After a pause of the process it has lapsed: another worker may have the run by then. Clones share one
/// state.
#[derive(Debug, Clone)]
pub struct Lease {
    length: Duration,
    /// Milliseconds of [`clock::since_boot`].
    until: Arc<AtomicU64>,
}

impl Lease {
    /// From now on.
    pub fn new(length: Duration) -> Lease {
        let lease = Lease { length, until: Arc::default() };
        lease.extend(clock::since_boot());
        lease
    }

    /// Whether the execution may begin something new.
    pub fn holds(&self) -> bool {
        Lease::millis(clock::since_boot()) < self.until.load(Ordering::SeqCst)
    }

    /// Says that the process goes on; `false` when it had stood still for too long. Then only
    /// [`Lease::extend`] helps.
    pub fn renew(&self) -> bool {
        // Read before the look: a pause between the two must not be taken for life.
        let now = clock::since_boot();
        let holds = self.holds();
        if holds {
            self.extend(now);
        }
        holds
    }

    /// The run was still this worker's at that moment of [`clock::since_boot`].
    pub fn extend(&self, at: Duration) {
        self.until.fetch_max(Lease::millis(at + self.length), Ordering::SeqCst);
    }

    fn millis(time: Duration) -> u64 {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_has_lapsed_is_not_renewed_but_begun_anew() {
        let lease = Lease::new(Duration::from_secs(60));
        assert!(lease.holds() && lease.renew());
        let lease = Lease::new(Duration::ZERO);
        assert!(!lease.holds() && !lease.renew() && !lease.holds());
        // What was true before the pause says nothing.
        lease.extend(clock::since_boot().saturating_sub(Duration::from_secs(1)));
        assert!(!lease.holds());
        lease.extend(clock::since_boot() + Duration::from_secs(60));
        assert!(lease.clone().holds());
    }
}
