//! Owns the health of one link: connects it first, notices when nobody answers, replaces it.

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
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The crate reconnects by itself; when it has not for this long, a new connection replaces it.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Between two log lines about a server that cannot be reached.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Runs until `stop`. It is the only thread that makes connections.
pub(crate) fn run(shared: &Arc<LinkShared>, stop: &StopSignal) {
    let mut watch = Watchdog { misses: 0, down_since: Some(Instant::now()), complained: None };
    let mut pause = Duration::ZERO;
    loop {
        select! {
            recv(stop) -> _ => return,
            recv(after(pause)) -> _ => {}
        }
        pause = if watch.must_connect(shared) {
            match shared.connect() {
                Ok(()) => {
                    watch = Watchdog { misses: 0, down_since: None, complained: None };
                    CHECK_INTERVAL
                }
                Err(problem) => {
                    watch.complain(shared, &problem);
                    (pause * 2).clamp(RETRY_MIN, RETRY_MAX)
                }
            }
        } else {
            watch.check(shared);
            CHECK_INTERVAL
        };
    }
}

struct Watchdog {
    misses: u32,
    down_since: Option<Instant>,
    complained: Option<Instant>,
}

impl Watchdog {
    /// Whether a new connection is due: none yet, none of the crate's own, or nobody answers.
    fn must_connect(&mut self, shared: &LinkShared) -> bool {
        if shared.has_socket() {
            self.down_since = None;
            return self.misses >= MAX_MISSES;
        }
        let since = *self.down_since.get_or_insert_with(Instant::now);
        shared.never_connected() || since.elapsed() >= RECONNECT_PATIENCE
    }

    fn check(&mut self, shared: &LinkShared) {
        match shared.ping(CHECK_TIMEOUT) {
            // Any answer shows that the server is there; JetStream being off is told by requests.
            Ok(_) | Err(Error::NoResponders(_)) => {
                self.misses = 0;
                shared.set_suspect(false);
            }
            Err(Error::Timeout { .. }) => {
                self.misses += 1;
                if self.misses == MAX_MISSES {
                    log::warn!(link = shared.role;
                        "NATS does not answer; replacing the connection");
                    shared.set_suspect(true);
                }
            }
            Err(_) => {}
        }
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
