//! Lets few hashes be computed at a time: one per key, as many as there are cores.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub struct KeyedSemaphore {
    width: usize,
    /// Requests that may wait in front of it.
    queue: usize,
    state: Mutex<Taken>,
    moved: Condvar,
}

#[derive(Default)]
struct Taken {
    inside: HashSet<String>,
    waiting: usize,
}

/// Too many wait already, or it took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

pub struct Permit<'a> {
    semaphore: &'a KeyedSemaphore,
    key_id: String,
}

impl KeyedSemaphore {
    /// A semaphore for `width` at once, in front of which `queue` may wait.
    pub fn new(width: usize, queue: usize) -> KeyedSemaphore {
        KeyedSemaphore { width, queue, state: Mutex::default(), moved: Condvar::new() }
    }

    /// After the wait, look whether the hash is still needed: another holder may have computed the same.
    pub fn enter(&self, key_id: &str, patience: Duration) -> Result<Permit<'_>, Busy> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        let is_free = |state: &Taken| state.inside.len() < self.width && !state.inside.contains(key_id);
        if !is_free(&state) {
            if state.waiting >= self.queue {
                return Err(Busy);
            }
            state.waiting += 1;
            self.moved.wait_while_until(&mut state, |state| !is_free(state), deadline);
            state.waiting -= 1;
            if !is_free(&state) {
                return Err(Busy);
            }
        }
        state.inside.insert(key_id.to_owned());
        Ok(Permit { semaphore: self, key_id: key_id.to_owned() })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.state.lock().inside.remove(&self.key_id);
        // Any of those who wait may be the one for whom it is free now.
        self.semaphore.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn one_per_key_and_as_many_as_it_is_wide() {
        let semaphore = KeyedSemaphore::new(2, 10);
        let a = semaphore.enter("a", SHORT).unwrap();
        assert_eq!(semaphore.enter("a", SHORT).err(), Some(Busy), "the same key");
        let b = semaphore.enter("b", SHORT).unwrap();
        assert_eq!(semaphore.enter("c", SHORT).err(), Some(Busy), "too many");
        drop(a);
        let c = semaphore.enter("c", SHORT).unwrap();
        drop((b, c));
        assert_eq!(semaphore.state.lock().waiting, 0);
    }

    #[test]
    fn who_waits_gets_in_and_the_queue_is_short() {
        let semaphore = KeyedSemaphore::new(1, 1);
        let permit = semaphore.enter("a", SHORT).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| semaphore.enter("b", LONG).map(drop));
            while semaphore.state.lock().waiting == 0 {
                thread::yield_now();
            }
            assert_eq!(semaphore.enter("c", LONG).err(), Some(Busy), "refused at once");
            drop(permit);
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }
}
