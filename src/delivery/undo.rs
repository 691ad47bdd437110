//! Takes back a submit that may have got half way.

use super::{Change, Newest, Stored};
use crate::model::run::RunStatus;

/// Deletes the snapshot of a submit that was answered with an error, unless a worker or another submit of the
/// same run has written since. `submitted_at` tells which submit is meant.
pub fn undo(newest: &Newest<'_>, submitted_at: f64) -> Change {
    match newest.stored {
        // The write may still be on its way, in the socket of a server that was frozen. It expects the key as
        // it is now, so a tombstone in its place makes it fail.
        Stored::Missing | Stored::Deleted => Change::Delete,
        Stored::Run(snapshot)
            if snapshot.status == RunStatus::Pending && snapshot.submitted_at == Some(submitted_at) =>
        {
            Change::Delete
        }
        Stored::Run(_) | Stored::Unreadable => Change::Leave,
    }
}
