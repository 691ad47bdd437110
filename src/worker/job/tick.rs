//! One job's ticker: tells the server that the work goes on, and looks for a cancel request.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, select, tick};

use crate::bus::{Delivered, Kv};
use crate::flow::Lease;
use crate::model::error::Code;
use crate::model::json;
use crate::model::run::{RunStatus, RunSummary};
use crate::thread::{self, Service, StopSignal};

/// Between two looks at the snapshot for a cancel request. The heartbeat's compare-and-set would
/// find it too, but its interval belongs to the operator.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// For one such look, and for NATS to confirm an in-progress ACK: the lease of the run is renewed in between.
const MAX_LOOK: Duration = Duration::from_secs(1);
/// After an in-progress ACK that NATS has not confirmed.
const PROGRESS_RETRY: Duration = Duration::from_secs(2);

/// Notices that may wait for a slot that is writing.
const MAX_NOTICES: usize = 2;

/// What a ticker tells its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Once.
    CancelRequested,
    /// This process has stood still, so the run may be another worker's. Told until the lease holds again.
    StoodStill,
}

/// Runs until it is dropped; then its thread is joined, so nothing of it comes afterwards.
pub(crate) struct Ticker {
    /// Written by the ticker's thread, read by the slot.
    pub(crate) notices: Receiver<Notice>,
    _thread: Service,
}

impl Ticker {
    /// Sends an in-progress ACK at once and then every `progress_interval`; renews the lease more often.
    pub(crate) fn start(
        delivered: Delivered,
        runs: Kv,
        run_id: String,
        progress_interval: Duration,
        lease: Lease,
    ) -> std::io::Result<Ticker> {
        let (notify, notices) = bounded(MAX_NOTICES);
        // A slow look must not hold up the next in-progress ACK, nor the end of the job.
        let max_look = MAX_LOOK.min(progress_interval / 2);
        let runs = runs.with_timeout(max_look);
        let body = TickerThread { delivered, runs, max_look, run_id, notify, told: false, lease };
        let run = move |stop: &StopSignal| body.run(stop, progress_interval);
        Ok(Ticker { notices, _thread: Service::start_small("ticker", run)? })
    }
}

struct TickerThread {
    delivered: Delivered,
    runs: Kv,
    max_look: Duration,
    run_id: String,
    notify: Sender<Notice>,
    told: bool,
    lease: Lease,
}

impl TickerThread {
    fn run(mut self, stop: &StopSignal, progress_interval: Duration) {
        let poll = tick(CANCEL_POLL_INTERVAL);
        // The job has just been claimed: nothing to be made sure of, and a short run has not to wait for it.
        let _ = self.delivered.in_progress();
        let mut progress = after(progress_interval);
        loop {
            // Control before data: a closed stop wins over a due tick.
            if thread::is_stopped(stop) {
                return;
            }
            if !self.lease.renew() {
                // One that waits says the same.
                let _ = self.notify.try_send(Notice::StoodStill);
            }
            select! {
                recv(stop) -> _ => return,
                recv(progress) -> _ => progress = after(self.keep_alive(progress_interval)),
                recv(poll) -> _ => self.poll(),
            }
        }
    }

    /// How long until the next one.
    fn keep_alive(&self, progress_interval: Duration) -> Duration {
        if let Err(e) = self.delivered.keep_alive(self.max_look) {
            let code = Code::InProgressFailed;
            log::warn!(err_id = code.err_id(), msg_id = code.msg_id(),
                run_id = self.run_id.as_str(), error = e.to_string();
                "cannot tell NATS that the run goes on");
            return PROGRESS_RETRY.min(progress_interval);
        }
        progress_interval
    }

    fn poll(&mut self) {
        if self.told {
            return;
        }
        // A failed look is no news; the next one comes soon.
        let Ok(Some(entry)) = self.runs.get_for_show(&self.run_id) else { return };
        let Ok(seen) = json::from_wire::<RunSummary>(&entry.value) else { return };
        if seen.status == RunStatus::Cancelling {
            // Without room now there is some at the next look.
            self.told = self.notify.try_send(Notice::CancelRequested).is_ok();
        }
    }
}
