//! From what the registry offers to the set of folders that new runs get.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::error::{Error, Fault};
use super::fit::Interpreter;
use super::helper::{Patience, Python};
use super::select::{Choice, Offer, Selection, select};
use super::store::memory::{Remembered, RememberedWheel};
use super::store::{Folder, Folders};
use super::unpack::unpack;
use crate::model::clock;
use crate::model::wheel::{InstalledWheel, WheelRef, WheelSet, brief, hex};
use crate::thread::StopSignal;

/// Hex digits of the id of a set.
const GENERATION_DIGITS: usize = 16;

/// The wheels of new runs. Their folders stay as long as this is held.
#[derive(Debug)]
pub struct Generation {
    pub set: WheelSet,
    /// What begins `sys.path`, in order.
    pub paths: Vec<PathBuf>,
    /// What the worker's record says of them, in the same order.
    pub installed: Vec<InstalledWheel>,
    /// Held for their locks.
    folders: Vec<Arc<Folder>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Worker<'a> {
    pub folders: &'a Folders,
    pub tags: &'a [String],
    pub python: &'a Python,
    pub interpreter: &'a Interpreter,
    /// For one wheel, from the first byte that is fetched.
    pub timeout: Duration,
    pub stop: &'a StopSignal,
}

/// Wheels that were looked at and found wrong, with the reason: they are not fetched again.
#[derive(Debug, Default)]
pub struct Refusals {
    /// By file name and hash.
    reasons: HashMap<(String, String), String>,
}

#[derive(Debug)]
pub struct Prepared {
    pub generation: Generation,
    pub selection: Selection,
}

/// Puts all wheels in place that are meant for the worker and fit. Those that are not here are
/// fetched to a file; the closure writes it, and asks the patience it is given whether to go on. A
/// wheel that is wrong in itself is refused, and an older one takes its place; after any other error
/// nothing has changed, and another try may succeed.
pub fn prepare(
    worker: &Worker<'_>,
    offers: &[Offer],
    refusals: &mut Refusals,
    mut fetch: impl FnMut(&Choice, &Path, &Patience<'_>) -> Result<(), String>,
) -> Result<Prepared, Error> {
    let mut offers = offers.to_vec();
    refusals.mark(&mut offers);
    'select: loop {
        let selection = select(worker.tags, &offers, worker.interpreter);
        remove_unused_folders(worker, &selection);
        let mut parts = Vec::new();
        for choice in &selection.chosen {
            match install(worker, choice, &mut fetch) {
                Ok(folder) => parts.push((choice.installed(&folder), folder)),
                Err(Error::Wheel { wheel, fault }) if fault.is_final() => {
                    let reason = brief(&fault.to_string());
                    log::warn!(wheel = wheel.as_str(); "a wheel is refused: {reason}");
                    refusals.add(choice, reason);
                    // Each turn refuses one more, so this ends.
                    refusals.mark(&mut offers);
                    continue 'select;
                }
                Err(e) => return Err(e),
            }
        }
        return Ok(Prepared { generation: Generation::new(parts), selection });
    }
}

/// Removes what nobody uses any more before something is fetched: a full disk may be full of it.
fn remove_unused_folders(worker: &Worker<'_>, selection: &Selection) {
    let wanted: HashSet<&str> = selection.chosen.iter().map(|choice| choice.offer.sha256.as_str()).collect();
    if wanted.iter().all(|sha256| worker.folders.held(sha256).is_some()) {
        return;
    }
    if let Err(e) = worker.folders.collect_but(&wanted) {
        log::warn!(reason = e.to_string(); "cannot look for folders of old wheels");
    }
}

