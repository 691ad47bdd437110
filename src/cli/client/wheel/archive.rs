//! Reads of a wheel what the preflight looks at: the names of its entries and two small files.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{Read, Seek};

use crate::wheel_archive::{DIST_INFO, UnreadText, WheelArchive, ZipError};

/// Longest `entry_points.txt` of a wheel that is looked at before its upload; an entry has some 50 bytes.
const MAX_ENTRY_POINTS_BYTES: u64 = 256 * 1024;
/// Longest METADATA of a wheel that is looked at before its upload; a long description has some 100 KiB.
const MAX_METADATA_BYTES: u64 = 1024 * 1024;

/// What a wheel says of itself, in its one folder `*.dist-info`. A file that is there and cannot be read
/// is an error with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The folder's name up to its ending: package, a dash, version.
    pub stem: String,
    pub metadata: Option<Result<String, String>>,
    pub entry_points: Option<Result<String, String>>,
    pub has_record: bool,
}

/// Fails when it is no zip archive, or has not just one folder `*.dist-info`.
pub fn read(file: impl Read + Seek) -> Result<Contents, String> {
    let unreadable = |error| format!("the file is not a readable zip archive ({error})");
    let mut archive = WheelArchive::open(file).map_err(unreadable)?;
    let mut names = BTreeSet::new();
    archive
        .for_each_entry(|entry| {
            names.extend(entry.listed.name().map(Cow::into_owned));
            Ok::<(), ZipError>(())
        })
        .map_err(unreadable)?;
    let folders: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| Some(name.split_once('/')?.0))
        .filter(|folder| folder.ends_with(DIST_INFO))
        .collect();
    let mut folders = folders.into_iter();
    let folder = match (folders.next(), folders.next()) {
        (Some(folder), None) => folder,
        (None, _) => return Err("METADATA is missing: there is no folder *.dist-info".to_owned()),
        (Some(one), Some(two)) => {
            return Err(format!("there are several folders *.dist-info: {one}, {two}"));
        }
    };
    let [metadata, entry_points, record] =
        ["METADATA", "entry_points.txt", "RECORD"].map(|file| format!("{folder}/{file}"));
    let wanted = [(metadata.as_str(), MAX_METADATA_BYTES), (entry_points.as_str(), MAX_ENTRY_POINTS_BYTES)];
    let texts = archive.read_texts(wanted, || Ok::<(), ZipError>(())).map_err(unreadable)?;
    let mut shown = texts.into_iter().zip(wanted).map(|(text, (name, limit))| {
        text.map(|text| match text {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(UnreadText::Entry(error)) => Err(format!("cannot read {name} ({error})")),
            Err(UnreadText::Contents(error)) => Err(format!("cannot read {name} ({error})")),
            Err(UnreadText::TooLarge) => Err(format!("{name} is larger than {limit} bytes")),
        })
    });
    Ok(Contents {
        stem: folder.strip_suffix(DIST_INFO).unwrap_or(folder).to_owned(),
        metadata: shown.next().flatten(),
        entry_points: shown.next().flatten(),
        has_record: names.contains(&record),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use zip::write::SimpleFileOptions;

    fn archive(files: &[(&str, &[u8])]) -> Cursor<Vec<u8>> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        let mut archive = writer.finish().unwrap();
        archive.set_position(0);
        archive
    }

    #[test]
    fn the_texts_of_the_one_folder_are_read() {
        let contents = read(archive(&[
            ("a/METADATA", b"no"),
            ("a-1.0.dist-info/METADATA", b"Name: a"),
            ("a-1.0.dist-info/entry_points.txt", b"[g]\n\xff"),
            ("a-1.0.dist-info/RECORD", b""),
        ]));
        let expected = Contents {
            stem: "a-1.0".to_owned(),
            metadata: Some(Ok("Name: a".to_owned())),
            entry_points: Some(Ok("[g]\n\u{fffd}".to_owned())),
            has_record: true,
        };
        assert_eq!(contents, Ok(expected));
        let contents = read(archive(&[("a-1.0.dist-info/WHEEL", b"")])).unwrap();
        assert_eq!((contents.metadata, contents.entry_points), (None, None));
        assert!(!contents.has_record);
    }

    #[test]
    fn what_is_no_wheel_is_told_apart() {
        for (file, why) in [
            (Cursor::new(b"junk".to_vec()), "not a readable zip archive"),
            (Cursor::new(Vec::new()), "not a readable zip archive"),
            (archive(&[("a.py", b""), ("a.dist-info", b"")]), "no folder *.dist-info"),
            (
                archive(&[("a-1.dist-info/X", b""), ("b-1.dist-info/X", b"")]),
                "several folders *.dist-info: a-1.dist-info, b-1.dist-info",
            ),
        ] {
            let error = read(file).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let whole = archive(&[("a-1.dist-info/METADATA", b"Name: a")]).into_inner();
        let cut = read(Cursor::new(whole[..whole.len() - 4].to_vec()));
        assert!(cut.unwrap_err().contains("not a readable zip archive"));
    }

    #[test]
    fn a_bomb_is_read_up_to_its_bound_only() {
        let large = vec![b' '; 8 * MAX_METADATA_BYTES as usize];
        let file = archive(&[("a-1.dist-info/METADATA", &large)]);
        assert!(file.get_ref().len() < 100_000, "{}", file.get_ref().len());
        let error = read(file).unwrap().metadata.unwrap().unwrap_err();
        assert_eq!(error, "a-1.dist-info/METADATA is larger than 1048576 bytes");
        let good = archive(&[("a-1.dist-info/METADATA", &large[..MAX_METADATA_BYTES as usize])]);
        assert!(read(good).unwrap().metadata.unwrap().is_ok());
    }

    #[test]
    fn a_damaged_entry_is_an_error_of_its_own() {
        let mut bytes = archive(&[("a-1.dist-info/METADATA", b"Name: a")]).into_inner();
        // The first byte of the compressed text, behind the local header of 30 bytes and the name.
        bytes[30 + "a-1.dist-info/METADATA".len()] ^= 0xff;
        let error = read(Cursor::new(bytes)).unwrap().metadata.unwrap().unwrap_err();
        assert!(error.starts_with("cannot read a-1.dist-info/METADATA"), "{error}");
    }
}
