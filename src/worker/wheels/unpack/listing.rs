//! What an archive would be unpacked to, decided from its directory alone, before a byte is written.

use std::collections::{HashMap, hash_map};
use std::io::{Read, Seek};

use zip::CompressionMethod;
use zip::read::ZipFileEntry;

use crate::model::limits::{MAX_WHEEL_ENTRIES, MAX_WHEEL_PATH_BYTES};
use crate::wheel_archive::{DIST_INFO, WheelArchive};
use crate::worker::wheels::error::Fault;
use crate::worker::wheels::helper::Patience;

/// What a file system takes as one name.
const MAX_PART_BYTES: usize = 255;
/// Of a mode, the part that says what kind of file it is.
const KIND: u32 = 0o170_000;
const KIND_FILE: u32 = 0o100_000;
const KIND_FOLDER: u32 = 0o040_000;
const ANY_EXECUTE: u32 = 0o111;
const DATA: &str = ".data";

#[derive(Debug, Default)]
pub(super) struct Listing {
    pub entries: Vec<Entry>,
    /// The folder that tells what the wheel is: `foo-1.0.dist-info`.
    pub dist_info: String,
    pub size: u64,
    /// Kinds of files that have no place here, such as scripts; each once.
    pub ignored: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Its name, without the slash at the end of a folder's.
    pub path: String,
    pub is_folder: bool,
    /// Where it goes; nowhere if it has no place here, or is a folder: files bring theirs.
    pub target: Option<String>,
    pub is_executable: bool,
    pub size: u64,
}

/// Looks at each entry; an archive with one that no wheel has is refused as a whole.
pub(super) fn list<R: Read + Seek>(
    archive: &mut WheelArchive<R>,
    patience: &Patience<'_>,
) -> Result<Listing, Fault> {
    let count = archive.entry_count();
    if count > MAX_WHEEL_ENTRIES {
        return Err(Fault::TooLarge(format!("it has {count} entries, over {MAX_WHEEL_ENTRIES}")));
    }
    let mut listing = Listing::default();
    let (mut names, mut targets) = (Tree::default(), Tree::default());
    let mut dist_infos: Vec<String> = Vec::new();
    archive.for_each_entry(|entry| {
        patience.check()?;
        let entry = look_at(&entry.listed)?;
        names.add(&entry.path, entry.is_folder)?;
        if let Some(target) = &entry.target {
            targets.add(target, false)?;
            let top = target.split('/').next().unwrap_or_default();
            if top.ends_with(DIST_INFO) && !dist_infos.iter().any(|known| known == top) {
                dist_infos.push(top.to_owned());
            }
        } else if let Some(kind) = entry.path.split('/').nth(1).filter(|_| !entry.is_folder)
            && !listing.ignored.iter().any(|known| known == kind)
        {
            listing.ignored.push(kind.to_owned());
        }
        listing.size = listing.size.saturating_add(entry.size);
        listing.entries.push(entry);
        Ok::<(), Fault>(())
    })?;
    match dist_infos.as_slice() {
        [one] => listing.dist_info.clone_from(one),
        [] => return Err(Fault::Identity("it has no .dist-info folder".to_owned())),
        [one, other, ..] => {
            return Err(Fault::Identity(format!("it has two .dist-info folders: {one}, {other}")));
        }
    }
    Ok(listing)
}

fn look_at(entry: &ZipFileEntry<'_>) -> Result<Entry, Fault> {
    let (path, is_folder) = checked_name(entry.name_raw())?;
    let fault = |what: &str| Err(Fault::entry(&path, what));
    if entry.encrypted() {
        return fault("that is encrypted");
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return fault("that is compressed otherwise than by deflate");
    }
    let mode = entry.unix_mode().unwrap_or_default();
    match mode & KIND {
        0 => {}
        KIND_FILE if !is_folder => {}
        KIND_FOLDER if is_folder => {}
        _ => return fault("that is neither a file nor a folder"),
    }
    if is_folder && entry.size() > 0 {
        return fault("that is a folder with contents of its own");
    }
    let target = if is_folder { None } else { target(&path)? };
    let is_executable = mode & ANY_EXECUTE != 0;
    Ok(Entry { is_folder, target, is_executable, size: entry.size(), path })
}

/// A name that stays within the folder it is unpacked to on any system, and whether it is a folder's.
fn checked_name(raw: &[u8]) -> Result<(String, bool), Fault> {
    let lossy = || String::from_utf8_lossy(&raw[..raw.len().min(MAX_WHEEL_PATH_BYTES)]);
    let fault = |what: &str| Err(Fault::entry(&lossy(), what));
    let Ok(name) = std::str::from_utf8(raw) else {
        return fault("whose name is not UTF-8");
    };
    if name.len() > MAX_WHEEL_PATH_BYTES {
        return fault("whose path is too long");
    }
    if name.contains('\\') || name.chars().any(char::is_control) {
        return fault("whose name has a backslash or a control character");
    }
    if name.as_bytes().get(1) == Some(&b':') {
        return fault("whose name begins with a drive");
    }
    let (path, is_folder) = match name.strip_suffix('/') {
        Some(path) => (path, true),
        None => (name, false),
    };
    for part in path.split('/') {
        match part {
            // An empty first part is an absolute path.
            "" => return fault("whose path is absolute, or has an empty part"),
            "." | ".." => return fault("whose path leads elsewhere"),
            _ if part.len() > MAX_PART_BYTES => {
                return fault("whose path has a part that is too long");
            }
            _ => {}
        }
    }
    Ok((path.to_owned(), is_folder))
}

