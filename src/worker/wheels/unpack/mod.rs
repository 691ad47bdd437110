//! From a wheel's file to a folder with its modules, checked, compiled and unchangeable.
//!
//! [`listing`] decides from the directory alone what goes where, [`identity`] and [`record`] hold what
//! the wheel says of itself against its name and its files, and [`contents`] writes them.

mod contents;
mod identity;
mod listing;
mod record;

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::model::limits::{
    FREE_WHEEL_UNPACKED_BYTES, MAX_WHEEL_GROWTH, MAX_WHEEL_TEXT_BYTES, MAX_WHEEL_UNPACKED_BYTES,
};
use crate::model::wheel::hex;
use crate::wheel_archive::WheelArchive;
use crate::worker::wheels::error::Fault;
use crate::worker::wheels::fit::Interpreter;
use crate::worker::wheels::helper::{self, HelperError, Impatience, Patience, Python};
use crate::worker::wheels::select::Choice;
use crate::worker::wheels::store::seal;
use record::Record;

/// Largest RECORD that is read: [`MAX_WHEEL_ENTRIES`] rows with long paths.
const MAX_WHEEL_RECORD_BYTES: u64 = 32 * 1024 * 1024;
const COMPILE: &str = include_str!("../host/compile.py");
const BLOCK_BYTES: usize = 64 * 1024;

/// Unpacks `archive` to the new folder `folder`, which will be moved to `destination`.
pub(crate) fn unpack(
    archive: &Path,
    choice: &Choice,
    (folder, destination): (&Path, &Path),
    (python, interpreter): (&Python, &Interpreter),
    patience: &Patience<'_>,
) -> Result<(), Fault> {
    let opening = |e| Fault::disk("open its file", e);
    let mut file = File::open(archive).map_err(opening)?;
    let size = check_hash(&mut file, &choice.offer.sha256, patience)?;
    let mut archive = WheelArchive::open(BufReader::new(file))?.with_checked_headers();
    let listing = listing::list(&mut archive, patience)?;
    let growth = size.saturating_mul(MAX_WHEEL_GROWTH).max(FREE_WHEEL_UNPACKED_BYTES);
    let limit = growth.min(MAX_WHEEL_UNPACKED_BYTES);
    if listing.size > limit {
        return Err(contents::too_large(limit));
    }
    let wanted = [
        ("METADATA", MAX_WHEEL_TEXT_BYTES),
        ("WHEEL", MAX_WHEEL_TEXT_BYTES),
        ("RECORD", MAX_WHEEL_RECORD_BYTES),
    ];
    let [metadata, wheel, record] = contents::texts(&mut archive, &listing.dist_info, wanted, patience)?;
    identity::check(
        &choice.name,
        &listing.dist_info,
        &String::from_utf8_lossy(&metadata),
        &String::from_utf8_lossy(&wheel),
        &interpreter.version,
    )?;
    let record = Record::read(&record, &listing)?;
    fs::create_dir(folder).map_err(|e| Fault::disk("create its folder", e))?;
    contents::write(&mut archive, &listing, &record, folder, limit, patience)?;
    if !listing.ignored.is_empty() {
        log::warn!(
            wheel = choice.offer.name.as_str();
            "a wheel has {} for other places than its folder; they are left out",
            listing.ignored.join(", ")
        );
    }
    compile(&choice.offer.name, folder, destination, python, patience)?;
    seal(folder).map_err(|e| Fault::disk("make its files unchangeable", e))
}

/// The size of a file whose bytes are the right ones.
fn check_hash(file: &mut File, expected: &str, patience: &Patience<'_>) -> Result<u64, Fault> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut size = 0;
    loop {
        patience.check()?;
        let count = file.read(&mut block).map_err(|e| Fault::disk("read its file", e))?;
        if count == 0 {
            break;
        }
        hasher.update(&block[..count]);
        size += count as u64;
    }
    let is = hex(&hasher.finalize());
    if is == expected { Ok(size) } else { Err(Fault::Hash { is, expected: expected.to_owned() }) }
}

/// Saves each run the time to compile. A wheel that cannot be compiled, or not in time, is a wheel.
fn compile(
    wheel: &str,
    folder: &Path,
    destination: &Path,
    python: &Python,
    patience: &Patience<'_>,
) -> Result<(), Fault> {
    let place = destination.parent().unwrap_or(destination);
    let why = match helper::run(python, COMPILE, &[folder, destination], place, patience) {
        Ok(said) if said.status.success() => return Ok(()),
        Ok(said) => format!("the interpreter ended with {}", said.status),
        Err(HelperError::Over(Impatience::Stopped)) => return Err(Impatience::Stopped.into()),
        Err(e) => format!("the interpreter {e}"),
    };
    log::warn!(wheel; "the modules of a wheel are not all compiled: {why}");
    Ok(())
}
