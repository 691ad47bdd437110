//! Purges what is left of uploads whose gateway has died in the middle of them.

use std::time::Duration;

use super::Next;
use crate::bus::ObjectStore;
use crate::model::limits::ORPHAN_CHUNKS_AFTER;

/// From the start to the first look, when there is most to find: the connection may take a moment.
pub(super) const FIRST: Duration = Duration::from_secs(2);
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(30);

pub(super) fn run(store: &ObjectStore) -> Next {
    match store.purge_orphans(ORPHAN_CHUNKS_AFTER) {
        Ok(0) => {}
        Ok(count) => {
            log::info!(count = count; "purged what uploads that were cut off have left");
            return Next::Again;
        }
        // The connection says by itself when it is away.
        Err(e) => log::debug!(error = e.to_string(); "cannot look for what uploads have left"),
    }
    Next::After(INTERVAL)
}
