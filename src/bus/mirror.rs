//! What a watch has told so far, and whether that is all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Something that the owner of a [`Watch`](super::Watch) keeps current by its events. Clones share it.
pub struct Mirror<T> {
    inner: Arc<(Mutex<State<T>>, Condvar)>,
}

struct State<T> {
    content: T,
    live: bool,
}

impl<T> Clone for Mirror<T> {
    fn clone(&self) -> Self {
        Mirror { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Default> Default for Mirror<T> {
    fn default() -> Self {
        Mirror {
            inner: Arc::new((
                Mutex::new(State { content: T::default(), live: false }),
                Condvar::new(),
            )),
        }
    }
}

impl<T> Mirror<T> {
    /// Looks at what is known, or changes it.
    pub fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.lock().content)
    }

    /// Says whether everything is known.
    pub fn set_live(&self, live: bool) {
        self.lock().live = live;
        self.inner.1.notify_all();
    }

    /// Whether everything is known.
    pub fn is_live(&self) -> bool {
        self.lock().live
    }

    /// Waits until everything is known; `false` when that takes longer than `timeout`.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        self.inner.1.wait_while_until(&mut state, |state| !state.live, deadline);
        state.live
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.inner.0.lock()
    }
}
