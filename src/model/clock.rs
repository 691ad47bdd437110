//! Wall-clock time as the wire has it: unix seconds as a float. And the clock that tells that this process,
//! or the machine, has stood still.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in unix seconds with the fraction that an `f64` holds (about 0.2 µs in this century).
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The time since the start of the machine, with the time in which it was suspended.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// The time since a moment of [`since_boot`].
pub fn elapsed(since: Duration) -> Duration {
    since_boot().saturating_sub(since)
}
