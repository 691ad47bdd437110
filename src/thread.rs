//! The one place that starts threads: every thread is named, and is joined or says why not.
//!
//! Stopping is closing a channel: a loop `select!`s over a [`StopSignal`], its owner drops the
//! [`StopSource`]. A [`Service`] is a thread with its stop channel, a [`ThreadSet`] a bounded number of
//! threads that end by themselves. The ledger of all threads is in `docs/architecture.md`.

mod set;

use std::convert::Infallible;
use std::io;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
pub use set::{Stack, ThreadSet, ThreadSetError};

/// Stack of threads that only relay bytes or wait; deep recursion never happens on them.
pub const SMALL_STACK_BYTES: usize = 256 * 1024;

/// Joined on drop. Close the thread's stop channel first, or the drop waits as long as the thread runs.
#[derive(Debug)]
pub struct JoinOnDrop(Option<JoinHandle<()>>);

impl JoinOnDrop {
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the thread to end; a panic in it was reported when it happened.
    pub fn join(mut self) {
        self.join_now();
    }

    /// Gives the thread up without waiting: only for code of users that ignores its cancel token.
    pub fn abandon(mut self) {
        self.0.take();
    }

    fn join_now(&mut self) {
        if let Some(handle) = self.0.take()
            && handle.join().is_err()
        {
            log::error!("a thread ended by a panic");
        }
    }
}

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        self.join_now();
    }
}

pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<JoinOnDrop> {
    let handle = Builder::new().name(name.into()).spawn(body)?;
    Ok(JoinOnDrop(Some(handle)))
}

/// Like [`spawn`], with a small stack: for the many threads that only relay or wait.
pub fn spawn_small(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<JoinOnDrop> {
    let handle = Builder::new().name(name.into()).stack_size(SMALL_STACK_BYTES).spawn(body)?;
    Ok(JoinOnDrop(Some(handle)))
}

/// Runs until it is told to stop. Field order is the shutdown order: the stop channel closes, then join.
#[derive(Debug)]
pub struct Service {
    stop: StopSource,
    thread: JoinOnDrop,
}

impl Service {
    /// Starts the thread `name`; `run` is to return soon after its signal has closed.
    pub fn start(
        name: impl Into<String>,
        run: impl FnOnce(&StopSignal) + Send + 'static,
    ) -> io::Result<Service> {
        let (stop, stopped) = stop_channel();
        let thread = spawn(name, move || run(&stopped))?;
        Ok(Service { stop, thread })
    }

    /// Like [`Service::start`], with a small stack.
    pub fn start_small(
        name: impl Into<String>,
        run: impl FnOnce(&StopSignal) + Send + 'static,
    ) -> io::Result<Service> {
        let (stop, stopped) = stop_channel();
        let thread = spawn_small(name, move || run(&stopped))?;
        Ok(Service { stop, thread })
    }

    pub fn stop(self) {}

    /// Tells the thread to stop without waiting: only for code of users that ignores its cancel token.
    pub fn abandon(self) {
        drop(self.stop);
        self.thread.abandon();
    }
}

/// The owner's end of a stop channel: dropping it tells every [`StopSignal`] to end.
#[derive(Debug)]
pub struct StopSource(#[expect(dead_code, reason = "held for its drop")] Sender<Infallible>);

/// A thread's end of a stop channel: it never delivers a value, it only becomes disconnected.
pub type StopSignal = Receiver<Infallible>;

pub fn stop_channel() -> (StopSource, StopSignal) {
    let (sender, receiver) = bounded(0);
    (StopSource(sender), receiver)
}

/// Whether the owner has asked to stop; for loops that have no `select!` to put the signal in.
pub fn is_stopped(stop: &StopSignal) -> bool {
    matches!(stop.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
}
