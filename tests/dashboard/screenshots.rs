//! The pictures of the documentation, taken when `PYOCO_UPDATE_SCREENSHOTS=1` asks for it.

use std::fs;

use crate::stage::{Stage, folder};

/// A picture is looked at over slow lines, too.
const MAX_BYTES: u64 = 200_000;

#[test]
fn pictures_are_there_and_small() {
    if std::env::var_os("PYOCO_UPDATE_SCREENSHOTS").is_some_and(|value| value == "1") {
        Stage::start().with_worker().play("screenshots");
    }
    let page = fs::read_to_string(folder().join("../../docs/dashboard.md")).unwrap();
    let images = folder().join("../../docs/images");
    let mut count = 0;
    for entry in fs::read_dir(images).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(
            page.contains(&format!("(images/{name})")),
            "docs/dashboard.md does not show {name}"
        );
        assert!(entry.metadata().unwrap().len() < MAX_BYTES, "{name} is too large");
        count += 1;
    }
    assert!((4..=6).contains(&count), "{count} pictures");
}
