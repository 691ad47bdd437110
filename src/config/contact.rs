//! How long runs go on when their worker's process stands still, or when it has lost NATS.

use std::time::Duration;

use super::reader;
use crate::model::limits::{LEAST_RUN_SILENCE, MISSED_HEARTBEATS};

/// For the end of the processes whose lease has run out.
const LEASE_MARGIN: Duration = Duration::from_millis(500);
/// A shorter lease would end runs on a machine that is merely busy.
const LEAST_LEASE: Duration = Duration::from_secs(1);

/// For the write that a worker waits for when its time without NATS is over, and for the end of its
/// processes.
const STOP_MARGIN: Duration = Duration::from_millis(2500);

/// `continue`, or `stop:` and seconds.
pub(super) fn parse_lost_nats(text: &str) -> Result<Option<Duration>, String> {
    match text.split_once(':') {
        None if text.eq_ignore_ascii_case("continue") => Ok(None),
        Some((word, seconds)) if word.eq_ignore_ascii_case("stop") => {
            reader::parse_positive_seconds(seconds.trim()).map(Some)
        }
        _ => Err("must be `continue`, or `stop:` and a number of seconds".to_owned()),
    }
}

/// Shorter than what has to pass before another worker may get the job of a worker that stands still: the
/// silence of the run from its last heartbeat on, or `ack_wait` from the last in-progress ACK on.
pub(super) fn execution_lease(heartbeat: Duration, ack_wait: Duration, progress: Duration) -> Duration {
    let first = rescue(heartbeat).saturating_sub(heartbeat).min(ack_wait.saturating_sub(progress));
    first.saturating_sub(LEASE_MARGIN).max(LEAST_LEASE)
}

/// The longest `stop:` with which a worker has ended its runs before another one may get their jobs; counted
/// from the last write that was stored, as is the silence of a run.
pub(super) fn longest_stop(heartbeat: Duration, ack_wait: Duration, progress: Duration) -> Duration {
    rescue(heartbeat).min(ack_wait.saturating_sub(progress)).saturating_sub(STOP_MARGIN)
}

/// Silence of a run after which a gateway may give its job to another worker.
fn rescue(heartbeat: Duration) -> Duration {
    LEAST_RUN_SILENCE.max(heartbeat.saturating_mul(MISSED_HEARTBEATS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_without_nats_does_is_a_word_with_seconds() {
        assert_eq!(parse_lost_nats("Continue"), Ok(None));
        assert_eq!(parse_lost_nats("stop:2.5"), Ok(Some(Duration::from_millis(2500))));
        for bad in ["", "stop", "stop:", "stop:0", "stop:-1", "continue:5", "wait:5"] {
            assert!(parse_lost_nats(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_lease_runs_out_before_another_worker_may_get_the_job() {
        let lease = |heartbeat, ack_wait, progress| {
            let seconds = Duration::from_secs_f64;
            execution_lease(seconds(heartbeat), seconds(ack_wait), seconds(progress)).as_secs_f64()
        };
        assert_eq!(lease(1.0, 30.0, 10.0), 3.5);
        assert_eq!(lease(0.5, 30.0, 10.0), 4.0);
        assert_eq!(lease(2.0, 30.0, 10.0), 7.5);
        assert_eq!(lease(60.0, 30.0, 10.0), 19.5);
        assert_eq!(lease(1.0, 2.0, 1.0), 1.0);
    }

    #[test]
    fn a_worker_without_nats_has_less_time_than_the_silence_that_gives_its_runs_away() {
        let longest = |heartbeat, ack_wait, progress| {
            let seconds = Duration::from_secs_f64;
            longest_stop(seconds(heartbeat), seconds(ack_wait), seconds(progress)).as_secs_f64()
        };
        assert_eq!(longest(1.0, 30.0, 10.0), 2.5);
        assert_eq!(longest(3.0, 30.0, 10.0), 12.5);
        assert_eq!(longest(60.0, 30.0, 10.0), 17.5);
        assert_eq!(longest(1.0, 2.0, 1.0), 0.0);
    }
}
