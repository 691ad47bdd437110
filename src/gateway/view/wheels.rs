//! The wheels that are there, as the watch tells.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Map;

use crate::bus::{self, Mirror, ObjectEvent, ObjectMeta, ObjectStore, Watch};
use crate::model::wheel::{SHA256_HEADER, WheelItem, tags_of};

/// What stands in front of the hash in an object's digest.
const DIGEST_PREFIX: &str = "SHA-256=";

/// All wheels by name. Clones share it.
#[derive(Clone, Default)]
pub struct Shelf(Mirror<BTreeMap<String, ObjectMeta>>);

impl Shelf {
    pub(crate) fn follow(&self, store: &ObjectStore) -> bus::Result<Watch> {
        let shelf = self.0.clone();
        store.watch(move |event| match event {
            ObjectEvent::Reset => shelf.with(BTreeMap::clear),
            ObjectEvent::Meta(meta) => shelf.with(|metas| take(metas, meta)),
            ObjectEvent::Live => shelf.set_live(true),
            ObjectEvent::Stale(_) => shelf.set_live(false),
        })
    }

    /// Takes in what this gateway has written itself.
    pub fn wrote(&self, meta: ObjectMeta) {
        self.0.with(|metas| take(metas, meta));
    }

    /// Takes out what this gateway has deleted itself; a newer version of it stays.
    pub fn deleted(&self, meta: ObjectMeta) {
        self.0.with(|metas| {
            if metas.get(&meta.name).is_none_or(|known| known.revision <= meta.revision) {
                metas.insert(meta.name.clone(), ObjectMeta { deleted: true, ..meta });
            }
        });
    }

    /// Waits until it tells everything; `false` when that takes longer than `timeout`.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.0.wait_live(timeout)
    }

    /// All wheels, by name.
    pub fn all(&self) -> Vec<ObjectMeta> {
        self.0.with(|metas| metas.values().filter(|meta| !meta.deleted).cloned().collect())
    }
}

/// The newer of two versions stays; a deleted one stays as well, since the news of an older version
/// may come after it.
fn take(metas: &mut BTreeMap<String, ObjectMeta>, meta: ObjectMeta) {
    if metas.get(&meta.name).is_none_or(|known| known.revision < meta.revision) {
        metas.insert(meta.name.clone(), meta);
    }
}

/// A wheel as answers show it.
pub fn item(meta: &ObjectMeta) -> WheelItem {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let stored: Option<jiff::Timestamp> = meta.mtime.parse().ok();
    WheelItem {
        name: meta.name.clone(),
        size_bytes: meta.size,
        bucket: meta.bucket.clone(),
        nuid: some(&meta.nuid),
        digest: some(&meta.digest),
        sha256_b64: meta.digest.strip_prefix(DIGEST_PREFIX).map(str::to_owned),
        sha256_hex: meta.header(SHA256_HEADER).map(str::to_owned).or_else(|| meta.sha256_hex()),
        mtime: some(&meta.mtime),
        modified: stored.map(|at| at.as_duration().as_secs_f64()),
        tags: tags_of(&meta.headers),
        extra: Map::new(),
    }
}
