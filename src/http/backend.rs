//! The tiny_http server, its handler threads, and their replacement when tiny_http gives up.
//!
//! tiny_http's accept loop ends for good at its first error (no descriptors, no thread). What was
//! accepted before lives on, so a *generation* (one server, its threads) is kept for as long as
//! anybody is connected to it, and a new one takes the new connections.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use tiny_http::{Listener, Server};

use super::serve::Service;
use crate::http::edge::Link;
use crate::model::limits::STOP_SLACK;
use crate::thread::{Stack, ThreadSet};
use crate::thread::{StopSignal, StopSource, stop_channel};

/// Descriptors that must be free before tiny_http is asked to accept: it does not survive having
/// none. One connection takes three; the rest is for what else happens at that moment.
const HEADROOM: usize = 8;
/// Generations whose threads may exist at once; there is one unless tiny_http gives up often.
const MAX_GENERATIONS: usize = 8;
/// Wait between attempts to take up a port again.
const RETRY: Duration = Duration::from_secs(1);
/// Longest path of the directory: the name of a socket in it still fits into the 104 bytes that
/// the strictest system takes.
const MAX_DIRECTORY_BYTES: usize = 64;

pub(super) struct Backend {
    service: Arc<Service>,
    /// Handler threads of one generation.
    threads: usize,
    handlers: ThreadSet,
    place: Place,
    stop: Mutex<Option<StopSource>>,
    stopped: StopSignal,
}

enum Place {
    /// Private sockets in a directory of our own.
    Directory { path: PathBuf, current: Mutex<Option<Arc<Generation>>> },
    /// The public port. Old generations stay, since nobody can count their connections.
    Port { listener: TcpListener, generations: Mutex<Vec<Generation>> },
}

/// A tiny_http server with its handler threads; dropping it ends them.
struct Generation {
    server: Arc<Server>,
    /// Where it listens, unless that is the public port.
    path: PathBuf,
    threads: usize,
    /// Set before the threads are unblocked; each looks at it then.
    retired: Arc<AtomicBool>,
}

impl Backend {
    /// Serves a private socket; the edge connects with [`Backend::connect`].
    ///
    /// # Errors
    /// When no directory, socket or thread can be had.
    pub fn behind_edge(service: Service, threads: usize) -> io::Result<Arc<Backend>> {
        let place = Place::Directory { path: private_directory()?, current: Mutex::new(None) };
        let backend = Arc::new(Backend::new(service, threads, place)?);
        backend.renew(None)?;
        Ok(backend)
    }

    /// Serves a public port without an edge.
    ///
    /// # Errors
    /// When a descriptor or a thread cannot be had.
    pub fn on_port(
        service: Service,
        threads: usize,
        listener: TcpListener,
    ) -> io::Result<Arc<Backend>> {
        let place = Place::Port { listener, generations: Mutex::default() };
        let backend = Arc::new(Backend::new(service, threads, place)?);
        backend.take_port()?;
        Ok(backend)
    }

    fn new(service: Service, threads: usize, place: Place) -> io::Result<Backend> {
        let (stop, stopped) = stop_channel();
        let threads = threads.max(1);
        Ok(Backend {
            service: Arc::new(service),
            threads,
            handlers: ThreadSet::new("http", threads * MAX_GENERATIONS, Stack::Full)?,
            place,
            stop: Mutex::new(Some(stop)),
            stopped,
        })
    }

