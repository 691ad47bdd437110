//! The folder of wheels on disk: one sub-folder per wheel, named by its hash and locked while it is in
//! use, and the note of what was in use last.

mod folders;
mod lock;
pub(super) mod memory;

pub(super) use folders::seal;
pub use folders::{Folder, Folders, Scratch};
pub(super) use memory::is_hash;
