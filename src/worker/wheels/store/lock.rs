//! Locks on disk, shared with other workers and gone with the process that holds them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::model::limits::{CHILD_POLL, WHEEL_LOCK_DEADLINE};
use crate::worker::wheels::helper::Patience;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Locks together with others; waits for one who has it alone, which never lasts.
    pub(super) fn shared(path: &Path, patience: &Patience<'_>) -> io::Result<Lock> {
        let until = Instant::now() + WHEEL_LOCK_DEADLINE;
        loop {
            let file = opened(path)?;
            match file.try_lock_shared() {
                Ok(()) if is_still_there(path, &file) => {
                    return Ok(Lock { path: path.to_owned(), file });
                }
                // Whoever had it has removed it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => patience.pause(CHILD_POLL),
                Err(TryLockError::Error(e)) => return Err(e),
            }
            patience.check().map_err(io::Error::other)?;
            if Instant::now() >= until {
                return Err(io::Error::other("another process holds it for too long"));
            }
        }
    }

    pub(super) fn try_alone(path: &Path) -> io::Result<Option<Lock>> {
        let file = opened(path)?;
        match file.try_lock() {
            Ok(()) if is_still_there(path, &file) => Ok(Some(Lock { path: path.to_owned(), file })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Whether others find it under its name, too.
    pub(super) fn is_in_place(&self) -> bool {
        is_still_there(&self.path, &self.file)
    }

    /// Removes the file of a lock that is held alone; whoever waits for it notices.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file does the same; a child that has inherited it would keep it.
        let _ = self.file.unlock();
    }
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Whether the file that was locked is the one that others find under its name.
fn is_still_there(path: &Path, file: &File) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(held)) => id(named) == id(held),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::thread;

    #[test]
    fn one_alone_or_many_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.lock");
        let (_stop, signal) = thread::stop_channel();
        let patience = Patience::new(Duration::from_secs(30), &signal);
        let alone = Lock::try_alone(&path).unwrap().unwrap();
        assert!(Lock::try_alone(&path).unwrap().is_none());
        let soon = Patience::new(Duration::from_millis(50), &signal);
        assert!(Lock::shared(&path, &soon).unwrap_err().to_string().contains("not done within"));
        drop(alone);
        let many = [Lock::shared(&path, &patience).unwrap(), Lock::shared(&path, &patience).unwrap()];
        assert!(Lock::try_alone(&path).unwrap().is_none());
        drop(many);
        assert!(Lock::try_alone(&path).unwrap().is_some());
    }

    #[test]
    fn a_file_that_was_removed_between_opening_and_locking_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.lock");
        let early = opened(&path).unwrap();
        assert!(is_still_there(&path, &early));
        Lock::try_alone(&path).unwrap().unwrap().remove().unwrap();
        assert!(!is_still_there(&path, &early));
        let _other = opened(&path).unwrap();
        assert!(!is_still_there(&path, &early), "another file has the name now");
    }
}
