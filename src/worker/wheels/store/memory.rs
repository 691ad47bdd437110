//! What a worker remembers of its wheels from one start to the next.
//!
//! `.installed.json` is for people, and shows the worker that wrote last. Each kind of worker has one
//! of its own beside it, which only its like read: several may share the folder.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::limits::MAX_WHEEL_TEXT_BYTES;
use crate::model::wheel::{InstalledWheel, hex};
use crate::worker::wheels::fit::Interpreter;

/// How long the folders of a worker that does not run are kept for its next start.
const WHEELS_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
const HASH_DIGITS: usize = 64;
const SHOWN: &str = ".installed.json";
const PREFIX: &str = ".installed-";
const SUFFIX: &str = ".json";
/// Hex digits that tell kinds of workers apart.
const KEY_DIGITS: usize = 16;

#[derive(Debug)]
pub(crate) struct Memory {
    own: PathBuf,
    shown: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remembered {
    pub generation: String,
    /// When it came into use, unix seconds.
    pub updated_at: f64,
    /// In the order of the set.
    pub wheels: Vec<RememberedWheel>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RememberedWheel {
    #[serde(flatten)]
    pub wheel: InstalledWheel,
    /// Of its bytes, in hex.
    pub sha256: String,
    pub folder: String,
}

impl Memory {
    /// That of workers with these tags and this interpreter below `root`.
    pub(crate) fn new(root: &Path, tags: &[String], python: &Interpreter) -> Memory {
        let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        tags.sort_unstable();
        let mut hasher = Sha256::new();
        let parts = tags.into_iter().chain(["", &python.version]);
        for part in parts.chain(python.tags().iter().map(String::as_str)) {
            hasher.update(part);
            hasher.update([0]);
        }
        let key = hex(&hasher.finalize());
        let own = root.join(format!("{PREFIX}{}{SUFFIX}", &key[..KEY_DIGITS]));
        Memory { own, shown: root.join(SHOWN) }
    }

    /// What was remembered last; nothing when that cannot be read.
    pub(crate) fn read(&self) -> Option<Remembered> {
        read(&self.own)
    }

    /// Remembers this from now on; `scratch` is a folder beside the files, for what is not finished.
    pub(crate) fn write(&self, remembered: &Remembered, scratch: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(remembered)?;
        for path in [&self.own, &self.shown] {
            // The file is the old or the new one at any time.
            let new = scratch.join("new");
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
        }
        Ok(())
    }

    /// Says that this kind of worker is still there.
    pub(crate) fn touch(&self) {
        if let Ok(file) = OpenOptions::new().append(true).open(&self.own) {
            // One that cannot be touched is forgotten some time after the worker has ended.
            let _ = file.set_modified(SystemTime::now());
        }
    }
}

/// The hashes of all wheels that some kind of worker remembers; what is too old is forgotten.
pub(crate) fn all(root: &Path) -> io::Result<HashSet<String>> {
    let mut hashes = HashSet::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        // Another worker may remove it in this moment.
        let Some(age) = entry.metadata().ok().filter(|_| is_one).and_then(|m| m.modified().ok()) else {
            continue;
        };
        if age.elapsed().is_ok_and(|age| age > WHEELS_KEPT_FOR) {
            let _ = fs::remove_file(entry.path());
        } else if let Some(remembered) = read(&entry.path()) {
            hashes.extend(remembered.wheels.into_iter().map(|wheel| wheel.sha256));
        }
    }
    Ok(hashes)
}

fn read(path: &Path) -> Option<Remembered> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_WHEEL_TEXT_BYTES).read_to_end(&mut text).ok()?;
    let mut remembered: Remembered = serde_json::from_slice(&text).ok()?;
    // They become paths.
    remembered.wheels.retain(|wheel| is_hash(&wheel.sha256));
    Some(remembered)
}

pub(crate) fn is_hash(name: &str) -> bool {
    name.len() == HASH_DIGITS && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
