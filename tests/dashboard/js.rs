//! The unit tests of the page's JavaScript modules, `js/*.test.mjs`, run by node.
//!
//! They run by hand, too: `node --test tests/dashboard/js/*.test.mjs`, with a node that knows modules by
//! their syntax (22, or 20.19).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::process::{run, without_settings};

/// All of them take a second.
const DEADLINE: Duration = Duration::from_secs(120);
/// The first version with all that the tests use.
const LEAST_VERSION: u32 = 18;

#[test]
fn modules_do_what_their_unit_tests_say() {
    let Some(mut node) = node() else {
        eprintln!("skipped: no node of version {LEAST_VERSION} or later; install Debian's `nodejs`");
        return;
    };
    // A copy, beside a file that tells any version of node that these are modules.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#).unwrap();
    copy("src/gateway/page/assets", folder.path());
    let tests = copy("tests/dashboard/js", folder.path());
    let tests = tests.iter().filter(|path| path.to_str().unwrap().ends_with(".test.mjs"));
    let tests: Vec<&PathBuf> = tests.collect();
    assert!(tests.len() > 5, "the scan has lost its tests: {tests:?}");
    let ended = run(node.arg("--test").args(tests).env("TZ", "UTC"), b"", DEADLINE);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("# fail 0"), "{}", ended.stdout);
}

/// Copies the files of a folder of this package to the same place below `target`.
fn copy(folder: &str, target: &Path) -> Vec<PathBuf> {
    let target = target.join(folder);
    fs::create_dir_all(&target).unwrap();
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let copy = |file: fs::DirEntry| {
        let target = target.join(file.file_name());
        fs::copy(file.path(), &target).unwrap();
        target
    };
    files.map(|file| copy(file.unwrap())).collect()
}

/// Node in PATH, if it is there and new enough.
fn node() -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("node"));
    let node: OsString = found.into_iter().find(|path| path.is_file())?.into();
    let told = run(without_settings(&node).arg("--version"), b"", DEADLINE).stdout;
    let version = told.trim_start_matches('v').split('.').next()?.parse::<u32>().ok()?;
    (version >= LEAST_VERSION).then(|| without_settings(&node))
}
