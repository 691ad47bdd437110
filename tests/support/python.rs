//! The Python environments that `tests/setup.sh` makes, and the programs of the Python package in them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::without_settings;

/// An interpreter with Pyoco.
#[derive(Debug, Clone, Copy)]
pub struct Pyoco {
    variable: &'static str,
    environment: &'static str,
}

/// The present Pyoco, with the Python package `pyoco-server`.
pub const V08: Pyoco = Pyoco { variable: "PYOCO_TEST_PYTHON_08", environment: "python-0.8" };
/// The oldest Pyoco that a worker has to run.
pub const V06: Pyoco = Pyoco { variable: "PYOCO_TEST_PYTHON_06", environment: "python-0.6" };

impl Pyoco {
    pub fn path(self) -> PathBuf {
        interpreter(self.variable, self.environment)
    }
}

impl From<Pyoco> for PathBuf {
    fn from(pyoco: Pyoco) -> PathBuf {
        pyoco.path()
    }
}

/// The interpreter with Schemathesis and a validator of OpenAPI documents.
pub fn schemathesis() -> PathBuf {
    interpreter("PYOCO_TEST_SCHEMATHESIS", "schemathesis")
}

/// The interpreter that drives a browser.
pub fn playwright() -> PathBuf {
    interpreter("PYOCO_TEST_PLAYWRIGHT", "playwright")
}

/// A program of the Python package, for example `pyoco-worker`; it inherits no setting of ours.
pub fn package_program(name: &str) -> Command {
    // Beside the interpreter as it is named: where its links lead to there is no package.
    let path = V08.path().with_file_name(name);
    assert!(path.is_file(), "no {} beside the interpreter; {WAY_OUT}", path.display());
    let mut command = without_settings(&path);
    command.env("PYTHONUNBUFFERED", "1").env_remove("PYTHONPATH").env_remove("PYTHONHOME");
    command
}

const WAY_OUT: &str = "run `bash tests/setup.sh`";

fn interpreter(variable: &str, environment: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return path;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools").join(environment);
    // The stamp is written last: without it the environment is half made.
    assert!(
        directory.join("stamp").is_file(),
        "no Python environment at {}; {WAY_OUT}, or name its interpreter with {variable}",
        directory.display()
    );
    let directory = directory.canonicalize().expect("it is there");
    directory.join("bin/python")
}
