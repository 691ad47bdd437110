//! Wheels: what their names say, what the registry tells of them, and what a worker does with them.

mod hash;
mod history;
mod item;
mod metadata;
mod name;
mod sync;

pub use hash::hex;
pub use history::{HistoryAction, HistoryActor, HistoryEntry, HistorySource};
pub use item::{CONTENT_TYPE, SHA256_HEADER, TAGS_HEADER, WheelItem, parse_tags, tags_of};
pub use metadata::Metadata;
pub use name::{NameError, WheelName, normalized};
pub use sync::{InstalledWheel, SkippedWheel, SyncResult, WheelRef, WheelSet, WheelSync, brief, shortened};
