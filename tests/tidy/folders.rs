//! Folders stay small: a reader sees at once what one is about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Breach;

/// Most loose files of a folder, `mod.rs` not counted.
const MOST_FILES: usize = 12;
/// A folder that may have more, and why.
const EXEMPT: &[(&str, &str)] =
    &[("src/model", "one file per kind of data, and they hardly know each other")];

/// Folders with too many loose files.
pub fn loose_files(files: &[PathBuf]) -> Vec<Breach> {
    let mut counts: BTreeMap<&Path, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.ends_with("mod.rs")) {
        *counts.entry(file.parent().unwrap()).or_default() += 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > MOST_FILES)
        .filter(|(folder, _)| EXEMPT.iter().all(|(exempt, _)| folder != &Path::new(exempt)))
        .map(|(folder, count)| format!("{}: {count} loose files; part them by meaning", folder.display()))
        .collect()
}

#[test]
fn a_crowded_folder_is_found() {
    let files = |folder: &str, count: usize| -> Vec<PathBuf> {
        let names = (0..count).map(|number| format!("{folder}/f{number}.rs").into());
        names.chain([format!("{folder}/mod.rs").into()]).collect()
    };
    assert!(loose_files(&files("src/bus", MOST_FILES)).is_empty());
    assert_eq!(loose_files(&files("src/bus", MOST_FILES + 1)).len(), 1);
    assert!(loose_files(&files("src/model", MOST_FILES + 1)).is_empty());
}
