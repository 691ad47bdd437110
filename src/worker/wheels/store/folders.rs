//! The folder of a worker's wheels: one folder per wheel in it, named by its hash, whole or not there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::lock::Lock;
use super::memory::{self, Memory, is_hash};
use crate::thread::{self, StopSignal};
use crate::worker::wheels::error::Error;
use crate::worker::wheels::fit::Interpreter;
use crate::worker::wheels::helper::Patience;

/// What folders that are not finished, or not wanted any more, begin with.
const SCRATCH: &str = ".tmp-";
/// A lock of a [`Scratch`] without its folder is left alone for so long: it may be about to be taken.
const SPARE_LOCK_AGE: Duration = Duration::from_secs(60);
const LOCK: &str = ".lock";
const FOLDER_MODE: u32 = 0o555;
const OPEN_FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o444;
const ANY_EXECUTE: u32 = 0o111;

/// The folder of wheels. Workers may share one; they see each other by locks alone.
#[derive(Debug)]
pub struct Folders {
    root: PathBuf,
    memory: Memory,
    /// Those that this worker uses, by their hash. Generations share them: each has a file open.
    held: Mutex<HashMap<String, Weak<Folder>>>,
    /// Ends removals, too: they may take minutes, and whoever comes next goes on with them.
    stop: StopSignal,
}

impl Folders {
    /// Creates the folder unless it is there. Workers with other tags or another interpreter remember
    /// their wheels apart.
    pub fn open(
        root: &Path,
        tags: &[String],
        python: &Interpreter,
        stop: &StopSignal,
    ) -> Result<Folders, Error> {
        let root = fs::create_dir_all(root)
            .and_then(|()| root.canonicalize())
            .map_err(|e| Error::folder("create the folder", root, e))?;
        let memory = Memory::new(&root, tags, python);
        Ok(Folders { root, memory, held: Mutex::default(), stop: stop.clone() })
    }

    /// Makes the folder anew when somebody has removed it.
    pub fn restore(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.root).map_err(|e| Error::folder("create the folder", &self.root, e))
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The folder of a wheel that this worker uses already.
    pub(crate) fn held(&self, sha256: &str) -> Option<Arc<Folder>> {
        let held = self.held.lock();
        held.get(sha256).and_then(Weak::upgrade).filter(|folder| folder.is_there())
    }

    pub(crate) fn hold(&self, folder: Folder) -> Arc<Folder> {
        let folder = Arc::new(folder);
        let mut held = self.held.lock();
        held.retain(|_, folder| folder.strong_count() > 0);
        held.insert(folder.sha256.clone(), Arc::downgrade(&folder));
        folder
    }

    /// The place of a wheel with this hash, which nobody removes while it is held.
    pub(crate) fn slot(&self, sha256: &str, patience: &Patience<'_>) -> Result<Slot, Error> {
        let path = self.root.join(sha256);
        let lock = lock_of(&path);
        let lock = Lock::shared(&lock, patience).map_err(|e| Error::folder("lock", &lock, e))?;
        Ok(Slot { path, sha256: sha256.to_owned(), lock })
    }

    /// A new folder for what is not finished. It goes when it is dropped; what a stop or the death of its
    /// process has left goes with the next [`Folders::collect`].
    pub fn scratch(&self) -> Result<Scratch, Error> {
        let path = self.root.join(format!("{SCRATCH}{}", uuid::Uuid::new_v4().simple()));
        // The lock comes first: a folder without one is nobody's.
        let lock = Lock::try_alone(&lock_of(&path))
            .and_then(|lock| lock.ok_or_else(|| io::Error::other("its lock is taken")))
            .and_then(|lock| fs::create_dir(&path).map(|()| lock))
            .map_err(|e| Error::folder("create", &path, e))?;
        Ok(Scratch { path, lock: Some(lock), stop: self.stop.clone() })
    }

    /// Removes the folders of wheels that nobody uses or remembers, and what killed processes have left;
    /// how many these were. Whatever else there is stays; what cannot be removed is a warning.
    pub fn collect(&self) -> Result<usize, Error> {
        self.collect_but(&HashSet::new())
    }

