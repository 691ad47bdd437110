//! Why the template process could not be started, with the way out.

use std::path::PathBuf;

/// Why no Python run can be started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PythonError {
    /// The interpreter could not be started at all.
    #[error(
        "cannot start the Python interpreter `{interpreter}`: {reason}; install it, or name another one with --python or PYOCO_PYTHON"
    )]
    NoInterpreter {
        /// As it was configured.
        interpreter: String,
        /// What the system said.
        reason: String,
        /// Whether there is no such program, rather than no means to start it.
        is_missing: bool,
    },
    /// It runs, and has no pyoco.
    #[error(
        "pyoco is not installed for `{interpreter}` (Python {version}): {reason}; install it with: {interpreter} -m pip install pyoco"
    )]
    NoPyoco {
        /// As it was configured.
        interpreter: String,
        /// Version of the interpreter, as it says itself.
        version: String,
        /// What the import said.
        reason: String,
    },
    /// pyoco or the flow resolver raised something while it was imported.
    #[error("cannot load {what}: {reason}")]
    Load {
        /// The resolver, or pyoco when there is none.
        what: String,
        /// Type and text of the exception.
        reason: String,
        /// Where it was raised; not part of the text.
        traceback: String,
    },
    /// A folder of a wheel is not there, or cannot be read.
    #[error(
        "cannot use the wheel unpacked in {}: {reason}; a worker that synchronises again unpacks it anew",
        folder.display()
    )]
    Folder {
        /// Where it should be.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The directory where the worker was started is gone, and runs need it.
    #[error(
        "cannot use the working directory {}: {reason}; make it again, or start the worker in another one",
        folder.display()
    )]
    Place {
        /// Where the worker was started.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The process ended, or said nothing in time.
    #[error("the Python template process `{interpreter}` {what}{output}")]
    Died {
        /// As it was configured.
        interpreter: String,
        /// What became of it, as the rest of a sentence.
        what: String,
        /// The end of what it has printed, with its introduction; empty when there is nothing.
        output: String,
    },
    /// Its start was given up.
    #[error("the start of the Python template process was given up, since the worker stops")]
    Stopped,
    /// Sockets, pipes or threads are not to be had.
    #[error("cannot prepare a Python run: {0}")]
    System(String),
}
