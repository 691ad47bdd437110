//! Asks for the cancel of a run.

use crate::model::run::{RunSnapshot, RunStatus};

/// `false`: the run has ended, or a cancel was asked for before; the snapshot stays as it is.
pub fn request(snapshot: &mut RunSnapshot, by: Option<String>, reason: Option<String>, now: f64) -> bool {
    if snapshot.status.is_terminal() || snapshot.status == RunStatus::Cancelling {
        return false;
    }
    snapshot.status = RunStatus::Cancelling;
    snapshot.cancel_requested_at.get_or_insert(now);
    if snapshot.cancel_requested_by.is_none() {
        snapshot.cancel_requested_by = by;
    }
    snapshot.cancel_reason = reason;
    snapshot.updated_at = Some(now);
    true
}
