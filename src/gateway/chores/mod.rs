//! What the gateway does without being asked: it rescues lost runs and tidies what others have left.

pub mod backlog;
pub mod key_use;
pub mod orphans;
pub mod registry;
pub mod rescue;
pub mod undo;
