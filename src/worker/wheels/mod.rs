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
//! uses is locked, and a process that is killed unlocks its own. This folder knows no NATS and no
//! executor: `worker::wheel_sync` hands the offers down, fetches the bytes and starts Python with the set.

mod error;
mod fit;
mod helper;
mod prepare;
mod select;
mod store;
mod unpack;

pub use error::{Error, Fault};
pub use fit::Interpreter;
pub use helper::{Impatience, Patience, Python};
pub use prepare::{Generation, Prepared, Refusals, Worker, prepare};
pub use select::{Choice, Offer, Selection, select};
pub use store::{Folder, Folders, Scratch};
