//! The directory in which runs are executed: the one where the worker was started.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory and its identity: a template stays in the one that it was started in, also when that was
/// removed and another one made under its name.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// The present directory of this process; once that is gone, whatever is at `path`, where it was.
    pub(super) fn now(path: Option<&Path>) -> io::Result<Place> {
        let path = match (std::env::current_dir(), path) {
            (Ok(present), _) => present,
            (Err(_), Some(before)) => before.to_owned(),
            (Err(e), None) => return Err(e),
        };
        let metadata = std::fs::metadata(&path)?;
        Ok(Place { path, device: metadata.dev(), inode: metadata.ino() })
    }

    pub(super) fn is_same(&self, other: &Place) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}
