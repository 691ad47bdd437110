//! Builds wheels: right ones, and wrong ones of every kind, down to the bytes of the zip archive.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// What the mode of an entry says of a file, a folder and a symbolic link.
pub const FILE_MODE: u32 = 0o100_644;
pub const FOLDER_MODE: u32 = 0o040_755;
pub const SYMLINK_MODE: u32 = 0o120_777;

/// Marks an entry as encrypted.
const ENCRYPTED: u16 = 1;
/// Says that a name is UTF-8.
const UTF8: u16 = 1 << 11;

/// A wheel that is being put together. What is not asked for is as it should be.
#[derive(Clone)]
pub struct WheelFile {
    name: String,
    version: String,
    build: Option<String>,
    tag: String,
    wheel_version: String,
    metadata: Vec<(String, String)>,
    description: String,
    files: Vec<Entry>,
    /// Listed in RECORD by these words instead of their own.
    rows: Vec<(String, String)>,
    /// In the archive, and not in RECORD.
    unlisted: Vec<Entry>,
    without: Vec<String>,
}

/// One entry of an archive; all of it may be told wrong.
#[derive(Clone)]
pub struct Entry {
    /// The name as bytes.
    pub name: Vec<u8>,
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub flags: u16,
    /// Another method than deflate, which the bytes are compressed by nevertheless.
    pub method: Option<u16>,
    /// Another name in the header before the bytes.
    pub local_name: Option<Vec<u8>>,
}

impl Entry {
    pub fn new(name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Entry {
        Entry {
            name: name.as_ref().to_vec(),
            bytes: bytes.as_ref().to_vec(),
            mode: FILE_MODE,
            flags: UTF8,
            method: None,
            local_name: None,
        }
    }

    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = mode;
        self
    }

    /// Said to be encrypted.
    pub fn encrypted(mut self) -> Entry {
        self.flags |= ENCRYPTED;
        self
    }

    /// Said to be compressed by this method.
    pub fn method(mut self, method: u16) -> Entry {
        self.method = Some(method);
        self
    }

    /// Called otherwise in the header before its bytes.
    pub fn local_name(mut self, name: impl AsRef<[u8]>) -> Entry {
        self.local_name = Some(name.as_ref().to_vec());
        self
    }
}

impl WheelFile {
    /// A wheel without any module, for any Python 3.
    pub fn new(name: &str, version: &str) -> WheelFile {
        WheelFile {
            name: name.to_owned(),
            version: version.to_owned(),
            build: None,
            tag: "py3-none-any".to_owned(),
            wheel_version: "1.0".to_owned(),
            metadata: Vec::new(),
            description: String::new(),
            files: Vec::new(),
            rows: Vec::new(),
            unlisted: Vec::new(),
            without: Vec::new(),
        }
    }

    pub fn file(self, path: &str, text: impl AsRef<[u8]>) -> WheelFile {
        self.entry(Entry::new(path, text))
    }

    /// With this entry, listed in RECORD.
    pub fn entry(mut self, entry: Entry) -> WheelFile {
        self.files.push(entry);
        self
    }

    /// With this file below `<name>-<version>.dist-info`.
    pub fn dist_info(self, path: &str, text: impl AsRef<[u8]>) -> WheelFile {
        let path = format!("{}/{path}", self.dist_info_folder());
        self.file(&path, text)
    }

    pub fn entry_points(self, text: &str) -> WheelFile {
        self.dist_info("entry_points.txt", text)
    }

    /// For what this tag says, `py3-none-any` for example.
    pub fn tag(mut self, tag: &str) -> WheelFile {
        tag.clone_into(&mut self.tag);
        self
    }

    pub fn build_number(mut self, build: &str) -> WheelFile {
        self.build = Some(build.to_owned());
        self
    }

