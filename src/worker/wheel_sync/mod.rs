//! Keeps a worker's wheels what the registry has for it: the thread `wheels`.
//!
//! An attempt selects, brings what is missing into folders, starts a Python template on them, and only
//! when that is ready do new runs get it; so an attempt that fails changes nothing. It is made when the
//! registry changes, when the interval has passed, and after a failure with growing pauses.

mod registry_offers;
mod status;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, select};

pub(super) use status::Status;

use super::wheels::{
    Choice, Error, Fault, Folders, Generation, Impatience, Interpreter, Patience, Prepared, Python, Refusals,
    Worker, prepare,
};
use crate::bus::{ObjectMeta, ObjectStore, Watch};
use crate::flow::PythonExecutor;
use crate::flow::python::{Code, PythonError};
use crate::model::error::Code as ErrorCode;
use crate::model::limits::WHEEL_LOCK_DEADLINE;
use crate::thread::{self, Service, StopSignal, StopSource};
use crate::worker::health::Health;
use registry_offers::{RegistryOffers, offer};

/// For the interpreter to say which wheels fit it; a cold disk takes seconds.
const INTERPRETER_DEADLINE: Duration = Duration::from_secs(30);
/// Longest pause of a worker after a failed synchronisation of wheels, unless its interval is longer.
const MAX_SYNC_PAUSE: Duration = Duration::from_secs(300);
/// After a change of the registry: several wheels often come together.
const SETTLE: Duration = Duration::from_millis(200);
/// How long an attempt waits for the list of wheels to be current.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// How a worker synchronises.
#[derive(Debug, Clone)]
pub struct WheelSyncSettings {
    /// Where wheels are unpacked.
    pub dir: PathBuf,
    /// Longest time between two looks at the registry.
    pub interval: Duration,
    /// For one wheel, from the first byte that is fetched to the last that is unpacked.
    pub install_timeout: Duration,
    /// How the interpreter is started that wheels have to fit.
    pub python: Python,
    /// Whose runs get them.
    pub executor: PythonExecutor,
}

/// A running synchronisation; dropping it ends it.
///
/// Field order is the shutdown order: the thread ends by `_stop` and is joined, then the watch.
pub(super) struct SyncThread {
    pub status: Status,
    /// Disconnected when the first attempt has ended, well or not.
    tried: StopSignal,
    /// Disconnected when it has ended because no later attempt would go better.
    failed: StopSignal,
    /// Disconnected when runs get wheels.
    ready: StopSignal,
    _thread: Service,
    _watch: Watch,
}

impl SyncThread {
    pub fn start(
        settings: WheelSyncSettings,
        tags: Vec<String>,
        store: ObjectStore,
        health: Arc<Health>,
    ) -> Result<SyncThread, crate::worker::Error> {
        let (try_source, tried) = thread::stop_channel();
        let (ready_source, ready) = thread::stop_channel();
        let (kick, kicked) = bounded(1);
        let offers = RegistryOffers::new(kick);
        let watch = offers.follow(&store).map_err(std::io::Error::other)?;
        let status = Status::enabled();
        health.set_not_ready(Some("the first wheels are not in use yet".to_owned()));
        let (fail_source, failed) = thread::stop_channel();
        let sync = WheelSync {
            settings,
            tags,
            store,
            offers,
            status: status.clone(),
            health,
            disk: None,
            refusals: Refusals::default(),
            current: None,
            ready: Some(ready_source),
        };
        let thread = Service::start("wheels", move |stop| sync.run(stop, &kicked, try_source, fail_source))?;
        Ok(SyncThread { status, tried, failed, ready, _thread: thread, _watch: watch })
    }

    /// Waits until runs get wheels: a job that is taken earlier would not find its code. A worker that could
    /// never get them does not wait. With `once` one attempt has to do. `taken_over` ends it with
    /// who has taken over.
    pub fn wait_ready(&self, once: bool, taken_over: &Receiver<String>, stop: &StopSignal) -> Waited {
        if !thread::is_stopped(&self.ready) {
            log::info!("no job is taken before the first wheels are in use");
        }
        let enough = if once { &self.tried } else { &self.ready };
        // But for the name of who has taken over, all of them end by being disconnected.
        select! {
            recv(enough) -> _ => {}
            recv(self.failed) -> _ => {}
            recv(stop) -> _ => return Waited::Stopped,
            recv(taken_over) -> by => return by.map_or(Waited::Stopped, Waited::TakenOver),
        }
        // First of the two: the end of the thread closes both.
        if !thread::is_stopped(&self.failed) && thread::is_stopped(&self.ready) {
            return Waited::Ready;
        }
        Waited::InVain(self.status.get().last_error.unwrap_or_default())
    }
}