/// One wheel in its folder, unpacked now if it is not there.
fn install(
    worker: &Worker<'_>,
    choice: &Choice,
    fetch: &mut impl FnMut(&Choice, &Path, &Patience<'_>) -> Result<(), String>,
) -> Result<Arc<Folder>, Error> {
    if let Some(folder) = worker.folders.held(&choice.offer.sha256) {
        return Ok(folder);
    }
    let patience = Patience::new(worker.timeout, worker.stop);
    let slot = match worker.folders.slot(&choice.offer.sha256, &patience)?.folder() {
        Ok(folder) => return Ok(worker.folders.hold(folder)),
        Err(slot) => slot,
    };
    let of_wheel = |fault| Error::Wheel { wheel: choice.offer.name.clone(), fault };
    let scratch = worker.folders.scratch()?;
    let (archive, folder) = (scratch.path().join("wheel"), scratch.path().join("folder"));
    fetch(choice, &archive, &patience).map_err(|why| {
        // What the fetch says is a consequence then.
        of_wheel(patience.check().map_or_else(Fault::from, |()| Fault::Fetch(why)))
    })?;
    let interpreter = (worker.python, worker.interpreter);
    unpack(&archive, choice, (&folder, &slot.path), interpreter, &patience).map_err(of_wheel)?;
    let filled = slot.fill(&folder);
    let folder = filled.map_err(|e| of_wheel(Fault::disk("put its folder in place", e)))?;
    Ok(worker.folders.hold(folder))
}

impl Choice {
    fn installed(&self, folder: &Folder) -> InstalledWheel {
        InstalledWheel {
            wheel_name: self.offer.name.clone(),
            package_name: self.name.package.clone(),
            package_version: self.name.version.to_string(),
            installed_at: folder.since,
            nuid: self.offer.nuid.clone(),
        }
    }
}

impl Refusals {
    fn add(&mut self, choice: &Choice, reason: String) {
        let key = (choice.offer.name.clone(), choice.offer.sha256.clone());
        self.reasons.insert(key, reason);
    }

    /// One of them, for people: which wheel, and why.
    pub fn first(&self) -> Option<String> {
        let least = self.reasons.iter().min_by(|a, b| a.0.cmp(b.0));
        least.map(|((name, _), reason)| format!("wheel {name}: {reason}"))
    }

    /// Tells the offers, and forgets what is offered no more.
    fn mark(&mut self, offers: &mut [Offer]) {
        let mut known = HashMap::new();
        for offer in offers {
            let key = (offer.name.clone(), offer.sha256.to_ascii_lowercase());
            if let Some(reason) = self.reasons.get(&key) {
                offer.refused = Some(reason.clone());
                known.insert(key, reason.clone());
            }
        }
        self.reasons = known;
    }
}

impl Generation {
    fn new(parts: Vec<(InstalledWheel, Arc<Folder>)>) -> Generation {
        let (installed, folders): (Vec<InstalledWheel>, Vec<Arc<Folder>>) = parts.into_iter().unzip();
        let mut hasher = Sha256::new();
        for folder in &folders {
            hasher.update(&folder.sha256);
            hasher.update([b'\n']);
        }
        let mut generation = hex(&hasher.finalize());
        generation.truncate(GENERATION_DIGITS);
        let wheels = installed.iter().zip(&folders).map(|(wheel, folder)| WheelRef {
            wheel_name: wheel.wheel_name.clone(),
            package_name: wheel.package_name.clone(),
            package_version: wheel.package_version.clone(),
            sha256: folder.sha256.clone(),
        });
        let set = WheelSet { generation, wheels: wheels.collect() };
        let paths = folders.iter().map(|folder| folder.path.clone()).collect();
        Generation { set, paths, installed, folders }
    }

    /// Whether all of its folders are still there: somebody may have removed them.
    pub fn is_there(&self) -> bool {
        self.folders.iter().all(|folder| folder.is_there())
    }

    /// What was remembered last by a worker of this kind. `None` when there is nothing, and when the folder
    /// of a wheel is gone: runs would fail for want of it, which the registry may still have.
    pub fn last(folders: &Folders, patience: &Patience<'_>) -> Result<Option<Generation>, Error> {
        let Some(remembered) = folders.memory().read() else { return Ok(None) };
        let mut parts = Vec::new();
        for wheel in remembered.wheels {
            match folders.slot(&wheel.sha256, patience)?.folder() {
                Ok(folder) => parts.push((wheel.wheel, folders.hold(folder))),
                Err(_) => {
                    let name = wheel.wheel.wheel_name.as_str();
                    log::warn!(wheel = name; "the folder of a wheel is gone");
                    return Ok(None);
                }
            }
        }
        Ok(Some(Generation::new(parts)))
    }

    pub fn remember(&self, folders: &Folders) -> Result<(), Error> {
        let wheels = self.installed.iter().zip(&self.folders).map(|(wheel, folder)| RememberedWheel {
            wheel: wheel.clone(),
            sha256: folder.sha256.clone(),
            folder: folder.path.display().to_string(),
        });
        let remembered = Remembered {
            generation: self.set.generation.clone(),
            updated_at: clock::now(),
            wheels: wheels.collect(),
        };
        let scratch = folders.scratch()?;
        let written = folders.memory().write(&remembered, scratch.path());
        written.map_err(|e| Error::folder("write the list of wheels below", folders.path(), e))
    }
}
