//! Wheels on the dashboard, with real uploads and a worker that synchronises.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::browser::{english, finish, folder, open, worker};
use crate::support::cluster::Cluster;
use crate::support::python::V08;
use crate::support::wheel::{WheelFile, noise};

/// Small, so that a wheel can be too large; there is room for all others of the tests.
const MAX_BYTES: (&str, &str) = ("PYOCO_WHEEL_MAX_BYTES", "8388608");

/// Wheels that can be uploaded, and a place where workers unpack them.
pub struct Wheels {
    home: tempfile::TempDir,
}

impl Wheels {
    /// With the flows of the example in two versions, one that cannot be imported, one for another
    /// machine, and files that the gateway refuses.
    pub fn new() -> Wheels {
        let home = tempfile::tempdir().unwrap();
        let wheels = Wheels { home };
        fs::create_dir(wheels.files()).unwrap();
        let example = folder().join("../../examples/textflows/src/textflows/__init__.py");
        let example = fs::read(example).unwrap();
        let textflows =
            |version: &str| WheelFile::new("textflows", version).file("textflows/__init__.py", &example);
        for wheel in [
            textflows("1.0"),
            textflows("1.1"),
            WheelFile::new("textflows", "1.2").file("textflows/__init__.py", "import not_there\n"),
            // Refused while they are on their way; the second is more than the gateway lets come.
            textflows("0.9").file("textflows/noise.bin", noise(6 << 20)),
            WheelFile::new("huge", "1.0").file("noise.bin", noise(12 << 20)),
            WheelFile::new("report_kit", "2.4.0").file("report_kit.py", "LINES = 3\n"),
            WheelFile::new("speech", "0.3").tag("cp39-cp39-win_amd64").file("speech.py", "X = 1\n"),
        ] {
            wheel.write_to(&wheels.files());
        }
        fs::write(wheels.files().join("broken-1.0-py3-none-any.whl"), "no archive").unwrap();
        wheels
    }

    /// Where the files are.
    pub fn files(&self) -> std::path::PathBuf {
        self.home.path().join("files")
    }

    /// The flags of a worker that gets its flows as wheels.
    pub fn flags(&self, python: &str) -> Vec<String> {
        let unpacked = self.home.path().join("unpacked").display().to_string();
        [
            "--wheel-sync",
            "--wheel-sync-dir",
            &unpacked,
            "--python",
            python,
            "--flow-resolver",
            "textflows:resolve_flow",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Wheels {
    fn drop(&mut self) {
        // What is unpacked cannot be written to, so it could not be removed.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.home.path()).status();
    }
}

fn play(cluster: &Cluster, name: &str, files: &Path, more: &[(&str, &str)]) {
    let files = files.display().to_string();
    let environment = [&[("PYOCO_TEST_WHEELS", &*files)], more].concat();
    finish(open(cluster, name, &environment), name);
}

#[test]
fn wheels_come_go_and_fail_in_front_of_the_visitor() {
    let wheels = Wheels::new();
    let flags = wheels.flags(&V08.path().display().to_string());
    let gateway = english().env(MAX_BYTES.0, MAX_BYTES.1);
    let cluster = worker(gateway, "worker-1", "text").flags(&flags).start();
    play(&cluster, "wheels", &wheels.files(), &[]);
}

#[test]
fn who_may_not_change_wheels_is_told_so() {
    let wheels = Wheels::new();
    let cluster = english().with_keys().start();
    let (viewer, operator) = (cluster.key_text("t", "viewer"), cluster.key_text("t", "operator"));
    let keys = [("PYOCO_TEST_VIEWER", &*viewer), ("PYOCO_TEST_OPERATOR", &*operator)];
    play(&cluster, "wheels_keys", &wheels.files(), &keys);
}
