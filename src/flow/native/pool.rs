//! The threads of one execution that call its tasks: as many as tasks have run at the same time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value};

use super::task::{TaskContext, TaskError, TaskFn};
use crate::model::clock;
use crate::model::limits::MAX_PARALLEL_TASKS;
use crate::thread::{self, JoinOnDrop};

pub(super) struct Call {
    pub node: usize,
    pub body: TaskFn,
    pub context: TaskContext,
}

pub(super) struct Return {
    pub node: usize,
    /// Its inputs, given back for the record.
    pub inputs: Map<String, Value>,
    /// What it returned; a panic is an error.
    pub result: Result<Value, TaskError>,
    pub ended_at: f64,
    pub duration_ms: f64,
}

impl Call {
    pub fn run(self) -> Return {
        let before = Instant::now();
        // A task that panics leaves nothing of ours half done: it is given shared, unchanging data.
        let result = catch_unwind(AssertUnwindSafe(|| (self.body)(&self.context))).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no text".to_owned());
            Err(TaskError::new(format!("task panicked: {text}")))
        });
        Return {
            node: self.node,
            inputs: self.context.inputs,
            result,
            ended_at: clock::now(),
            duration_ms: before.elapsed().as_secs_f64() * 1e3,
        }
    }
}

/// Field order is the shutdown order: closing `calls` ends the threads, then they are joined.
pub(super) struct Pool {
    /// Written by the engine, read by whichever thread is free. Never full: the engine keeps at
    /// most [`MAX_PARALLEL_TASKS`] calls in flight.
    calls: Sender<Call>,
    waiting: Receiver<Call>,
    /// Written by the threads, read by the engine; has room for all calls in flight.
    returned: Sender<Return>,
    returns: Receiver<Return>,
    threads: Vec<JoinOnDrop>,
    in_flight: usize,
}

impl Pool {
    pub fn new() -> Self {
        let (calls, waiting) = bounded(MAX_PARALLEL_TASKS);
        let (returned, returns) = bounded(MAX_PARALLEL_TASKS);
        Pool { calls, waiting, returned, returns, threads: Vec::new(), in_flight: 0 }
    }

    /// Calls that have not been taken back by [`Pool::settle`].
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another call would begin at once; when no thread is free, this starts one for it.
    pub fn has_room(&mut self) -> bool {
        if self.in_flight < self.threads.len() {
            return true;
        }
        if self.threads.len() >= MAX_PARALLEL_TASKS {
            return false;
        }
        let (waiting, returned) = (self.waiting.clone(), self.returned.clone());
        let started = thread::spawn("flow-task", move || {
            for call in &waiting {
                if returned.send(call.run()).is_err() {
                    // Abandoned: nobody wants the rest.
                    break;
                }
            }
        });
        match started {
            Ok(thread) => {
                self.threads.push(thread);
                true
            }
            Err(error) => {
                log::warn!("cannot start a thread for a task: {error}");
                false
            }
        }
    }

    /// Hands a call to a thread; [`Pool::has_room`] said that one is free.
    pub fn start(&mut self, call: Call) {
        self.in_flight += 1;
        self.calls.send(call).expect("the pool holds a receiver itself");
    }

    /// Where returns come in; each one taken is to be told to [`Pool::settle`].
    pub fn returns(&self) -> &Receiver<Return> {
        &self.returns
    }

    pub fn settle(&mut self) {
        self.in_flight -= 1;
    }

    /// Ends the threads, which are all free, and waits for them.
    pub fn join(self) {
        let Pool { calls, waiting, threads, .. } = self;
        drop((calls, waiting));
        drop(threads);
    }

    /// Gives up the threads with what they are doing: code that ignores its cancel token cannot be
    /// stopped. Each one ends when its task returns.
    pub fn abandon(self) {
        self.threads.into_iter().for_each(JoinOnDrop::abandon);
    }
}
