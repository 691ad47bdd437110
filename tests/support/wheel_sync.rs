//! A worker's folder of wheels, and a registry that is a list of bytes.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pyoco_server::thread::{self, StopSignal, StopSource};
use pyoco_server::worker::wheels::{
    Choice, Error, Folders, Generation, Interpreter, Offer, Patience, Prepared, Python, Refusals, Worker,
    prepare,
};

use super::python::V08;
use super::wheel::{WheelFile, sha256_hex};

/// For one wheel; far more than any takes.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct WheelSync {
    pub folder: tempfile::TempDir,
    pub python: Python,
    pub interpreter: Interpreter,
    pub tags: Vec<String>,
    pub timeout: Duration,
    pub refusals: Refusals,
    /// How often a wheel was fetched.
    pub fetched: usize,
    stop: Option<StopSource>,
    signal: StopSignal,
}

impl WheelSync {
    pub fn new() -> WheelSync {
        let folder = tempfile::tempdir().unwrap();
        let (stop, signal) = thread::stop_channel();
        let python = python();
        let interpreter = Interpreter::ask(&python, folder.path(), &Patience::new(TIMEOUT, &signal)).unwrap();
        WheelSync {
            folder,
            python,
            interpreter,
            tags: vec!["cpu".to_owned()],
            timeout: TIMEOUT,
            refusals: Refusals::default(),
            fetched: 0,
            stop: Some(stop),
            signal,
        }
    }

    /// Another worker with the same folder of wheels.
    pub fn in_folder(root: &Path) -> WheelSync {
        let worker = WheelSync::new();
        fs::create_dir_all(root).unwrap();
        std::os::unix::fs::symlink(root, worker.root()).unwrap();
        worker
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("wheels")
    }

    pub fn folders(&self) -> Folders {
        Folders::open(&self.root(), &self.tags, &self.interpreter, &self.signal).unwrap()
    }

    pub fn patience(&self) -> Patience<'_> {
        Patience::new(TIMEOUT, &self.signal)
    }

    /// Tells it to end; it can be used again after [`WheelSync::restart`].
    pub fn stop(&mut self) {
        self.stop = None;
    }

    pub fn restart(&mut self) {
        let (stop, signal) = thread::stop_channel();
        (self.stop, self.signal) = (Some(stop), signal);
    }

    /// What a worker makes of a registry with these wheels.
    pub fn sync(&mut self, wheels: &[WheelFile]) -> Result<Prepared, Error> {
        self.sync_in(&self.folders(), wheels)
    }

    /// The same by a worker that has had its folder open before.
    pub fn sync_in(&mut self, folders: &Folders, wheels: &[WheelFile]) -> Result<Prepared, Error> {
        let files: Vec<_> = wheels.iter().map(|w| (w.file_name(), w.build())).collect();
        self.sync_files_in(folders, &files)
    }

    pub fn sync_files(&mut self, files: &[(String, Vec<u8>)]) -> Result<Prepared, Error> {
        self.sync_files_in(&self.folders(), files)
    }

    fn sync_files_in(&mut self, folders: &Folders, files: &[(String, Vec<u8>)]) -> Result<Prepared, Error> {
        let offers: Vec<Offer> = files.iter().map(|(name, bytes)| offer(name, bytes)).collect();
        self.sync_offers_in(folders, &offers, |choice, to| {
            let bytes = files.iter().find(|(name, _)| *name == choice.offer.name);
            fs::write(to, &bytes.unwrap().1).map_err(|e| e.to_string())
        })
    }

    pub fn sync_offers(
        &mut self,
        offers: &[Offer],
        fetch: impl Fn(&Choice, &Path) -> Result<(), String>,
    ) -> Result<Prepared, Error> {
        self.sync_offers_in(&self.folders(), offers, fetch)
    }

    fn sync_offers_in(
        &mut self,
        folders: &Folders,
        offers: &[Offer],
        fetch: impl Fn(&Choice, &Path) -> Result<(), String>,
    ) -> Result<Prepared, Error> {
        let fetched = Cell::new(0);
        let worker = Worker {
            folders,
            tags: &self.tags,
            python: &self.python,
            interpreter: &self.interpreter,
            timeout: self.timeout,
            stop: &self.signal,
        };
        let prepared = prepare(&worker, offers, &mut self.refusals, |choice, to, _| {
            fetched.set(fetched.get() + 1);
            fetch(choice, to)
        });
        self.fetched += fetched.get();
        prepared
    }

    /// The one folder that comes of a good wheel.
    pub fn unpacked(&mut self, wheel: &WheelFile) -> (PathBuf, Generation) {
        let prepared = self.sync(std::slice::from_ref(wheel)).unwrap();
        assert_eq!(prepared.selection.skipped, []);
        (prepared.generation.paths[0].clone(), prepared.generation)
    }

    /// Why a wheel is refused; nothing of it is left then.
    pub fn refusal(&mut self, name: &str, bytes: Vec<u8>) -> String {
        let prepared = self.sync_files(&[(name.to_owned(), bytes)]).unwrap();
        assert!(prepared.generation.paths.is_empty(), "{name} was taken");
        let [skipped] = prepared.selection.skipped.as_slice() else { panic!("{:?}", prepared.selection) };
        assert_eq!(self.names(), [] as [String; 0], "something is left of {name}");
        skipped.reason.clone()
    }

    /// What is in the folder of wheels, locks and lists left out.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter(|name| !name.ends_with(".lock") && !name.starts_with(".installed")).collect();
        names.sort();
        names
    }

    /// What Python prints that finds its modules below these folders alone.
    pub fn python(&self, paths: &[PathBuf], script: &str) -> String {
        let out = Command::new(&self.python.program)
            .args(["-I", "-B", "-c"])
            .arg(format!("import sys; sys.path[:0] = sys.argv[1:]\n{script}"))
            .args(paths)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for WheelSync {
    fn drop(&mut self) {
        // Nobody but root could remove what nobody may write to.
        make_writable(self.folder.path());
    }
}

/// Undoes the protection of unpacked wheels.
pub fn make_writable(folder: &Path) {
    let _ = Command::new("chmod").args(["-R", "u+w"]).arg(folder).status();
}

pub fn python() -> Python {
    let program = V08.path().to_str().unwrap().to_owned();
    Python { program, environment: std::env::vars_os().collect() }
}

pub fn offer(name: &str, bytes: &[u8]) -> Offer {
    Offer {
        name: name.to_owned(),
        nuid: "nuid".to_owned(),
        size: bytes.len() as u64,
        sha256: sha256_hex(bytes),
        ..Offer::default()
    }
}
