//! Purges what is left of uploads whose gateway has died in the middle of them.

use std::time::Duration;

use super::Next;
use crate::bus::ObjectStore;

/// Chunks that belong to no wheel are purged when nothing was added to them for so long: more than from a
/// chunk to the next one, and more than from the last one to its name; `bus/objects/upload.rs` has the
/// bounds of both.
const ORPHAN_CHUNKS_AFTER: Duration = Duration::from_secs(60);

/// From the start to the first look, when there is most to find: the connection may take a moment.
pub(super) const FIRST: Duration = Duration::from_secs(2);
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
