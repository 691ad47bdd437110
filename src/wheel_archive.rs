//! Reads a wheel as the zip archive that it is: its entries in order, and a few short texts whole.
//!
//! Invariant: no text is read beyond its limit, whatever the archive says of its size. Callers judge what an
//! entry may be, and word the faults.

use std::io::{self, Read, Seek};

pub use zip::result::ZipError;

use zip::read::{Config, ZipFileEntry, ZipReadOptions};
use zip::unstable::read::ZipIterable;

/// How the name of the folder ends that says what a wheel is: `foo-1.0.dist-info`.
pub const DIST_INFO: &str = ".dist-info";

/// A wheel's archive, of which the directory was found.
pub struct WheelArchive<R> {
    zip: ZipIterable<R>,
}

pub struct WheelEntry<'a, R> {
    pub listed: ZipFileEntry<'a>,
    reader: &'a mut R,
}

pub type Text = Result<Vec<u8>, UnreadText>;

#[derive(Debug)]
pub enum UnreadText {
    Entry(ZipError),
    Contents(io::Error),
    TooLarge,
}

impl<R: Read + Seek> WheelArchive<R> {
    /// Fails where there is no directory: this is no zip archive, or only a part of one.
    pub fn open(file: R) -> Result<Self, ZipError> {
        Ok(WheelArchive { zip: ZipIterable::try_new(file, Config::default())? })
    }

    /// From now on an entry is an error when its own header differs from what the directory says.
    pub fn with_checked_headers(self) -> Self {
        WheelArchive { zip: self.zip.enforce_header_consistency(true) }
    }

    pub fn entry_count(&self) -> usize {
        self.zip.len()
    }

    /// Shows every entry to `look`, in the order of the archive, until that returns an error.
    pub fn for_each_entry<E: From<ZipError>>(
        &mut self,
        mut look: impl FnMut(WheelEntry<'_, R>) -> Result<(), E>,
    ) -> Result<(), E> {
        let files = self.zip.files()?;
        while let Some(listed) = files.next() {
            look(WheelEntry { listed: listed?, reader: files.reader_mut() })?;
        }
        Ok(())
    }

    /// Reads the files of these paths, each up to its limit in bytes; one that is not there is `None`.
    /// `go_on` is asked before each entry.
    pub fn read_texts<E: From<ZipError>, const N: usize>(
        &mut self,
        wanted: [(&str, u64); N],
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<[Option<Text>; N], E> {
        let mut texts = [const { None }; N];
        self.for_each_entry::<E>(|entry| {
            go_on()?;
            let is_it = |(path, _): &(&str, u64)| path.as_bytes() == entry.listed.name_raw();
            if let Some(index) = wanted.iter().position(is_it) {
                texts[index] = Some(entry.text(wanted[index].1));
            }
            Ok(())
        })?;
        Ok(texts)
    }
}

impl<'a, R: Read + Seek> WheelEntry<'a, R> {
    /// Unpacks while it is read. Fails for a compression or encryption that cannot be undone here.
    pub fn contents(self) -> Result<impl Read + 'a, ZipError> {
        self.listed.with_reader(self.reader, ZipReadOptions::new())
    }

    fn text(self, limit: u64) -> Text {
        let mut text = Vec::new();
        let contents = self.contents().map_err(UnreadText::Entry)?;
        contents.take(limit + 1).read_to_end(&mut text).map_err(UnreadText::Contents)?;
        if text.len() as u64 > limit { Err(UnreadText::TooLarge) } else { Ok(text) }
    }
}
