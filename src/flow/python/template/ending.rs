//! Threads of templates that nobody uses any more, until their processes have ended.

use parking_lot::Mutex;

use crate::thread::JoinOnDrop;

/// A template ends when its last user drops it, mostly a run, whose slot must not wait for that. So its
/// thread comes here, is forgotten when it has ended, and joined at the end of the executor.
#[derive(Debug, Default)]
pub(super) struct EndingTemplates(Mutex<Vec<JoinOnDrop>>);

impl EndingTemplates {
    /// Takes the thread of a template that has been told to end; never blocks.
    pub(super) fn take(&self, keeper: JoinOnDrop) {
        let mut keepers = self.0.lock();
        keepers.retain(|keeper| !keeper.is_finished());
        keepers.push(keeper);
    }
}
