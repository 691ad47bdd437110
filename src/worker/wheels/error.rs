//! Why the wheels of a worker cannot be put in place.

use std::io;
use std::path::{Path, PathBuf};

use super::helper::Impatience;
use crate::wheel_archive::ZipError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot ask the Python interpreter `{interpreter}` which wheels fit it: {reason}; name another one with --python or PYOCO_PYTHON"
    )]
    Interpreter { interpreter: String, reason: String },
    #[error("cannot {what} {path}: {reason}; check --wheel-sync-dir or PYOCO_WHEEL_SYNC_DIR")]
    Folder { what: &'static str, path: PathBuf, reason: io::Error },
    #[error("wheel {wheel}: {fault}")]
    Wheel { wheel: String, fault: Fault },
}

impl Error {
    pub(super) fn folder(what: &'static str, path: &Path, reason: io::Error) -> Error {
        Error::Folder { what, path: path.to_owned(), reason }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("its SHA-256 is {is}, and the registry says {expected}")]
    Hash { is: String, expected: String },
    #[error("cannot read it as a zip archive: {0}")]
    Archive(String),
    #[error("it has an entry {path:?} {what}")]
    Entry { path: String, what: String },
    #[error("{0}")]
    TooLarge(String),
    /// It does not say what it is, or something else than its file name.
    #[error("{0}")]
    Identity(String),
    #[error("RECORD {0}")]
    Record(String),
    #[error("it needs Python {needs}, and this one is {version}")]
    NeedsPython { needs: String, version: String },
    #[error("cannot fetch it: {0}")]
    Fetch(String),
    #[error("{0}")]
    Over(#[from] Impatience),
    #[error("cannot {what}: {reason}")]
    Disk { what: String, reason: io::Error },
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
