//! Reads the files of an archive, and writes them below a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zip::read::{ZipFileEntry, ZipReadOptions};
use zip::unstable::read::ZipIterable;

use super::error::Fault;
use super::helper::Patience;
use super::listing::{Entry, Listing, unreadable};
use super::record::Record;

/// How much is read at once; in between there is a look at the clock.
const BLOCK_BYTES: usize = 64 * 1024;
/// Files that nobody is to write to, and those that are programs besides.
const FILE_MODE: u32 = 0o444;
const PROGRAM_MODE: u32 = 0o555;

/// Reads these files of the archive as a whole, in this order; one that is missing is `None`.
pub(super) fn texts<R: Read + Seek, const N: usize>(
    archive: &mut ZipIterable<R>,
    wanted: [(&str, u64); N],
    patience: &Patience<'_>,
) -> Result<[Option<Vec<u8>>; N], Fault> {
    let mut texts = [const { None }; N];
    let files = archive.files().map_err(unreadable)?;
    while let Some(entry) = files.next() {
        patience.check()?;
        let entry = entry.map_err(unreadable)?;
        let is_it = |(path, _): &(&str, u64)| path.as_bytes() == entry.name_raw();
        let Some(index) = wanted.iter().position(is_it) else { continue };
        let (path, limit) = wanted[index];
        let mut text = Vec::new();
        let mut reader = opened(entry, files.reader_mut())?;
        reader.by_ref().take(limit + 1).read_to_end(&mut text).map_err(|e| broken(path, &e))?;
        if text.len() as u64 > limit {
            return Err(Fault::TooLarge(format!("its {path} is larger than {limit} bytes")));
        }
        texts[index] = Some(text);
    }
    Ok(texts)
}

/// Writes all files of the archive that have a place below `folder`, which is empty, and holds each
/// against its hash; `limit` is what all of them may take.
pub(super) fn write<R: Read + Seek>(
    archive: &mut ZipIterable<R>,
    listing: &Listing,
    record: &Record,
    folder: &Path,
    limit: u64,
    patience: &Patience<'_>,
) -> Result<(), Fault> {
    let mut left = limit;
    let mut block = vec![0; BLOCK_BYTES];
    let files = archive.files().map_err(unreadable)?;
    for planned in &listing.entries {
        let Some(entry) = files.next() else {
            return Err(Fault::Archive("its directory has changed".to_owned()));
        };
        let entry = entry.map_err(unreadable)?;
        if planned.is_folder {
            continue;
        }
        let mut expected = record.expected(&planned.path)?;
        let mut out =
            planned.target.as_ref().map(|target| create(folder, target, planned)).transpose()?;
        let mut reader = opened(entry, files.reader_mut())?;
        let mut size = 0;
        loop {
            patience.check()?;
            let count = reader.read(&mut block).map_err(|e| broken(&planned.path, &e))?;
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
        expected.check(&planned.path, size)?;
    }
    Ok(())
}

pub(super) fn too_large(limit: u64) -> Fault {
    Fault::TooLarge(format!("unpacked it would take more than {limit} bytes"))
}

fn opened<'a, R: Read + Seek>(
    entry: ZipFileEntry<'a>,
    reader: &'a mut R,
) -> Result<impl Read + 'a, Fault> {
    entry.with_reader(reader, ZipReadOptions::new()).map_err(unreadable)
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
