//! How a program of ours ends.

use std::process::ExitCode;

/// The endings and their numbers (`docs/errors.md#on-the-command-line`); scripts branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done; also when the reader of our output went away.
    Done,
    /// An error of the server, the network or the machine; a wait that timed out.
    Failed,
    /// The command line, or a file it names, cannot be used.
    Usage,
    /// What was to be changed does not exist (`pyoco-server-admin api-key revoke`).
    Unknown,
    /// With `--exit-status`: the run is FAILED.
    RunFailed,
    /// With `--exit-status`: the run is CANCELLED.
    RunCancelled,
    /// With `--exit-status`: the wait timed out.
    TimedOut,
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            // The Python programs say 1 for both, and scripts rely on it.
            Exit::Failed | Exit::Usage => 1,
            Exit::Unknown => 2,
            Exit::RunFailed => 3,
            Exit::RunCancelled => 4,
            Exit::TimedOut => 5,
            // 128 and the number of SIGINT, as shells have it.
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
