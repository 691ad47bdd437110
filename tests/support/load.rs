//! Submits that go on while something is done to the product.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::wait::{PATIENCE, eventually};

/// So many more show that the service is back.
const MORE: usize = 20;

/// What clients have submitted so far, and whether they are to go on.
#[derive(Default)]
pub struct Load {
    accepted: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Load {
    pub fn accept(&self, run_id: String) {
        self.accepted.lock().unwrap().push(run_id);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Waits until some more runs were accepted.
    pub fn wait_accepted(&self) {
        let count = || self.accepted.lock().unwrap().len();
        let before = count();
        eventually(PATIENCE, "submits are accepted", || (count() >= before + MORE).then_some(()));
    }

    /// Ends it when dropped, also because the test has failed: its clients would go on for ever.
    pub fn end(&self) -> EndOfLoad<'_> {
        EndOfLoad(self)
    }

    /// The ids of the runs that were accepted.
    pub fn into_accepted(self) -> Vec<String> {
        self.accepted.into_inner().unwrap()
    }
}

pub struct EndOfLoad<'a>(&'a Load);

impl Drop for EndOfLoad<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}
