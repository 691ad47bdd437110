//! What a slot wants of its run: told on the slot's thread, found by the run's, which polls.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::flow::python::pipes;

/// Cancel and kill, and a pipe that wakes whoever has to see them.
#[derive(Debug)]
pub(super) struct Orders {
    wanted: Mutex<Wanted>,
    wake: PipeWriter,
}

/// All that is wanted; nothing of it is ever taken back.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wanted {
    pub cancel: bool,
    /// With the time that the processes have between being asked and being killed.
    pub kill: Option<Duration>,
    /// Whether processes were started, or are about to be.
    pub has_started: bool,
}

impl Orders {
    /// Nothing is wanted yet. The pipe becomes readable when something is.
    pub(super) fn new() -> io::Result<(Arc<Orders>, PipeReader)> {
        let (woken, wake) = pipes::waker()?;
        Ok((Arc::new(Orders { wanted: Mutex::default(), wake }), woken))
    }

    pub(super) fn cancel(&self) {
        self.change(|wanted| wanted.cancel = true);
        self.wake();
    }

    /// Has the processes ended; of several kills the shortest grace counts.
    pub(super) fn kill(&self, term_grace: Duration) -> Wanted {
        let wanted = self.change(|wanted| {
            wanted.kill = Some(wanted.kill.map_or(term_grace, |before| before.min(term_grace)));
        });
        self.wake();
        wanted
    }

    pub(super) fn now(&self) -> Wanted {
        self.change(|_| {})
    }

    /// Claims the right to start processes: from now on a kill waits for them. `false` when the kill
    /// has come before.
    pub(super) fn may_start(&self) -> bool {
        self.change(|wanted| wanted.has_started = wanted.kill.is_none()).has_started
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) -> Wanted {
        let mut wanted = self.wanted.lock();
        change(&mut wanted);
        *wanted
    }

    fn wake(&self) {
        // A full pipe wakes as well as one more byte would.
        let _ = (&self.wake).write(&[1]);
    }
}
