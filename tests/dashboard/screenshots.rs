//! The pictures of the documentation, taken when `PYOCO_UPDATE_SCREENSHOTS=1` asks for it.

use std::fs;

use crate::browser::{english, finish, folder, open, worker};
use crate::support::python::V08;
use crate::support::wait::PATIENCE;
use crate::wheels::Wheels;

/// A picture is looked at over slow lines, too.
const MAX_BYTES: u64 = 200_000;

fn take() {
    // A traceback shows where programs lie: in the pictures that is a place like any other.
    let home = tempfile::Builder::new().prefix("pyoco-example").rand_bytes(0).tempdir().unwrap();
    let flows = home.path().join("flows.py");
    fs::copy(folder().join("../../examples/python/flows.py"), &flows).unwrap();
    let interpreter = V08.path();
    let environment = interpreter.ancestors().nth(2).unwrap();
    std::os::unix::fs::symlink(environment, home.path().join("venv")).unwrap();
    let interpreter = home.path().join("venv/bin/python").display().to_string();
    let resolver = format!("{}:resolve_flow", flows.display());
    let wheels = Wheels::new();
    let synchronises = wheels.flags(&interpreter);
    let cluster = worker(english(), "worker-1", "default,gpu").python(&interpreter);
    let cluster = worker(cluster.resolver(&resolver), "worker-2", "batch").python("off");
    let cluster = worker(cluster, "text-1", "text").flags(&synchronises);
    let cluster = worker(cluster, "text-2", "text").flags(&synchronises);
    let cluster = worker(cluster, "gpu-1", "gpu").python("off");
    let mut cluster = worker(cluster, "gpu-2", "gpu").python("off").start();
    cluster.worker("gpu-2").stop(PATIENCE);
    let files = wheels.files().display().to_string();
    finish(open(&cluster, "screenshots", &[("PYOCO_TEST_WHEELS", &files)]), "screenshots");
}

#[test]
fn pictures_are_there_and_small() {
    if std::env::var_os("PYOCO_UPDATE_SCREENSHOTS").is_some_and(|value| value == "1") {
        take();
    }
    let page = fs::read_to_string(folder().join("../../docs/dashboard.md")).unwrap();
    let images = folder().join("../../docs/images");
    let mut count = 0;
    for entry in fs::read_dir(images).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(page.contains(&format!("(images/{name})")), "docs/dashboard.md does not show {name}");
        assert!(entry.metadata().unwrap().len() < MAX_BYTES, "{name} is too large");
        count += 1;
    }
    assert!((4..=7).contains(&count), "{count} pictures");
}
