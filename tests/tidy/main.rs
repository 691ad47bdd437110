//! Keeps the house rules: who may import whom, who may name which crate, what no file may contain.
//!
//! Each rule is a function over the text of a file, with a test below it that shows it bite.

#![allow(clippy::unwrap_used, reason = "tests")]

mod columns;
mod dependencies;
mod docs;
mod folders;
mod imports;
mod references;
mod source;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// A breach of a rule: where, and what to do about it.
pub type Breach = String;

#[test]
fn sources_keep_the_house_rules() {
    let files = rust_files("src");
    assert!(files.len() > 20, "the scan has lost its files: {files:?}");
    let mut breaches = folders::loose_files(&files);
    for path in &files {
        let source = Source::read(path);
        breaches.extend(imports::floors(&source));
        breaches.extend(imports::rooms(&source));
        breaches.extend(imports::gateway(&source));
        breaches.extend(imports::crates(&source));
        breaches.extend(imports::threads(&source));
        breaches.extend(text::product(&source));
        breaches.extend(text::every_file(&source));
    }
    report(&breaches);
}

#[test]
fn tests_keep_the_rules_for_every_file() {
    let files = rust_files("tests");
    assert!(!files.is_empty());
    let breaches: Vec<Breach> = files.iter().flat_map(|path| text::every_file(&Source::read(path))).collect();
    report(&breaches);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    report(&dependencies::reasons(&manifest));
}

#[test]
fn every_area_of_tests_is_declared() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let areas = fs::read_dir(root().join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("main.rs").is_file());
    for area in areas {
        let declared = format!("path = \"tests/{}/main.rs\"", area.file_name().unwrap().display());
        assert!(manifest.contains(&declared), "Cargo.toml declares no [[test]] with {declared}");
    }
}

#[test]
fn prose_fits_into_a_terminal() {
    let pages = docs::pages();
    let mut breaches: Vec<Breach> = pages.iter().flat_map(|(path, text)| columns::page(path, text)).collect();
    breaches.extend(sources().iter().flat_map(|(path, text)| columns::comments(path, text)));
    report(&breaches);
}

#[test]
fn references_to_pages_lead_somewhere() {
    // The rules of this area show themselves bite with references that lead nowhere.
    let sources = sources().into_iter().filter(|(path, _)| !path.starts_with("tests/tidy"));
    let breaches: Vec<Breach> = docs::pages()
        .into_iter()
        .chain(sources)
        .flat_map(|(path, text)| references::lost(&path, &text))
        .collect();
    report(&breaches);
}

fn report(breaches: &[Breach]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The manifests and all texts of src, tests and examples, as path and text.
fn sources() -> Vec<(String, String)> {
    let mut paths = vec![PathBuf::from("Cargo.toml"), PathBuf::from("deny.toml")];
    paths.extend(["src", "tests", "examples"].into_iter().flat_map(all_files));
    // What is no UTF-8 is a picture or a program.
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).ok()?;
        Some((path.to_string_lossy().into_owned(), text))
    };
    paths.into_iter().filter_map(read).collect()
}

/// All `.rs` files below `folder`, as paths relative to the root, in a stable order.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = all_files(folder);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

/// The same of all files.
fn all_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