    /// The same, but these stay, too: they are about to be used.
    pub(crate) fn collect_but(&self, wanted: &HashSet<&str>) -> Result<usize, Error> {
        self.memory.touch();
        let list = |e| Error::folder("list", &self.root, e);
        let remembered: HashSet<String> = memory::all(&self.root).map_err(list)?;
        let mut removed = 0;
        for entry in fs::read_dir(&self.root).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let stem = name.strip_suffix(LOCK).unwrap_or(name);
            let is_ours = is_hash(stem) || stem.starts_with(SCRATCH);
            let path = self.root.join(stem);
            // The lock of a folder goes with it, and alone only when there is none.
            let is_spare = name == stem || (!path.exists() && (is_hash(stem) || is_old(&lock_of(&path))));
            if thread::is_stopped(&self.stop) {
                break;
            }
            if !is_ours || !is_spare || remembered.contains(stem) || wanted.contains(stem) {
                continue;
            }
            match self.remove(&path) {
                Ok(true) => removed += 1,
                Ok(false) => {}
                Err(e) => {
                    log::warn!(path = path.display().to_string().as_str(); "cannot remove an old folder of wheels: {e}");
                }
            }
        }
        Ok(removed)
    }

    /// Whether there was a folder, and it was not in use.
    fn remove(&self, path: &Path) -> io::Result<bool> {
        let Some(lock) = Lock::try_alone(&lock_of(path))? else { return Ok(false) };
        let mut scratch = None;
        if path.exists() {
            // Under its name it is whole or gone, so it leaves its name first.
            let scratch = scratch.insert(self.scratch().map_err(io::Error::other)?);
            fs::set_permissions(path, Permissions::from_mode(OPEN_FOLDER_MODE))?;
            fs::rename(path, scratch.path().join("old"))?;
        }
        // Its contents go after that, when nobody waits for the lock.
        lock.remove()?;
        Ok(scratch.is_some())
    }
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) path: PathBuf,
    sha256: String,
    lock: Lock,
}

impl Slot {
    pub(crate) fn folder(self) -> Result<Folder, Slot> {
        let Ok(metadata) = fs::metadata(&self.path) else { return Err(self) };
        let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let since = since.map_or(0.0, |since| since.as_secs_f64());
        Ok(Folder { path: self.path, sha256: self.sha256, since, lock: self.lock })
    }

    /// Puts a finished folder into its place, or takes the one of somebody who was quicker.
    pub(crate) fn fill(self, finished: &Path) -> io::Result<Folder> {
        // What it has must be on the disk before its name is.
        rustix::fs::syncfs(File::open(finished)?)?;
        match fs::rename(finished, &self.path) {
            Ok(()) => {
                fs::set_permissions(&self.path, Permissions::from_mode(FOLDER_MODE))?;
                if let Some(parent) = self.path.parent() {
                    File::open(parent)?.sync_all()?;
                }
            }
            Err(_) if self.path.is_dir() => {}
            Err(e) => return Err(e),
        }
        self.folder().map_err(|slot| {
            io::Error::new(io::ErrorKind::NotFound, format!("{} is gone", slot.path.display()))
        })
    }
}

/// An unpacked wheel, which stays as long as this is held.
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    pub sha256: String,
    /// When it was unpacked, unix seconds.
    pub since: f64,
    lock: Lock,
}

impl Folder {
    /// Whether it still is: somebody may have removed it, lock and all.
    pub(crate) fn is_there(&self) -> bool {
        self.lock.is_in_place() && self.path.is_dir()
    }
}

#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Taken when it is dropped.
    lock: Option<Lock>,
    stop: StopSignal,
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = remove_tree(&self.path, &self.stop).and_then(|is_done| {
            // A folder that is left keeps the file of its lock until somebody removes both.
            self.lock.take().filter(|_| is_done).map_or(Ok(()), Lock::remove)
        });
        if let Err(e) = removed {
            log::warn!(path = self.path.display().to_string().as_str(); "cannot remove a temporary folder of wheels: {e}");
        }
    }
}

/// Makes all below `folder` unchangeable, but for itself: it is still to be moved.
pub(crate) fn seal(folder: &Path) -> io::Result<()> {
    for (path, is_folder) in walk(folder)?.into_iter().skip(1) {
        let mode = if is_folder || fs::metadata(&path)?.permissions().mode() & ANY_EXECUTE != 0 {
            FOLDER_MODE
        } else {
            FILE_MODE
        };
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Removes a folder whose folders nobody may write to; whether it was done before the stop.
fn remove_tree(folder: &Path, stop: &StopSignal) -> io::Result<bool> {
    let found = walk(folder)?;
    for (path, _) in found.iter().filter(|(_, is_folder)| *is_folder) {
        fs::set_permissions(path, Permissions::from_mode(OPEN_FOLDER_MODE))?;
    }
    // What is in a folder comes after it.
    for (path, is_folder) in found.iter().rev() {
        if thread::is_stopped(stop) {
            return Ok(false);
        }
        if *is_folder { fs::remove_dir(path)? } else { fs::remove_file(path)? }
    }
    Ok(true)
}

/// The folder and all below it, and which of these are folders; links are not followed.
fn walk(folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let mut found = vec![(folder.to_owned(), true)];
    let mut next = 0;
    while let Some((path, is_folder)) = found.get(next).cloned() {
        next += 1;
        if is_folder {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                found.push((entry.path(), entry.file_type()?.is_dir()));
            }
        }
    }
    Ok(found)
}

fn is_old(lock: &Path) -> bool {
    let made = fs::metadata(lock).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > SPARE_LOCK_AGE))
}

fn lock_of(folder: &Path) -> PathBuf {
    let mut path = folder.as_os_str().to_owned();
    path.push(LOCK);
    path.into()
}
