//! The wheels that are there, as the watch tells.

use std::time::Duration;

use serde_json::Map;

use crate::bus::{self, Mirror, ObjectMeta, ObjectStore, ObjectView, Watch};
use crate::model::wheel::{SHA256_HEADER, WheelItem, tags_of};

const DIGEST_PREFIX: &str = "SHA-256=";

#[derive(Clone, Default)]
pub struct Shelf(Mirror<ObjectView>);

impl Shelf {
    pub(crate) fn follow(&self, store: &ObjectStore) -> bus::Result<Watch> {
        store.watch(self.0.observer())
    }

    pub fn wrote(&self, meta: ObjectMeta) {
        self.0.wrote(meta);
    }

    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.0.wait_live(timeout)
    }

    pub fn all(&self) -> Vec<ObjectMeta> {
        self.0.look(|view, _| view.objects().cloned().collect())
    }
}

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
