//! Many short-lived threads with one owner: counted, capped, and joined as soon as each ends.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::{JoinOnDrop, spawn, spawn_small};

/// A reaper joins each thread when it ends, so that none keeps its stack. Dropping the set waits for all
/// of them: tell them to end first.
pub struct ThreadSet {
    inner: Arc<SetInner>,
    reaper: Mutex<Option<JoinOnDrop>>,
    stack: Stack,
}

/// The stacks of the set's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// [`SMALL_STACK_BYTES`](super::SMALL_STACK_BYTES): for relaying and waiting.
    Small,
    /// The system's default: for code that may call deep.
    Full,
}

#[derive(Debug, thiserror::Error)]
pub enum ThreadSetError {
    /// As many threads run as are allowed.
    #[error("all {0} threads are in use")]
    Full(usize),
    /// The system gives no further thread.
    #[error("cannot start a thread: {0}")]
    Spawn(#[from] io::Error),
}

struct SetInner {
    name: &'static str,
    limit: usize,
    state: Mutex<Members>,
    /// Told by the reaper when the last member has been joined.
    emptied: Condvar,
}

struct Members {
    next_id: u64,
    members: HashMap<u64, JoinOnDrop>,
    /// Members write their id when they end, the reaper reads; gone once the set is closed.
    done: Option<Sender<u64>>,
}

/// Reports the end of a member, also when it panics.
struct Done {
    id: u64,
    channel: Sender<u64>,
}

impl Drop for Done {
    fn drop(&mut self) {
        // Never blocks: the channel holds one place for every member there can be.
        let _ = self.channel.send(self.id);
    }
}

impl ThreadSet {
    /// A set of at most `limit` threads, all of them called `name`.
    pub fn new(name: &'static str, limit: usize, stack: Stack) -> io::Result<ThreadSet> {
        let (done, ended) = bounded::<u64>(limit);
        let state = Members { next_id: 0, members: HashMap::new(), done: Some(done) };
        let inner = Arc::new(SetInner { name, limit, state: Mutex::new(state), emptied: Condvar::new() });
        let reaped = Arc::clone(&inner);
        let reaper = spawn(format!("{name}-reaper"), move || {
            for id in ended {
                // `spawn` holds the lock until the handle is in the map, so it is always found.
                let member = reaped.state.lock().members.remove(&id);
                if let Some(member) = member {
                    member.join();
                }
                if reaped.state.lock().members.is_empty() {
                    reaped.emptied.notify_all();
                }
            }
        })?;
        Ok(ThreadSet { inner, reaper: Mutex::new(Some(reaper)), stack })
    }

    /// When this fails, `body` has been dropped without being called.
    pub fn spawn(&self, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadSetError> {
        let mut state = self.inner.state.lock();
        let limit = self.inner.limit;
        if state.members.len() >= limit {
            return Err(ThreadSetError::Full(limit));
        }
        let Some(channel) = state.done.clone() else { return Err(ThreadSetError::Full(limit)) };
        let id = state.next_id;
        state.next_id += 1;
        let done = Done { id, channel };
        let member = move || {
            let _done = done;
            body();
        };
        let member = match self.stack {
            Stack::Small => spawn_small(self.inner.name, member),
            Stack::Full => spawn(self.inner.name, member),
        };
        // After an error `Done` was dropped with the thread's closure: an id that nobody knows.
        state.members.insert(id, member?);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.inner.state.lock().members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the last member has ended; `false` when `deadline` came first.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut state = self.inner.state.lock();
        let has_members = |state: &mut Members| !state.members.is_empty();
        self.inner.emptied.wait_while_until(&mut state, has_members, deadline);
        state.members.is_empty()
    }

    /// Gives up on members that do not end, and takes no new ones: the drop no longer joins them.
    pub fn abandon(&self) {
        self.inner.state.lock().done = None;
        if let Some(reaper) = self.take_reaper() {
            reaper.abandon();
        }
    }

    fn take_reaper(&self) -> Option<JoinOnDrop> {
        self.reaper.lock().take()
    }
}

impl Drop for ThreadSet {
    fn drop(&mut self) {
        // The reaper ends when the last sender is gone, which is when the last member has ended.
        self.inner.state.lock().done = None;
        drop(self.take_reaper());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn members_are_capped_and_joined() {
        let set = ThreadSet::new("set-test", 2, Stack::Small).unwrap();
        let (release, held) = bounded::<()>(0);
        for _ in 0..2 {
            let held = held.clone();
            set.spawn(move || {
                let _ = held.recv();
            })
            .unwrap();
        }
        assert!(matches!(set.spawn(|| ()), Err(ThreadSetError::Full(2))));
        assert!(!set.wait_empty(Instant::now() + Duration::from_millis(20)));
        drop(release);
        assert!(set.wait_empty(Instant::now() + Duration::from_secs(10)));
        set.spawn(|| panic!("a member's panic ends the member alone")).unwrap();
        assert!(set.wait_empty(Instant::now() + Duration::from_secs(10)));
        set.spawn(|| ()).unwrap();
    }
}
