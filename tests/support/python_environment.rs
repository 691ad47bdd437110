//! A Python environment that may be spoiled: the worker of the Python package installs wheels into the
//! one that it runs in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{run, without_settings};
use super::python::{V08, package_program};

/// To make an environment without pip of its own, or to ask one something.
const DEADLINE: Duration = Duration::from_secs(60);

/// An environment of its own that sees all packages of the one with the Python package. What is
/// installed comes into it alone.
pub struct PythonEnvironment {
    folder: tempfile::TempDir,
}

impl PythonEnvironment {
    pub fn make() -> PythonEnvironment {
        let folder = tempfile::Builder::new().prefix("pyoco-venv-").tempdir().unwrap();
        let environment = PythonEnvironment { folder };
        let mut command = without_settings(V08.path());
        command.args(["-m", "venv", "--without-pip"]).arg(environment.folder.path());
        let made = run(&mut command, b"", DEADLINE);
        assert_eq!(made.code, Some(0), "{made:?}");
        let theirs = purelib(&V08.path());
        let link = purelib(&environment.python()).join("of_the_package.pth");
        fs::write(link, format!("{}\n", theirs.display())).unwrap();
        environment
    }

    pub fn python(&self) -> PathBuf {
        self.folder.path().join("bin/python")
    }

    /// A program of the Python package, executed by this environment's interpreter.
    pub fn program(&self, name: &str) -> Command {
        let script = package_program(name);
        let mut command = without_settings(self.python());
        command.env("PYTHONUNBUFFERED", "1").env_remove("PYTHONPATH").env_remove("PYTHONHOME");
        // Its pip has no business on the network here, and no index to find.
        command.env("PIP_NO_INDEX", "1").env("PIP_NO_INPUT", "1");
        command.arg(script.get_program());
        command
    }

    /// The version of a package that was installed into it.
    pub fn version(&self, package: &str) -> Option<String> {
        let found = fs::read_dir(purelib(&self.python())).unwrap();
        let mut names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let prefix = format!("{package}-");
        names.find_map(|name| name.strip_prefix(&prefix)?.strip_suffix(".dist-info").map(str::to_owned))
    }
}

/// Where an interpreter's own packages lie.
fn purelib(python: &Path) -> PathBuf {
    let mut command = without_settings(python);
    command.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
    let told = run(&mut command, b"", DEADLINE);
    assert_eq!(told.code, Some(0), "{told:?}");
    PathBuf::from(told.stdout.trim())
}
