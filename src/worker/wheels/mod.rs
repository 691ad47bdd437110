//! The wheels of a worker on its disk: which ones fit, their folders, and the sets that runs get.
//!
//! ```text
//! offers ──select──▶ choices ──prepare──▶ folders ──▶ generation ──▶ new runs
//!                                │ fetch │ unpack    (holds a lock per folder)
//! ```
//! A wheel is unpacked once, into a folder that is named by its hash, and never changed; an upgrade is
//! another folder and another [`Generation`]. Invariants: a folder with such a name is whole, however
//! the machine went down; nothing outside of it is written, whatever the wheel says; what a wheel
//! says of itself is held against its bytes; no code of it is executed here. A folder that somebody
//! uses is locked, and whoever is killed unlocks his. Where the wheels come from, and which template
//! is started with them, only [`sync`] knows, the thread that does all of it.

mod contents;
mod error;
mod fit;
mod folders;
mod helper;
mod identity;
mod listing;
mod lock;
mod memory;
mod offers;
mod prepare;
mod record;
mod select;
mod status;
mod sync;
mod unpack;

pub use error::{Error, Fault};
pub use fit::{Interpreter, Python};
pub use folders::{Folder, Folders, Scratch};
pub use helper::{Impatience, Patience};
pub use prepare::{Generation, Prepared, Refusals, Worker, prepare};
pub use select::{Choice, Offer, Selection, select};
pub(super) use status::Status;
pub use sync::WheelSyncSettings;
pub(super) use sync::{SyncThread, Waited};
