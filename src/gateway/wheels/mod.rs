//! The wheel registry: which wheels there are, what was done to them, and what an upload left behind.
//!
//! The object store is the truth. [`Shelf`] is what this gateway knows of it and [`History`] what it
//! knows of the past, both kept by watches, so that lists cost no request. Whether a wheel may come in
//! is decided twice: from the shelf when its name is read, so that nobody sends half a gigabyte in
//! vain, and from the store itself when it is published, by compare-and-set, so that of two uploads
//! one wins ([`admission`]). [`care`] purges what uploads of dead gateways have left.

pub(super) mod admission;
pub(super) mod care;
mod history;
mod shelf;

pub(super) use history::{History, Wanted};
pub(super) use shelf::{Shelf, item};

use crate::bus::{self, Bus, ObjectStore, Watch};

/// All that handlers need of the registry.
pub(super) struct WheelRegistry {
    /// The truth.
    pub store: ObjectStore,
    /// What is known of it.
    pub shelf: Shelf,
    /// What was done.
    pub history: History,
}

impl WheelRegistry {
    /// Knows nothing until [`WheelRegistry::follow`].
    pub fn new(bus: &Bus, history_kept: std::time::Duration) -> Self {
        WheelRegistry {
            store: bus.wheels(),
            shelf: Shelf::default(),
            history: History::new(bus.wheel_history(), history_kept),
        }
    }

    /// Starts to follow store and history; both are followed as long as the watches live.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(&self) -> bus::Result<(Watch, Watch)> {
        Ok((self.shelf.follow(&self.store)?, self.history.follow()?))
    }
}
