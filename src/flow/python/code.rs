//! The code that runs import before all else: a worker's wheels, as folders.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;

use super::PythonError;
use crate::model::wheel::WheelSet;

/// One generation of a worker's wheels.
pub struct Code {
    /// What runs tell of it.
    pub set: WheelSet,
    /// The unpacked wheels, in the order in which they are searched, before everything else.
    pub paths: Vec<PathBuf>,
    /// What keeps the folders there. It is dropped when the last template that uses them has ended, and
    /// the last run of it; mostly on that template's thread, so it must not own the executor.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code").field("set", &self.set).field("paths", &self.paths).finish()
    }
}

impl Code {
    /// The folders as Python is told them: absolute, since a flow may change its directory. One that is
    /// not there is an error, because Python would pass over it without a word.
    pub(super) fn search_path(&self) -> Result<Vec<String>, PythonError> {
        self.paths
            .iter()
            .map(|path| {
                let failed = |reason: String| PythonError::Folder { folder: path.clone(), reason };
                std::fs::read_dir(path).map_err(|e| failed(e.to_string()))?;
                let whole = std::path::absolute(path).map_err(|e| failed(e.to_string()))?;
                whole.into_os_string().into_string().map_err(|_| failed("not UTF-8".to_owned()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(paths: Vec<PathBuf>) -> Code {
        let set = WheelSet { generation: "g".into(), wheels: [].into() };
        Code { set, paths, keep: Box::new(()) }
    }

    #[test]
    fn folders_are_told_as_absolute_paths_in_order() {
        let told = code(vec!["src".into(), "tests".into()]).search_path().unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(told, ["src", "tests"].map(|name| here.join(name).display().to_string()));
    }

    #[test]
    fn a_folder_that_is_not_there_or_is_none_is_refused() {
        for path in ["no/such/folder", "Cargo.toml"] {
            let error = code(vec!["src".into(), path.into()]).search_path().unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(std::ffi::OsString::from_vec(vec![0xff]));
        std::fs::create_dir(&path).unwrap();
        let error = code(vec![path]).search_path().unwrap_err();
        assert!(error.to_string().contains("not UTF-8"), "{error}");
    }
}
