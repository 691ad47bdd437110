//! What the gateway knows in memory: every run, worker, API key and wheel, and who listens to changes.
//!
//! Each part follows one bucket of NATS and says whether what it knows is current. This room knows
//! nothing of requests, routes or chores.

pub mod backlog;
pub mod history;
pub mod hub;
pub mod keys;
pub mod ownership;
pub mod runs;
pub mod wheels;
pub mod workers;

use crate::bus::{self, Bus, ObjectStore, Watch};
use history::History;
use wheels::Shelf;

/// The wheel registry: the object store, which is the truth, and what is known of it and its past.
pub struct WheelRegistry {
    pub store: ObjectStore,
    pub shelf: Shelf,
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

    pub fn follow(&self) -> bus::Result<[Watch; 2]> {
        Ok([self.shelf.follow(&self.store)?, self.history.follow()?])
    }
}
