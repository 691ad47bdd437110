//! What the registry offers, as the watch of its store tells.

use std::time::Duration;

use crossbeam_channel::Sender;

use crate::bus::{self, Mirror, ObjectMeta, ObjectStore, ObjectView, View, Watch};
use crate::model::wheel::{SHA256_HEADER, brief, tags_of};
use crate::worker::wheels::Offer;

pub(super) struct RegistryOffers(Mirror<OfferView>);

struct OfferView {
    objects: ObjectView,
    /// Told of each change; one that waits already will do.
    changed: Sender<()>,
}

impl RegistryOffers {
    /// Knows nothing yet, and tells `changed`, whose one place is enough, of each change.
    pub fn new(changed: Sender<()>) -> RegistryOffers {
        RegistryOffers(Mirror::new(OfferView { objects: ObjectView::default(), changed }))
    }

    pub fn follow(&self, store: &ObjectStore) -> bus::Result<Watch> {
        store.watch(self.0.observer())
    }

    /// All wheels, once they are known; `None` when that takes longer than `timeout`.
    pub fn now(&self, timeout: Duration) -> Option<Vec<ObjectMeta>> {
        let all = || self.0.look(|view, _| view.objects.objects().cloned().collect());
        self.0.wait_live(timeout).then(all)
    }
}

impl View for OfferView {
    type Change = ObjectMeta;

    fn take(&mut self, meta: ObjectMeta, is_live: bool) {
        self.objects.take(meta, is_live);
        if is_live {
            let _ = self.changed.try_send(());
        }
    }

    fn clear(&mut self) {
        self.objects.clear();
    }

    fn set_live(&mut self, live: bool) {
        if live {
            let _ = self.changed.try_send(());
        }
    }
}

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
