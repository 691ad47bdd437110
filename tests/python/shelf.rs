//! Folders such as a worker's unpacked wheels are, and executors that are given them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use pyoco_server::flow::python::{Code, PythonError};
use pyoco_server::flow::{FlowEvent, Outcome, PythonExecutor};
use pyoco_server::model::wheel::{WheelRef, WheelSet};
use serde_json::Value;

use crate::flow::Run;
use crate::support::wait::{PATIENCE, eventually};

/// Folders such as unpacked wheels are.
pub struct Shelf {
    pub folder: tempfile::TempDir,
}

/// What tells whether the code is still kept.
pub struct Kept(Weak<()>);

impl Kept {
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub fn let_go(&self) {
        eventually(PATIENCE, "the code is let go", || (!self.is_held()).then_some(()));
    }
}

impl Shelf {
    pub fn new() -> Shelf {
        Shelf { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes the files of one wheel.
    pub fn wheel(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (file, text) in files {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    /// A wheel whose `tool` has this version.
    pub fn tool(&self, version: &str) -> PathBuf {
        self.wheel(&format!("tool-{version}"), &[("tool.py", &format!("VERSION = '{version}'\n"))])
    }
}

pub fn code(generation: &str, paths: &[&Path]) -> (Arc<Code>, Kept) {
    let wheels = paths.iter().map(|path| WheelRef {
        wheel_name: format!("{}.whl", path.file_name().unwrap().display()),
        package_name: "package".into(),
        package_version: "1.0".into(),
        sha256: "00".into(),
    });
    let set = WheelSet { generation: generation.into(), wheels: wheels.collect() };
    let token = Arc::new(());
    let kept = Kept(Arc::downgrade(&token));
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    (Arc::new(Code { set, paths, keep: Box::new(token) }), kept)
}

pub fn give(
    executor: &PythonExecutor,
    generation: &str,
    paths: &[&Path],
) -> Result<Kept, PythonError> {
    let (code, kept) = code(generation, paths);
    executor.use_code(code)?;
    Ok(kept)
}

pub fn output(run: &Run, task: &str) -> Value {
    assert_eq!(run.outcome(), Outcome::Completed);
    run.record(task).output.clone()
}

pub fn wheels(run: &Run) -> Option<&WheelSet> {
    let told: Vec<&WheelSet> = run
        .seen
        .iter()
        .filter_map(|event| if let FlowEvent::Wheels(set) = event { Some(set) } else { None })
        .collect();
    assert!(told.len() <= 1, "{told:?}");
    told.first().copied()
}
