//! Why the wheels of a worker cannot be put in place.

use std::io;
use std::path::{Path, PathBuf};

use super::helper::Impatience;
use crate::wheel_archive::ZipError;

/// An error with the wheels of a worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The interpreter does not say which wheels fit it.
    #[error(
        "cannot ask the Python interpreter `{interpreter}` which wheels fit it: {reason}; name another one with --python or PYOCO_PYTHON"
    )]
    Interpreter {
        /// As it was configured.
        interpreter: String,
        reason: String,
    },
    /// The folder of wheels cannot be used.
    #[error("cannot {what} {path}: {reason}; check --wheel-sync-dir or PYOCO_WHEEL_SYNC_DIR")]
    Folder {
        /// What was to be done.
        what: &'static str,
        path: PathBuf,
        reason: io::Error,
    },
    /// Something is wrong with one wheel, or with putting it in place.
    #[error("wheel {wheel}: {fault}")]
    Wheel { wheel: String, fault: Fault },
}

impl Error {
    pub(super) fn folder(what: &'static str, path: &Path, reason: io::Error) -> Error {
        Error::Folder { what, path: path.to_owned(), reason }
    }
}

/// What is wrong with a wheel, or with putting it in place.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its bytes are others than the registry says.
    #[error("its SHA-256 is {is}, and the registry says {expected}")]
    Hash {
        /// Of its bytes, in hex.
        is: String,
        /// What it was to be.
        expected: String,
    },
    /// It is no zip archive, or a broken one.
    #[error("cannot read it as a zip archive: {0}")]
    Archive(String),
    /// An entry that no wheel has.
    #[error("it has an entry {path:?} {what}")]
    Entry {
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// It would take too much room.
    #[error("{0}")]
    TooLarge(String),
    /// It does not say what it is, or something else than its file name.
    #[error("{0}")]
    Identity(String),
    /// What RECORD says is not so.
    #[error("RECORD {0}")]
    Record(String),
    /// It is for another Python.
    #[error("it needs Python {needs}, and this one is {version}")]
    NeedsPython { needs: String, version: String },
    /// It could not be fetched.
    #[error("cannot fetch it: {0}")]
    Fetch(String),
    /// There was no time for it.
    #[error("{0}")]
    Over(#[from] Impatience),
    /// The disk said no.
    #[error("cannot {what}: {reason}")]
    Disk {
        /// What was to be done.
        what: String,
        reason: io::Error,
    },
}

impl Fault {
    /// Whether it is the wheel itself that is wrong: the same bytes will be refused again.
    pub fn is_final(&self) -> bool {
        match self {
            Fault::Hash { .. } | Fault::Fetch(_) | Fault::Over(_) | Fault::Disk { .. } => false,
            Fault::Archive(_)
            | Fault::Entry { .. }
            | Fault::TooLarge(_)
            | Fault::Identity(_)
            | Fault::Record(_)
            | Fault::NeedsPython { .. } => true,
        }
    }

    pub(super) fn disk(what: impl Into<String>, reason: io::Error) -> Fault {
        Fault::Disk { what: what.into(), reason }
    }

    pub(super) fn entry(path: &str, what: impl Into<String>) -> Fault {
        Fault::Entry { path: path.to_owned(), what: what.into() }
    }
}

impl From<ZipError> for Fault {
    fn from(error: ZipError) -> Fault {
        Fault::Archive(error.to_string())
    }
}