pub(super) enum Waited {
    Ready,
    InVain(String),
    TakenOver(String),
    Stopped,
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the worker is stopping")]
    Stopped,
    #[error("the list of wheels is not current; check that NATS runs at PYOCO_NATS_URL")]
    NoList,
    #[error(transparent)]
    Wheels(Error),
    #[error("new runs keep the wheels that they had: {0}")]
    Python(PythonError),
    #[error("the worker's own code has panicked over the wheels; its log has the place")]
    Panicked,
}

impl From<Error> for SyncError {
    fn from(error: Error) -> Self {
        match error {
            Error::Wheel { fault: Fault::Over(Impatience::Stopped), .. } => SyncError::Stopped,
            other => SyncError::Wheels(other),
        }
    }
}

impl From<PythonError> for SyncError {
    fn from(error: PythonError) -> Self {
        match error {
            PythonError::Stopped => SyncError::Stopped,
            other => SyncError::Python(other),
        }
    }
}

struct WheelSync {
    settings: WheelSyncSettings,
    tags: Vec<String>,
    store: ObjectStore,
    offers: RegistryOffers,
    status: Status,
    health: Arc<Health>,
    /// The interpreter, which is asked once, and the folders for it.
    disk: Option<(Interpreter, Folders)>,
    refusals: Refusals,
    current: Option<Arc<Generation>>,
    /// Dropped when they get something.
    ready: Option<StopSource>,
}

impl WheelSync {
    fn run(mut self, stop: &StopSignal, kicked: &Receiver<()>, tried: StopSource, failed: StopSource) {
        let mut tried = Some(tried);
        let mut failures = 0_u32;
        loop {
            self.status.begin();
            // What is half done goes with its folders; nothing else is changed before the end.
            let tried_now = catch_unwind(AssertUnwindSafe(|| self.synchronise(stop)));
            match tried_now.unwrap_or(Err(SyncError::Panicked)) {
                Ok(()) => failures = 0,
                // What a stop breaks off is no failure.
                Err(_) if thread::is_stopped(stop) => return,
                Err(error) => {
                    failures += 1;
                    let complaint = self.logged_error(&error.to_string());
                    if self.ready.is_some() {
                        self.health.set_not_ready(Some(complaint.clone()));
                    }
                    self.status.fail(complaint);
                    if self.disk.is_none() && failures == 1 {
                        // The interpreter or the folder does not work, and NATS has no part in them.
                        drop(failed);
                        return;
                    }
                }
            }
            tried.take();
            let pause = match failures {
                0 => self.settings.interval,
                more => self.settings.interval * 2_u32.saturating_pow((more - 1).min(16)),
            };
            select! {
                recv(stop) -> _ => return,
                recv(after(pause.min(MAX_SYNC_PAUSE.max(self.settings.interval)))) -> _ => {}
                recv(kicked) -> _ => {
                    failures = 0;
                    select! {
                        recv(stop) -> _ => return,
                        recv(after(SETTLE)) -> _ => {}
                    }
                    // What came meanwhile is seen by this attempt, too.
                    let _ = kicked.try_recv();
                }
            }
        }
    }

    fn synchronise(&mut self, stop: &StopSignal) -> Result<(), SyncError> {
        if self.disk.is_none() {
            self.disk = Some(self.open_folder(stop)?);
            self.resume_last_generation(stop)?;
        }
        if let Some((_, folders)) = &self.disk {
            folders.restore()?;
        }
        let metas = self.offers.now(LIST_PATIENCE).ok_or(SyncError::NoList)?;
        let Prepared { generation, selection } = self.prepare_generation(&metas, stop)?;
        let before = self.current.clone();
        match before.as_ref().filter(|now| now.set == generation.set && now.is_there()) {
            // The same bytes that were uploaded anew need no other template, only another note.
            Some(now) if now.installed != generation.installed => self.set_current(Arc::new(generation)),
            Some(_) => {}
            None => self.start_python_with(generation, stop)?,
        }
        let problem = self.refusals.first().map(|why| self.logged_error(&why));
        self.status.succeed(&selection, before.as_deref(), self.current.as_deref(), problem);
        drop(before);
        self.remove_unused_folders();
        Ok(())
    }

