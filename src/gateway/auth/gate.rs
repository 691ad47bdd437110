//! Lets few hashes be computed at a time: one per key, as many as there are cores.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

pub struct Gate {
    width: usize,
    /// Requests that may wait in front of it.
    queue: usize,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// Keys that are being checked.
    inside: HashSet<String>,
    waiting: usize,
}

/// Too many wait already, or it took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The right to compute a hash for one key; given back on drop.
pub struct Pass<'a> {
    gate: &'a Gate,
    key_id: String,
}

impl Gate {
    /// A gate for `width` at once, in front of which `queue` may wait.
    pub fn new(width: usize, queue: usize) -> Gate {
        Gate { width, queue, state: Mutex::default(), moved: Condvar::new() }
    }

    /// Waits for the right to compute a hash for `key_id`, at most for `patience`. Look again whether
    /// it is still needed: somebody else may have computed the same.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn enter(&self, key_id: &str, patience: Duration) -> Result<Pass<'_>, Busy> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        let is_free =
            |state: &State| state.inside.len() < self.width && !state.inside.contains(key_id);
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
        Ok(Pass { gate: self, key_id: key_id.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.lock().inside.remove(&self.key_id);
        // Any of those who wait may be the one for whom it is free now.
        self.gate.moved.notify_all();
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
        let gate = Gate::new(2, 10);
        let a = gate.enter("a", SHORT).unwrap();
        assert_eq!(gate.enter("a", SHORT).err(), Some(Busy), "the same key");
        let b = gate.enter("b", SHORT).unwrap();
        assert_eq!(gate.enter("c", SHORT).err(), Some(Busy), "too many");
        drop(a);
        let c = gate.enter("c", SHORT).unwrap();
        drop((b, c));
        assert_eq!(gate.lock().waiting, 0);
    }

    #[test]
    fn who_waits_gets_in_and_the_queue_is_short() {
        let gate = Gate::new(1, 1);
        let pass = gate.enter("a", SHORT).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.enter("b", LONG).map(drop));
            while gate.lock().waiting == 0 {
                thread::yield_now();
            }
            assert_eq!(gate.enter("c", LONG).err(), Some(Busy), "refused at once");
            drop(pass);
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }
}