    /// With a header of METADATA; `Name` and `Version` take the place of the right ones.
    pub fn metadata(mut self, name: &str, value: &str) -> WheelFile {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a description in METADATA.
    pub fn description(mut self, text: &str) -> WheelFile {
        text.clone_into(&mut self.description);
        self
    }

    /// With another `Wheel-Version` than 1.0.
    pub fn wheel_version(mut self, version: &str) -> WheelFile {
        version.clone_into(&mut self.wheel_version);
        self
    }

    /// Without a file that is there otherwise, in RECORD neither: `RECORD`, `WHEEL` or `METADATA`.
    pub fn without(mut self, name: &str) -> WheelFile {
        self.without.push(format!("{}/{name}", self.dist_info_folder()));
        self
    }

    /// With the hash of something else in RECORD's row of a file.
    pub fn corrupt_record(self, path: &str) -> WheelFile {
        let size = self.files.iter().find(|entry| entry.name == path.as_bytes());
        let size = size.map_or(0, |entry| entry.bytes.len());
        self.record_row(path, &format!("{path},{},{size}", record_hash(b"something else")))
    }

    /// With this row of RECORD in place of a file's own, or beside the others if there is no such
    /// file; an empty one leaves the row out.
    pub fn record_row(mut self, path: &str, row: &str) -> WheelFile {
        self.rows.push((path.to_owned(), row.to_owned()));
        self
    }

    /// With an entry that RECORD does not list.
    pub fn unlisted(mut self, entry: Entry) -> WheelFile {
        self.unlisted.push(entry);
        self
    }

    pub fn file_name(&self) -> String {
        let build = self.build.as_ref().map(|build| format!("-{build}")).unwrap_or_default();
        format!("{}-{}{build}-{}.whl", self.name, self.version, self.tag)
    }

    /// Its bytes; the same ones for the same wheel.
    pub fn build(&self) -> Vec<u8> {
        let folder = self.dist_info_folder();
        let mut entries = self.files.clone();
        entries.push(Entry::new(format!("{folder}/METADATA"), self.metadata_text()));
        entries.push(Entry::new(format!("{folder}/WHEEL"), self.wheel_text()));
        let record = format!("{folder}/RECORD");
        let is_there = |entry: &Entry| !self.without.iter().any(|name| name.as_bytes() == entry.name);
        entries.retain(is_there);
        let mut rows: Vec<String> = entries
            .iter()
            // A folder has no row.
            .filter(|entry| !entry.name.ends_with(b"/"))
            .filter(|entry| !self.rows.iter().any(|(path, _)| path.as_bytes() == entry.name))
            .map(|entry| {
                let name = String::from_utf8_lossy(&entry.name);
                format!("{},{},{}", quoted(&name), record_hash(&entry.bytes), entry.bytes.len())
            })
            .collect();
        rows.extend(self.rows.iter().map(|(_, row)| row.clone()).filter(|row| !row.is_empty()));
        rows.push(format!("{record},,\n"));
        entries.extend(self.unlisted.iter().cloned());
        entries.push(Entry::new(record, rows.join("\n")));
        entries.retain(is_there);
        archive(&entries)
    }

    /// Writes it below `folder` under its own name.
    pub fn write_to(&self, folder: &Path) -> PathBuf {
        let path = folder.join(self.file_name());
        fs::write(&path, self.build()).unwrap();
        path
    }

    fn dist_info_folder(&self) -> String {
        format!("{}-{}.dist-info", self.name, self.version)
    }

    fn metadata_text(&self) -> String {
        let mut text = "Metadata-Version: 2.1\n".to_owned();
        for (name, value) in [("Name", &self.name), ("Version", &self.version)] {
            if !self.metadata.iter().any(|(other, _)| other == name) {
                text += &format!("{name}: {value}\n");
            }
        }
        for (name, value) in &self.metadata {
            text += &format!("{name}: {value}\n");
        }
        format!("{text}\n{}", self.description)
    }

    fn wheel_text(&self) -> String {
        let mut text =
            format!("Wheel-Version: {}\nGenerator: tests\nRoot-Is-Purelib: true\n", self.wheel_version);
        let parts: Vec<Vec<&str>> = self.tag.split('-').map(|part| part.split('.').collect()).collect();
        for python in &parts[0] {
            for abi in &parts[1] {
                for platform in &parts[2] {
                    text += &format!("Tag: {python}-{abi}-{platform}\n");
                }
            }
        }
        text
    }
}

/// Bytes that no archive makes smaller; the same ones each time.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// SHA-256 in hex, as a registry tells it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash column of RECORD.
pub fn record_hash(bytes: &[u8]) -> String {
    format!("sha256={}", URL_SAFE_NO_PAD.encode(Sha256::digest(bytes)))
}

fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// A zip archive of these entries, whatever they are: libraries refuse to write half of them.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = u32::try_from(out.len()).unwrap();
        let (packed, crc) = deflated(&entry.bytes);
        let size = u32::try_from(entry.bytes.len()).unwrap();
        let packed_size = u32::try_from(packed.len()).unwrap();
        let common = |name: &[u8]| {
            let mut head = Vec::new();
            head.extend(20_u16.to_le_bytes());
            head.extend(entry.flags.to_le_bytes());
            head.extend(entry.method.unwrap_or(8).to_le_bytes());
            // 1980-01-01, the first day of zip archives.
            head.extend([0, 0, 0x21, 0]);
            head.extend(crc.to_le_bytes());
            head.extend(packed_size.to_le_bytes());
            head.extend(size.to_le_bytes());
            head.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            // No extra field.
            head.extend([0, 0]);
            head
        };
        let local_name = entry.local_name.as_ref().unwrap_or(&entry.name);
        out.extend(b"PK\x03\x04");
        out.extend(common(local_name));
        out.extend(local_name);
        out.extend(packed);
        directory.extend(b"PK\x01\x02");
        // Made by Unix, which gives the attributes their meaning.
        directory.extend([20, 3]);
        directory.extend(common(&entry.name));
        // No comment, first disk, no internal attributes.
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&entry.name);
    }
    let start = u32::try_from(out.len()).unwrap();
    let count = u16::try_from(entries.len()).unwrap();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// The bytes as deflate packs them, and their CRC-32: taken out of an archive with this one entry.
fn deflated(bytes: &[u8]) -> (Vec<u8>, u32) {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    writer.start_file("it", options).unwrap();
    writer.write_all(bytes).unwrap();
    let mut archive = ZipArchive::new(writer.finish().unwrap()).unwrap();
    let (start, size, crc) = {
        let entry = archive.by_index_raw(0).unwrap();
        (entry.data_start().unwrap(), entry.compressed_size(), entry.crc32())
    };
    let all = archive.into_inner().into_inner();
    let start = usize::try_from(start).unwrap();
    (all[start..start + usize::try_from(size).unwrap()].to_vec(), crc)
}
