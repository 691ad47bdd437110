//! Whether what the gateway uses in NATS is that of its installation, as a chore has found last.

use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Clone, Default)]
pub struct Ownership(Arc<Mutex<Option<String>>>);

impl Ownership {
    /// Why the gateway must not serve, if so.
    pub fn refusal(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Takes in what was found; a new reason is logged.
    pub fn found(&self, refusal: Option<String>) {
        let mut known = self.0.lock();
        if let Some(reason) = refusal.as_deref().filter(|reason| Some(*reason) != known.as_deref()) {
            log::error!(reason = reason; "the gateway is not ready: what it needs in NATS is not its own");
        }
        *known = refusal;
    }
}
