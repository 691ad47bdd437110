//! The release before this one: its programs, which `tests/setup/previous.sh` builds.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Binary, without_settings};

const VARIABLE: &str = "PYOCO_TEST_PREVIOUS";
/// Names the commit, in the line that [`NAME`] begins.
const SETUP: &str = include_str!("../setup/previous.sh");
const NAME: &str = "release=";

/// A release that was built and kept.
pub struct Previous {
    programs: PathBuf,
}

impl Previous {
    /// `None` where it was not built, since the history of this checkout lacks it. The test that asks is not
    /// run then, which is said on stderr, where nothing captures it.
    pub fn find() -> Option<Previous> {
        if let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
            let previous = Previous { programs: PathBuf::from(folder) };
            let program = previous.path(Binary::Server);
            assert!(program.is_file(), "{VARIABLE} has no {}", program.display());
            return Some(previous);
        }
        let release = SETUP.lines().find_map(|line| line.strip_prefix(NAME)).expect("the script names it");
        let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools");
        let programs = tools.join(format!("previous-{release}"));
        if programs.is_dir() {
            return Some(Previous { programs: programs.canonicalize().expect("it is there") });
        }
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let reason = format!("no programs of the previous release, {release}; run `bash tests/setup.sh`");
        writeln!(std::io::stderr(), "NOT RUN: {test}: {reason}").expect("stderr");
        None
    }

    /// A command that inherits no setting of ours.
    pub fn command(&self, binary: Binary) -> Command {
        without_settings(self.path(binary))
    }

    fn path(&self, binary: Binary) -> PathBuf {
        self.programs.join(Path::new(binary.path()).file_name().expect("a program has a name"))
    }
}