    /// Opens a connection to the current generation, or to a new one if that no longer accepts.
    ///
    /// # Errors
    /// When descriptors are short, or the system refuses otherwise.
    pub fn connect(self: &Arc<Backend>) -> io::Result<Link> {
        check_headroom()?;
        let Place::Directory { current, .. } = &self.place else {
            return Err(ErrorKind::Unsupported.into());
        };
        let Some(generation) = lock(current).clone() else {
            return Err(ErrorKind::NotConnected.into());
        };
        match UnixStream::connect(&generation.path) {
            Ok(stream) => Ok(Link { stream, keep: Box::new(generation) }),
            // Refused: its accept loop has ended. Not found: somebody tidied up.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
            {
                log::error!(error:% = error; "the HTTP server no longer accepts; starting it anew");
                let generation = self.renew(Some(&generation))?;
                let stream = UnixStream::connect(&generation.path)?;
                Ok(Link { stream, keep: Box::new(generation) })
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the threads and removes the directory; `false` when a thread did not end in time and
    /// was left behind. Nobody may be connected any more.
    pub fn stop(&self, until: Instant) -> bool {
        lock(&self.stop).take();
        match &self.place {
            Place::Directory { current, .. } => drop(lock(current).take()),
            Place::Port { generations, .. } => lock(generations).clear(),
        }
        let until = until.max(Instant::now()) + STOP_SLACK;
        let handlers_ended = self.handlers.wait_empty(until);
        if !handlers_ended {
            log::error!("a handler does not return; its thread is left behind");
            self.handlers.abandon();
        }
        let streams_ended = self.service.streams.wait_empty(until);
        if !streams_ended {
            log::error!("a streaming answer does not end; its thread is left behind");
            self.service.streams.abandon();
        }
        let uploads_ended = self.service.uploads.wait_empty(until);
        if !uploads_ended {
            log::error!("the handler of an upload does not return; its thread is left behind");
            self.service.uploads.abandon();
        }
        handlers_ended && streams_ended && uploads_ended
    }

    /// Starts a generation on a new socket in place of `old`, unless somebody else has done so.
    fn renew(self: &Arc<Backend>, old: Option<&Arc<Generation>>) -> io::Result<Arc<Generation>> {
        let Place::Directory { path, current } = &self.place else {
            return Err(ErrorKind::Unsupported.into());
        };
        let mut current = lock(current);
        match (&*current, old) {
            (Some(now), Some(old)) if !Arc::ptr_eq(now, old) => return Ok(Arc::clone(now)),
            (None, Some(_)) => return Err(ErrorKind::NotConnected.into()),
            _ => {}
        }
        // It is gone only if somebody tidied up.
        if !path.is_dir() {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        let socket = path.join(format!("{}.sock", uuid::Uuid::new_v4().simple()));
        let listener = UnixListener::bind(&socket)?;
        let generation = Arc::new(self.start(listener.into(), socket)?);
        *current = Some(Arc::clone(&generation));
        Ok(generation)
    }

    /// Starts a generation on the public port.
    fn take_port(self: &Arc<Backend>) -> io::Result<()> {
        let Place::Port { listener, generations } = &self.place else {
            return Err(ErrorKind::Unsupported.into());
        };
        check_headroom()?;
        let generation = self.start(listener.try_clone()?.into(), PathBuf::new())?;
        lock(generations).push(generation);
        Ok(())
    }

    fn start(self: &Arc<Backend>, listener: Listener, path: PathBuf) -> io::Result<Generation> {
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        let generation = Generation {
            server: Arc::new(server),
            path,
            threads: self.threads,
            retired: Arc::default(),
        };
        for _ in 0..self.threads {
            let server = Arc::clone(&generation.server);
            let retired = Arc::clone(&generation.retired);
            let service = Arc::clone(&self.service);
            let backend = Arc::downgrade(self);
            let lost = move || {
                if let Some(backend) = backend.upgrade() {
                    backend.accepting_lost();
                }
            };
            self.handlers
                .spawn(move || receive(&server, &retired, &service, &lost))
                .map_err(io::Error::other)?;
        }
        Ok(generation)
    }

    /// tiny_http has stopped accepting. A private socket is replaced when the edge next needs it;
    /// the public port at once, or as soon as there are descriptors again.
    fn accepting_lost(self: &Arc<Backend>) {
        if matches!(self.place, Place::Directory { .. }) {
            return;
        }
        while let Err(error) = self.take_port() {
            log::error!(error:% = error; "cannot take up the port again");
            select! {
                recv(self.stopped) -> _ => return,
                default(RETRY) => {}
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if lock(&self.stop).is_some() {
            self.stop(Instant::now());
        }
        // Last: each server, as it goes with its last thread, wakes its accept loop through its
        // socket.
        if let Place::Directory { path, .. } = &self.place {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.retired.store(true, Ordering::SeqCst);
        for _ in 0..self.threads {
            self.server.unblock();
        }
    }
}

/// The life of a handler thread.
fn receive(server: &Server, retired: &AtomicBool, service: &Service, lost: &dyn Fn()) {
    loop {
        match server.recv() {
            Ok(request) => service.serve(request),
            Err(_) if retired.load(Ordering::SeqCst) => return,
            Err(error) => {
                log::error!(error:% = error; "the HTTP server has stopped accepting");
                lost();
            }
        }
    }
}

/// Fails when descriptors are so short that tiny_http might not live through a connection.
fn check_headroom() -> io::Result<()> {
    (0..HEADROOM).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<_>>>().map(drop)
}

/// A new directory that only this user can enter, at a path short enough for a socket.
fn private_directory() -> io::Result<PathBuf> {
    let name = format!("pyoco-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut last = io::Error::new(ErrorKind::NotFound, "no directory for a socket");
    for parent in runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]) {
        let path = parent.join(&name);
        if !path.is_absolute() || path.as_os_str().len() > MAX_DIRECTORY_BYTES {
            continue;
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