/// Where a file goes: those of `foo-1.0.data` to the place of their kind, which only modules have.
fn target(path: &str) -> Result<Option<String>, Fault> {
    let mut parts = path.splitn(3, '/');
    let (top, kind, rest) = (parts.next(), parts.next(), parts.next());
    match (top, kind, rest) {
        (Some(top), Some(kind), rest) if top.ends_with(DATA) => match (kind, rest) {
            ("purelib" | "platlib", Some(rest)) => Ok(Some(rest.to_owned())),
            ("scripts" | "headers" | "data", Some(_)) => Ok(None),
            _ => Err(Fault::entry(path, "of a kind that no wheel has")),
        },
        _ => Ok(Some(path.to_owned())),
    }
}

/// The names that were seen, to find those that would be one on some system.
#[derive(Default)]
struct Tree {
    /// By the number of the folder it is in (0 is the root) and its name in lower case: its own
    /// number, and whether it is a folder.
    nodes: HashMap<(usize, String), (usize, bool)>,
}

impl Tree {
    fn add(&mut self, path: &str, is_folder: bool) -> Result<(), Fault> {
        let clash = || Fault::entry(path, "that is there twice, as far as some systems can tell");
        let mut folder = 0;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let wants_folder = !is_last || is_folder;
            let next = self.nodes.len() + 1;
            let node = self.nodes.entry((folder, part.to_lowercase()));
            let is_known = matches!(node, hash_map::Entry::Occupied(_));
            let (number, was_folder) = *node.or_insert((next, wants_folder));
            // Folders may be met again, below each file that is in them.
            if is_known && !(was_folder && wants_folder) {
                return Err(clash());
            }
            // Each entry may bring as many folders as its path has parts.
            if self.nodes.len() > MAX_WHEEL_ENTRIES {
                let what = format!("it has more than {MAX_WHEEL_ENTRIES} files and folders");
                return Err(Fault::TooLarge(what));
            }
            folder = number;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_folder() {
        for name in ["a", "a/b.py", "a-1.dist-info/RECORD", "a/..b/c..", "a/~", "a/é/日本"] {
            assert_eq!(checked_name(name.as_bytes()).unwrap(), (name.to_owned(), false));
        }
        assert_eq!(checked_name(b"a/b/").unwrap(), ("a/b".to_owned(), true));
        let long = "a/".repeat(MAX_WHEEL_PATH_BYTES / 2) + "b";
        let part = "a".repeat(MAX_PART_BYTES + 1);
        let elsewhere =
            ["", "/", "//a", "a//b", "a/b//", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b"];
        let of_windows = ["..\\a", "a\\b", "C:\\a", "C:/a", "c:a"];
        let others = ["/etc/passwd", "a\0b", "a\nb", "a\x7f", &long, &part];
        for name in elsewhere.into_iter().chain(of_windows).chain(others) {
            assert!(checked_name(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(checked_name(b"a/\xff").is_err());
    }

    #[test]
    fn files_of_data_folders_go_where_modules_are_or_nowhere() {
        let to = |path: &str| target(path).unwrap();
        assert_eq!(to("foo/bar.py").as_deref(), Some("foo/bar.py"));
        assert_eq!(to("foo.data").as_deref(), Some("foo.data"));
        assert_eq!(to("foo-1.data/purelib/foo/a.py").as_deref(), Some("foo/a.py"));
        assert_eq!(to("foo-1.data/platlib/a.so").as_deref(), Some("a.so"));
        assert_eq!(to("foo-1.data/scripts/run"), None);
        for path in ["foo-1.data/purelib", "foo-1.data/x/y", "foo-1.data/x"] {
            assert!(target(path).is_err(), "{path}");
        }
    }

    #[test]
    fn names_that_are_one_on_some_system_clash() {
        let clashes = |paths: &[(&str, bool)]| {
            let mut tree = Tree::default();
            paths.iter().any(|(path, is_folder)| tree.add(path, *is_folder).is_err())
        };
        let file = |path| (path, false);
        let folder = |path| (path, true);
        assert!(clashes(&[file("a"), file("a")]));
        assert!(clashes(&[file("a/B.py"), file("A/b.py")]));
        assert!(clashes(&[file("a"), file("a/b")]));
        assert!(clashes(&[file("a/b"), file("a")]));
        assert!(clashes(&[folder("a"), file("A")]));
        assert!(clashes(&[file("É"), file("é")]));
        assert!(!clashes(&[folder("a"), folder("a"), file("a/b"), folder("a"), file("b"), file("b_/b")]));
    }
}
