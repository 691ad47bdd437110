//! Purges what is left of uploads whose gateway has died in the middle of them.

use std::time::Duration;

use crossbeam_channel::{after, select};

use crate::bus::ObjectStore;
use crate::model::limits::ORPHAN_CHUNKS_AFTER;
use crate::thread::{self, JoinOnDrop, StopSignal, StopSource};

/// Between two looks; the first one comes after a start, when there is most to find.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// From the start to the first look: the connection may take a moment.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Starts the thread; it ends when the source is dropped.
pub fn start(store: ObjectStore) -> std::io::Result<(StopSource, JoinOnDrop)> {
    let (stop, stopped) = thread::stop_channel();
    let thread = thread::spawn("wheel-care", move || run(&store, &stopped))?;
    Ok((stop, thread))
}

fn run(store: &ObjectStore, stop: &StopSignal) {
    let mut pause = FIRST_LOOK;
    loop {
        select! {
            recv(stop) -> _ => return,
            recv(after(pause)) -> _ => {}
        }
        pause = LOOK_INTERVAL;
        match store.purge_orphans(ORPHAN_CHUNKS_AFTER) {
            Ok(0) => {}
            Ok(count) => {
                log::info!(count = count; "purged what uploads that were cut off have left")
            }
            // The connection says by itself when it is away.
            Err(e) => log::debug!(error = e.to_string(); "cannot look for what uploads have left"),
        }
    }
}