    fn open_folder(&self, stop: &StopSignal) -> Result<(Interpreter, Folders), SyncError> {
        let patience = Patience::new(INTERPRETER_DEADLINE, stop);
        let asked = Interpreter::ask(&self.settings.python, Path::new("/"), &patience);
        let interpreter = match asked {
            Err(_) if thread::is_stopped(stop) => return Err(SyncError::Stopped),
            other => other?,
        };
        let folders = Folders::open(&self.settings.dir, &self.tags, &interpreter, stop)?;
        log::info!(python = interpreter.version.as_str(), dir = folders.path().display().to_string();
            "keeping wheels for this Python");
        Ok((interpreter, folders))
    }

    /// Goes on with what was in use before the start. When that does not work any more, the registry
    /// has the word.
    fn resume_last_generation(&mut self, stop: &StopSignal) -> Result<(), SyncError> {
        let Some((_, folders)) = &self.disk else { return Ok(()) };
        let patience = Patience::new(WHEEL_LOCK_DEADLINE, stop);
        let last = Generation::last(folders, &patience);
        let taken = last.map_err(SyncError::from).and_then(|last| match last {
            Some(last) if !last.paths.is_empty() => self.start_python_with(last, stop),
            _ => Ok(()),
        });
        if let Some(current) = &self.current {
            self.status.resume(current);
        }
        match taken {
            Err(SyncError::Stopped) => Err(SyncError::Stopped),
            Err(error) => {
                log::warn!(reason = error.to_string(); "cannot go on with the wheels of the last start");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Everything that is meant for this worker and fits, unpacked.
    fn prepare_generation(&mut self, metas: &[ObjectMeta], stop: &StopSignal) -> Result<Prepared, SyncError> {
        let Some((interpreter, folders)) = &self.disk else { return Err(SyncError::Stopped) };
        let worker = Worker {
            folders,
            tags: &self.tags,
            python: &self.settings.python,
            interpreter,
            timeout: self.settings.install_timeout,
            stop,
        };
        let offers: Vec<_> = metas.iter().map(offer).collect();
        let by_nuid: HashMap<&str, &ObjectMeta> =
            metas.iter().map(|meta| (meta.nuid.as_str(), meta)).collect();
        let store = &self.store;
        let fetch = |choice: &Choice, path: &Path, patience: &Patience<'_>| {
            let meta = by_nuid.get(choice.offer.nuid.as_str()).ok_or("the registry has lost it")?;
            let mut file = File::create(path).map_err(|e| e.to_string())?;
            let mut write = |bytes: &[u8]| file.write_all(bytes);
            store.read(meta, &mut write, &|| patience.check().is_err()).map_err(|e| e.to_string())
        };
        Ok(prepare(&worker, &offers, &mut self.refusals, fetch)?)
    }

    /// Gives new runs a generation; those that run keep theirs.
    fn start_python_with(&mut self, generation: Generation, stop: &StopSignal) -> Result<(), SyncError> {
        let generation = Arc::new(generation);
        let code = Code {
            set: generation.set.clone(),
            paths: generation.paths.clone(),
            keep: Box::new(Arc::clone(&generation)),
        };
        self.settings.executor.use_code_unless_stopped(Arc::new(code), stop)?;
        log::info!(generation = generation.set.generation.as_str(), wheels = generation.paths.len();
            "new runs get other wheels");
        self.set_current(generation);
        self.health.set_not_ready(None);
        self.ready.take();
        Ok(())
    }

    fn set_current(&mut self, generation: Arc<Generation>) {
        let Some((_, folders)) = &self.disk else { return };
        if let Err(e) = generation.remember(folders) {
            log::warn!(reason = e.to_string(); "cannot note which wheels are in use");
        }
        self.current = Some(generation);
    }

    /// Removes what nobody uses any more; a run that has ended since the last look may have been the last.
    fn remove_unused_folders(&self) {
        let Some((_, folders)) = &self.disk else { return };
        match folders.collect() {
            Ok(0) => {}
            Ok(count) => log::info!(count = count; "removed folders of wheels that nobody uses"),
            Err(e) => log::warn!(reason = e.to_string(); "cannot look for folders of old wheels"),
        }
    }

    /// What is wrong, as the record has it. It goes to the log when it is news: an attempt every few seconds
    /// says the same for hours.
    fn logged_error(&self, why: &str) -> String {
        let code = ErrorCode::WheelSyncFailed;
        let complaint = format!("{}: {why}", code.err_id());
        if self.status.get().last_error.as_ref() != Some(&complaint) {
            log::error!(err_id = code.err_id(), msg_id = code.msg_id(), reason = why;
                "cannot synchronise the wheels; new runs go on with those that were there");
        }
        complaint
    }
}
