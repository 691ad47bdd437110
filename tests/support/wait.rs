//! Waiting for something to become true, with a deadline and a name for what is awaited.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for anything local on a loaded machine; a test that passes never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again until it has an answer, and panics with `what` at the deadline.
pub fn eventually<T>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
