//! What the registry offers, as the watch of its store tells.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::bus::{self, Mirror, ObjectEvent, ObjectMeta, ObjectStore, Watch};
use crate::model::wheel::{SHA256_HEADER, brief, tags_of};
use crate::worker::wheels::Offer;

/// All wheels of the registry. Clones share it.
#[derive(Clone, Default)]
pub(super) struct RegistryOffers(Mirror<BTreeMap<String, ObjectMeta>>);

impl RegistryOffers {
    /// Follows the store; each change is told to `changed`, whose one place is enough.
    pub fn follow(&self, store: &ObjectStore, changed: Sender<()>) -> bus::Result<Watch> {
        let offers = self.0.clone();
        store.watch(move |event| {
            let is_news = match event {
                ObjectEvent::Reset => {
                    offers.with(BTreeMap::clear);
                    false
                }
                ObjectEvent::Meta(meta) => {
                    offers.with(|metas| metas.insert(meta.name.clone(), meta));
                    offers.is_live()
                }
                ObjectEvent::Live => {
                    offers.set_live(true);
                    true
                }
                ObjectEvent::Stale(_) => {
                    offers.set_live(false);
                    false
                }
            };
            if is_news {
                // One that waits already will do.
                let _ = changed.try_send(());
            }
        })
    }

    /// All wheels, once they are known; `None` when that takes longer than `timeout`.
    pub fn now(&self, timeout: Duration) -> Option<Vec<ObjectMeta>> {
        let all = |metas: &mut BTreeMap<String, ObjectMeta>| {
            metas.values().filter(|meta| !meta.deleted).cloned().collect()
        };
        self.0.wait_live(timeout).then(|| self.0.with(all))
    }
}

/// An object as a wheel that a worker may take.
pub(super) fn offer(meta: &ObjectMeta) -> Offer {
    let sha256 = meta.sha256_hex().unwrap_or_default();
    // The one is the store's, the other the uploader's.
    let refused = meta
        .header(SHA256_HEADER)
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
