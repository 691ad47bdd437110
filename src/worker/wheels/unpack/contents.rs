//! Reads the files of an archive, and writes them below a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::listing::{Entry, Listing};
use super::record::Record;
use crate::wheel_archive::{UnreadText, WheelArchive};
use crate::worker::wheels::error::Fault;
use crate::worker::wheels::helper::Patience;

/// How much is read at once; in between there is a look at the clock.
const BLOCK_BYTES: usize = 64 * 1024;
/// Files that nobody is to write to, and those that are programs besides.
const FILE_MODE: u32 = 0o444;
const PROGRAM_MODE: u32 = 0o555;

/// Reads these files of the `.dist-info` folder, each up to its limit; all of them have to be there.
pub(super) fn texts<R: Read + Seek, const N: usize>(
    archive: &mut WheelArchive<R>,
    dist_info: &str,
    wanted: [(&str, u64); N],
    patience: &Patience<'_>,
) -> Result<[Vec<u8>; N], Fault> {
    let paths = wanted.map(|(name, _)| format!("{dist_info}/{name}"));
    let limits: [(&str, u64); N] = std::array::from_fn(|at| (paths[at].as_str(), wanted[at].1));
    let found = archive.read_texts(limits, || patience.check().map_err(Fault::from))?;
    let mut texts = [const { Vec::new() }; N];
    for ((text, found), (path, limit)) in texts.iter_mut().zip(found).zip(limits) {
        *text = match found {
            Some(Ok(text)) => text,
            Some(Err(UnreadText::Entry(e))) => return Err(e.into()),
            Some(Err(UnreadText::Contents(e))) => return Err(broken(path, &e)),
            Some(Err(UnreadText::TooLarge)) => {
                return Err(Fault::TooLarge(format!("its {path} is larger than {limit} bytes")));
            }
            None => return Err(Fault::Identity(format!("it has no {path}"))),
        };
    }
    Ok(texts)
}

/// Writes all files of the archive that have a place below `folder`, which is empty, and holds each
/// against its hash; `limit` is what all of them may take.
pub(super) fn write<R: Read + Seek>(
    archive: &mut WheelArchive<R>,
    listing: &Listing,
    record: &Record,
    folder: &Path,
    limit: u64,
    patience: &Patience<'_>,
) -> Result<(), Fault> {
    let mut left = limit;
    let mut block = vec![0; BLOCK_BYTES];
    let mut planned = listing.entries.iter();
    archive.for_each_entry(|entry| {
        let planned = planned.next().filter(|planned| !planned.is_folder);
        let Some(planned) = planned else { return Ok(()) };
        let mut expected = record.expected(&planned.path)?;
        let mut out = planned.target.as_ref().map(|target| create(folder, target, planned)).transpose()?;
        let mut contents = entry.contents()?;
        let mut size = 0;
        loop {
            patience.check()?;
            let count = contents.read(&mut block).map_err(|e| broken(&planned.path, &e))?;
            if count == 0 {
                break;
            }
            size += count as u64;
            left = left.checked_sub(count as u64).ok_or_else(|| too_large(limit))?;
            expected.update(&block[..count]);
            if let Some(out) = &mut out {
                out.write_all(&block[..count])
                    .map_err(|e| Fault::disk(format!("write {:?}", planned.path), e))?;
            }
        }
        expected.check(&planned.path, size)
    })?;
    match planned.next() {
        Some(_) => Err(Fault::Archive("its directory has changed".to_owned())),
        None => Ok(()),
    }
}

pub(super) fn too_large(limit: u64) -> Fault {
    Fault::TooLarge(format!("unpacked it would take more than {limit} bytes"))
}

/// A new file; nothing is there yet that it could go through or write over.
fn create(folder: &Path, target: &str, planned: &Entry) -> Result<File, Fault> {
    let path = folder.join(target);
    let disk = |e| Fault::disk(format!("create {target:?}"), e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(disk)?;
    }
    let mode = if planned.is_executable { PROGRAM_MODE } else { FILE_MODE };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(disk)
}

fn broken(path: &str, error: &std::io::Error) -> Fault {
    Fault::Archive(format!("{path:?}: {error}"))
}
