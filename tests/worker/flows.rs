//! The flows that the tests submit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pyoco_server::flow::{Flow, Registry};
use serde_json::json;

/// One task that returns what it is given.
pub const ECHO: &str = "version: 1
flow: {graph: hello}
tasks: {hello: {use: builtin/echo, inputs: {text: hi}}}
";

/// One task that sleeps, and ends early when it is cancelled.
pub fn sleep(seconds: f64) -> String {
    format!(
        "version: 1\nflow: {{graph: nap}}\ntasks: {{nap: {{use: builtin/sleep, inputs: {{seconds: {seconds:?}}}}}}}\n"
    )
}

/// One task that sleeps and does not listen.
pub fn stubborn(seconds: f64) -> String {
    format!(
        "version: 1\nflow: {{graph: nap}}\ntasks: {{nap: {{use: builtin/sleep, \
         inputs: {{seconds: {seconds:?}, ignore_cancel: true}}}}}}\n"
    )
}

/// A task that succeeds, then one that fails with `message`, then one that never starts.
pub fn fail(message: &str) -> String {
    format!(
        "version: 1\nflow: {{graph: first >> broken >> never}}\ntasks:\n  first: {{use: builtin/echo}}\n  \
         broken: {{use: builtin/fail, inputs: {{message: {message:?}}}}}\n  never: {{use: builtin/echo}}\n"
    )
}

/// `count` tasks in a row that do nothing.
pub fn chain(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
    let tasks: Vec<String> = names.iter().map(|name| format!("  {name}: {{use: builtin/echo}}\n")).collect();
    format!("version: 1\nflow:\n  graph: {}\ntasks:\n{}", names.join(" >> "), tasks.concat())
}

/// Counts who is inside of a task, and lets nobody out before it is opened.
#[derive(Default)]
pub struct Gate {
    inside: AtomicUsize,
    most: AtomicUsize,
    entered: AtomicUsize,
    open: (Mutex<bool>, Condvar),
}

impl Gate {
    /// How many tasks have begun.
    pub fn entered(&self) -> usize {
        self.entered.load(Ordering::SeqCst)
    }

    /// How many were inside at once at most.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }

    fn enter(&self, patience: Duration) {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let open = self.open.0.lock().unwrap();
        drop(self.open.1.wait_timeout_while(open, patience, |open| !*open).unwrap());
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A flow `gated` of one task that waits for the gate, at most for `patience`; it fails nobody.
pub fn gated(gate: &Arc<Gate>, patience: Duration) -> Registry {
    let mut registry = Registry::with_builtins();
    let gate = gate.clone();
    let flow = Flow::builder("gated").task("wait", move |_| {
        gate.enter(patience);
        Ok(json!("through"))
    });
    registry.flow(flow.build().unwrap());
    registry
}
