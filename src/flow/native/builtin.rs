//! Tasks that every registry with built-ins has: echo, sleep and fail.

use std::time::Duration;

use serde_json::{Value, json};

use super::registry::Registry;
use super::task::{TaskContext, TaskError};

/// Longest `builtin/sleep`: a day.
const MAX_SLEEP_SECONDS: f64 = 86_400.0;

impl Registry {
    /// With `builtin/echo`, `builtin/sleep` and `builtin/fail`.
    pub fn with_builtins() -> Self {
        let mut registry = Self::new();
        registry.task("builtin/echo", echo).task("builtin/sleep", sleep).task("builtin/fail", fail);
        registry
    }
}

/// Returns its inputs, or the run's parameters when it has none.
fn echo(ctx: &TaskContext) -> Result<Value, TaskError> {
    let shown = if ctx.inputs.is_empty() { &*ctx.params } else { &ctx.inputs };
    Ok(Value::Object(shown.clone()))
}

/// Sleeps for `seconds`; with `ignore_cancel: true` not even a cancel ends it.
fn sleep(ctx: &TaskContext) -> Result<Value, TaskError> {
    let seconds: f64 = ctx.input("seconds")?;
    if !(0.0..=MAX_SLEEP_SECONDS).contains(&seconds) {
        return Err(TaskError::new(format!(
            "input `seconds` of task `{}` is {seconds}, it must be from 0 to {MAX_SLEEP_SECONDS}",
            ctx.node
        )));
    }
    let duration = Duration::from_secs_f64(seconds);
    if ctx.input::<Option<bool>>("ignore_cancel")?.unwrap_or(false) {
        // A channel that never closes: the timeout is the only way on.
        let (_open, never) = crossbeam_channel::bounded::<()>(0);
        let _ = never.recv_timeout(duration);
    } else if ctx.cancel.sleep(duration) {
        return Err(TaskError::cancelled());
    }
    Ok(json!({ "slept_sec": seconds }))
}

fn fail(ctx: &TaskContext) -> Result<Value, TaskError> {
    let message: Option<String> = ctx.input("message")?;
    Err(TaskError::new(message.unwrap_or_else(|| "builtin/fail was called".to_owned())))
}
