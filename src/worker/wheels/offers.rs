//! What the registry offers, as the watch of its store tells.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::select::Offer;
use crate::bus::{self, ObjectEvent, ObjectMeta, ObjectStore, Watch};
use crate::model::wheel::{SHA256_HEADER, brief, tags_of};

/// All wheels of the registry. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Offers {
    inner: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    metas: BTreeMap<String, ObjectMeta>,
    live: bool,
}

impl Offers {
    /// Follows the store; each change is told to `changed`, whose one place is enough.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follow(&self, store: &ObjectStore, changed: Sender<()>) -> bus::Result<Watch> {
        let offers = self.clone();
        store.watch(move |event| {
            let mut state = offers.lock();
            let is_news = match event {
                ObjectEvent::Reset => {
                    state.metas.clear();
                    false
                }
                ObjectEvent::Meta(meta) => {
                    let is_news = state.live;
                    state.metas.insert(meta.name.clone(), meta);
                    is_news
                }
                ObjectEvent::Live => {
                    state.live = true;
                    true
                }
                ObjectEvent::Stale(_) => {
                    state.live = false;
                    false
                }
            };
            drop(state);
            offers.inner.1.notify_all();
            if is_news {
                // One that waits already will do.
                let _ = changed.try_send(());
            }
        })
    }

    /// All wheels, once they are known; `None` when that takes longer than `timeout`.
    pub fn now(&self, timeout: Duration) -> Option<Vec<ObjectMeta>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !state.live {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.inner.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state.metas.values().filter(|meta| !meta.deleted).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object as a wheel that a worker may take.
pub(super) fn offer(meta: &ObjectMeta) -> Offer {
    let sha256 = meta.sha256_hex().unwrap_or_default();
    let told = meta.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(SHA256_HEADER));
    // The one is the store's, the other the uploader's.
    let refused = told
        .and_then(|(_, value)| value.as_str())
        .filter(|told| !told.eq_ignore_ascii_case(&sha256))
        .map(|told| brief(&format!("the registry has two hashes for it: {sha256} and {told}")));
    Offer {
        name: meta.name.clone(),
        tags: tags_of(&meta.headers),
        nuid: meta.nuid.clone(),
        size: meta.size,
        sha256,
        revision: meta.revision,
        refused,
    }
}
