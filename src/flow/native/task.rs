//! What a native task is, what it is given, and how it fails.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::flow::executor::CancelToken;

/// A native task. It runs on a thread of the engine and may block; it should look at
/// [`TaskContext::cancel`] when it takes long.
pub type TaskFn = Arc<dyn Fn(&TaskContext) -> Result<Value, TaskError> + Send + Sync>;

/// What a task is given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskContext {
    /// The run that it belongs to.
    pub run_id: Arc<str>,
    /// Its name in the graph.
    pub node: String,
    /// The run's parameters over the flow's defaults.
    pub params: Arc<Map<String, Value>>,
    /// Its inputs, with expressions resolved.
    pub inputs: Map<String, Value>,
    /// Set when the run is cancelled or another task of it has failed.
    pub cancel: CancelToken,
}

impl TaskContext {
    /// An input as a Rust value; a missing one reads as `null`, so `Option<T>` is an optional input.
    ///
    /// # Errors
    /// Names the input when its value is not a `T`.
    pub fn input<T: DeserializeOwned>(&self, name: &str) -> Result<T, TaskError> {
        let value = self.inputs.get(name).unwrap_or(&Value::Null);
        T::deserialize(value)
            .map_err(|error| TaskError::new(format!("input `{name}` of task `{}`: {error}", self.node)))
    }
}

/// Why a task did not succeed. Any error becomes one by `?`.
pub struct TaskError {
    text: String,
    cancelled: bool,
}

impl TaskError {
    /// A failure with this text, which becomes the record's `error`.
    pub fn new(text: impl Into<String>) -> Self {
        TaskError { text: text.into(), cancelled: false }
    }

    /// The task ended early because its token asked it to: it counts as cancelled, not as failed.
    pub fn cancelled() -> Self {
        TaskError { text: "cancelled".to_owned(), cancelled: true }
    }

    /// Whether it was made by [`TaskError::cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// What went wrong, as the task's record shows it.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskError").field(&self.text).finish()
    }
}

// Not an `Error` itself: that is what lets every error turn into it by `?`.
impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        TaskError::new(text)
    }
}
