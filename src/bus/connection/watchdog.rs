//! Owns the health of one link: connects it, notices when it is lost, when nobody answers, or when the server
//! is cut off from its cluster, and replaces it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};

use crate::bus::Error;
use crate::bus::connection::shared::LinkShared;
use crate::thread::StopSignal;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Missed checks after which the connection counts as half-open.
const MAX_MISSES: u32 = 3;
/// Before a server is left once more because it is cut off, while no other one reaches a leader either.
const CUT_OFF_PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Between two log lines about a server that cannot be reached.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Runs until `stop`. It is the only thread that makes connections.
pub(crate) fn run(shared: &Arc<LinkShared>, stop: &StopSignal) {
    let (retry, cut_off_pause) = (Duration::ZERO, CUT_OFF_PAUSES.0);
    let mut watch = Watchdog { misses: 0, retry, complained: None, left_at: None, cut_off_pause };
    let mut pause = Duration::ZERO;
    loop {
        select! {
            recv(stop) -> _ => return,
            recv(shared.on_lost) -> _ => {}
            recv(after(pause)) -> _ => {}
        }
        pause = if shared.drop_lost() || watch.misses >= MAX_MISSES {
            watch.connect(shared)
        } else {
            watch.check(shared)
        };
    }
}

struct Watchdog {
    misses: u32,
    retry: Duration,
    complained: Option<Instant>,
    /// When a server was left last because it is cut off.
    left_at: Option<Instant>,
    cut_off_pause: Duration,
}

impl Watchdog {
    /// Tries once; how long to wait then.
    fn connect(&mut self, shared: &Arc<LinkShared>) -> Duration {
        match shared.connect() {
            Ok(()) => {
                (self.misses, self.retry, self.complained) = (0, Duration::ZERO, None);
                CHECK_INTERVAL
            }
            Err(problem) => {
                self.complain(shared, &problem);
                self.retry = (self.retry * 2).clamp(RETRY_MIN, RETRY_MAX);
                self.retry
            }
        }
    }

    /// Asks for a sign of life; how long to wait until the next time.
    fn check(&mut self, shared: &Arc<LinkShared>) -> Duration {
        match shared.ping(CHECK_TIMEOUT) {
            Ok(()) => {
                self.misses = 0;
                shared.set_suspect(false);
                self.leave_cut_off(shared)
            }
            Err(Error::Timeout { .. }) => {
                self.misses += 1;
                if self.misses == MAX_MISSES {
                    log::warn!(link = shared.role;
                        "NATS does not answer; replacing the connection");
                    shared.set_suspect(true);
                }
                // Three misses in a row make three seconds of silence.
                Duration::ZERO
            }
            Err(_) => Duration::ZERO,
        }
    }

    /// Goes to another server when this one is cut off from its cluster.
    fn leave_cut_off(&mut self, shared: &Arc<LinkShared>) -> Duration {
        let is_recent = self.left_at.is_some_and(|at| at.elapsed() < self.cut_off_pause);
        if is_recent || !shared.is_cut_off() {
            return CHECK_INTERVAL;
        }
        let is_again = self.left_at.is_some_and(|at| at.elapsed() < self.cut_off_pause * 2);
        self.cut_off_pause = match is_again {
            true => (self.cut_off_pause * 2).min(CUT_OFF_PAUSES.1),
            false => CUT_OFF_PAUSES.0,
        };
        self.left_at = Some(Instant::now());
        log::warn!(link = shared.role;
            "the NATS server answers, but nothing that needs a leader; trying another one");
        self.connect(shared)
    }

    fn complain(&mut self, shared: &LinkShared, problem: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_INTERVAL) {
            self.complained = Some(Instant::now());
            let code = crate::model::error::Code::NatsUnavailable;
            log::warn!(link = shared.role, err_id = code.err_id(), msg_id = code.msg_id(),
                reason = problem; "cannot connect to NATS; trying on");
        }
    }
}
