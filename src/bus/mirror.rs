//! What a watch has told so far, and whether that is all.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
        while !state.live {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.inner.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
