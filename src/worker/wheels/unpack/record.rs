//! RECORD: which files a wheel has, and the hash of each.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha384, Sha512};

use super::listing::Listing;
use crate::model::limits::MAX_WHEEL_ENTRIES;
use crate::worker::wheels::error::Fault;

/// Files of the `.dist-info` folder that cannot have a hash in RECORD.
const UNHASHED: [&str; 3] = ["RECORD", "RECORD.jws", "RECORD.p7s"];

#[derive(Debug)]
pub(super) struct Record {
    rows: HashMap<String, Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// As it is written: `sha256=…`.
    hash: String,
    size: Option<u64>,
}

impl Record {
    /// Reads it, and holds it against what there is: all files are listed, and all that is listed is there.
    pub(super) fn read(text: &[u8], listing: &Listing) -> Result<Record, Fault> {
        let fault = |what: String| Err(Fault::Record(what));
        let mut rows: HashMap<String, Row> = HashMap::new();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        for row in reader.records() {
            let row = row.map_err(|e| Fault::Record(format!("is no table: {e}")))?;
            let path = row.get(0).unwrap_or_default();
            // Some tools list folders, too.
            if path.is_empty() || path.ends_with('/') {
                continue;
            }
            let size = row.get(2).unwrap_or_default();
            let Ok(size) = (if size.is_empty() { Ok(None) } else { size.parse().map(Some) }) else {
                return fault(format!("says the size {size:?} for {path:?}"));
            };
            let row = Row { hash: row.get(1).unwrap_or_default().to_owned(), size };
            if rows.len() >= MAX_WHEEL_ENTRIES {
                return fault(format!("has more than {MAX_WHEEL_ENTRIES} rows"));
            }
            if rows.insert(path.to_owned(), row.clone()).is_some_and(|other| other != row) {
                return fault(format!("lists {path:?} twice, and differently"));
            }
        }
        let record = Record { rows };
        record.compare(listing)?;
        Ok(record)
    }

    fn compare(&self, listing: &Listing) -> Result<(), Fault> {
        let files = || listing.entries.iter().filter(|entry| !entry.is_folder);
        for file in files() {
            let path = &file.path;
            let problem = match self.rows.get(path) {
                _ if is_unhashed(path, &listing.dist_info) => continue,
                None => "does not list",
                Some(row) if row.hash.is_empty() => "has no hash for",
                Some(_) => continue,
            };
            return Err(Fault::Record(format!("{problem} {path:?}")));
        }
        let present: std::collections::HashSet<&str> = files().map(|f| f.path.as_str()).collect();
        match self.rows.keys().find(|path| !present.contains(path.as_str())) {
            Some(path) => Err(Fault::Record(format!("lists {path:?}, which is not there"))),
            None => Ok(()),
        }
    }

    /// What is to come out of reading a file.
    pub(super) fn expected(&self, path: &str) -> Result<Expected, Fault> {
        let row = self.rows.get(path).filter(|row| !row.hash.is_empty());
        let Some(row) = row else { return Ok(Expected { hash: None, size: None }) };
        let unknown = || {
            let hash = &row.hash;
            Fault::Record(format!("has {hash:?} for {path:?}, which is no SHA-256, 384 or 512"))
        };
        let (algorithm, digest) = row.hash.split_once('=').ok_or_else(unknown)?;
        let hasher: Box<dyn DynDigest> = match algorithm {
            "sha256" => Box::new(Sha256::default()),
            "sha384" => Box::new(Sha384::default()),
            "sha512" => Box::new(Sha512::default()),
            _ => return Err(unknown()),
        };
        let digest = URL_SAFE_NO_PAD.decode(digest.trim_end_matches('=')).map_err(|_| unknown())?;
        Ok(Expected { hash: Some((hasher, digest)), size: row.size })
    }
}

fn is_unhashed(path: &str, dist_info: &str) -> bool {
    let name = path.strip_prefix(dist_info).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| UNHASHED.contains(&name))
}

/// The hash that a file is to have, while it is read.
pub(super) struct Expected {
    /// `None` for a file that can have none.
    hash: Option<(Box<dyn DynDigest>, Vec<u8>)>,
    size: Option<u64>,
}

impl Expected {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some((hasher, _)) = &mut self.hash {
            hasher.update(bytes);
        }
    }

    /// Whether these were all, and the right ones.
    pub(super) fn check(self, path: &str, size: u64) -> Result<(), Fault> {
        if self.size.is_some_and(|expected| expected != size) {
            return Err(Fault::Record(format!("says another size for {path:?}")));
        }
        let Some((hasher, expected)) = self.hash else { return Ok(()) };
        if *hasher.finalize() != *expected {
            return Err(Fault::Record(format!("says another hash for {path:?}")));
        }
        Ok(())
    }
}
