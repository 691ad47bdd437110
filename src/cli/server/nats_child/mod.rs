//! The local nats-server of `--with-nats`: started, watched, started again, and never left behind.
//!
//! Invariants. When [`NatsChild::start`] returns, JetStream answers and the server at the port is
//! ours. It runs until the value is dropped; when it dies before that it is started again on the
//! same port and store. It does not outlive this process, however this process ends ([`instance`]
//! says how). One store directory has one server: a lock says so, and the lock is held by the
//! server itself. This module knows nothing of what is kept in the store.

mod binary;
mod config;
mod error;
mod instance;
mod output;
mod supervise;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use error::NatsChildError;

use crate::model::limits::{CHILD_POLL, NATS_STOP_DEADLINE};
use crate::thread::{self, Service};
use instance::Launch;

#[derive(Debug, Clone)]
pub struct NatsChildSettings {
    /// The program; `None` means `PYOCO_NATS_SERVER_BIN`, then the first on PATH.
    pub bin: Option<PathBuf>,
    /// Address to listen on for clients. Anything but loopback opens an unprotected NATS to others.
    pub listen_host: IpAddr,
    pub client_port: u16,
    /// Port of the monitoring pages, always on loopback; `None` leaves them out.
    pub http_port: Option<u16>,
    /// Where configuration and JetStream data live; created when missing, kept when we end.
    pub store_dir: PathBuf,
    /// `always`, or a duration such as `10s`: how long acknowledged data may wait for the disk.
    pub sync_interval: String,
}

#[derive(Debug)]
pub struct NatsChild {
    /// Stops the server (SIGTERM, then SIGKILL) before it ends.
    supervisor: Service,
    settings: NatsChildSettings,
}

impl NatsChild {
    /// Starts the server and waits until JetStream answers. Nothing keeps running after an error.
    pub fn start(settings: NatsChildSettings) -> Result<NatsChild, NatsChildError> {
        let program = binary::find(settings.bin.as_deref())?;
        let config = config::text(&settings, &server_name())?;
        // Absolute, so that the file means the same in any working directory.
        let store = created(&settings.store_dir)?;
        let lock = locked(&store)?;
        for (address, flag) in addresses(&settings) {
            assert_free(address, flag)?;
        }
        let config_path = store.join(config::FILE_NAME);
        fs::write(&config_path, config)
            .map_err(|source| NatsChildError::Store { path: config_path.clone(), source })?;
        if !settings.listen_host.is_loopback() {
            log::warn!(
                "the local nats-server listens on {} without a password; whoever reaches it may \
                 run anything on the workers",
                settings.listen_host
            );
        }
        let launch = Launch {
            program,
            config: config_path,
            lock,
            address: reachable(settings.listen_host, settings.client_port),
            server_name: server_name(),
        };
        // Nobody can stop it before it is there.
        let (_source, unstopped) = thread::stop_channel();
        let first = launch.start(&unstopped)?;
        let supervisor = Service::start("nats-supervise", move |stop| {
            supervise::run(&launch, first, stop);
        })
        .map_err(|source| NatsChildError::Thread { source })?;
        Ok(NatsChild { supervisor, settings })
    }

    /// `nats://<host>:<port>` as this machine reaches it.
    pub fn url(&self) -> String {
        format!("nats://{}", reachable(self.settings.listen_host, self.settings.client_port))
    }

    /// Stops the server and waits for its end; the same as dropping the value.
    pub fn stop(self) {
        self.supervisor.stop();
    }
}

/// A name that distinguishes our server at the port from another one.
fn server_name() -> String {
    format!("pyoco-local-{}", std::process::id())
}

fn created(store: &Path) -> Result<PathBuf, NatsChildError> {
    fs::create_dir_all(store)
        .and_then(|()| store.canonicalize())
        .map_err(|source| NatsChildError::Store { path: store.to_owned(), source })
}

/// Takes the lock of the store. Every process of ours that uses the store holds the same open
/// file, the server too, so the lock is free only when all of them are gone.
fn locked(store: &Path) -> Result<File, NatsChildError> {
    let path = store.join("lock");
    let failed = |source: io::Error| NatsChildError::Store { path: path.clone(), source };
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
    let end = Instant::now() + NATS_STOP_DEADLINE + NATS_STOP_DEADLINE / 2;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
            Err(fs::TryLockError::WouldBlock) => {
                let holder = holder_of(&mut file);
                // A dead holder's server is about to end; a living holder keeps its server.
                let ending = holder.is_some_and(|pid| !is_alive(pid));
                if !ending || Instant::now() > end {
                    return Err(NatsChildError::StoreInUse { store: store.to_owned(), holder });
                }
                // The kernel offers no lock with a deadline.
                std::thread::sleep(CHILD_POLL);
            }
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

fn holder_of(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.take(32).read_to_string(&mut text)).ok()?;
    text.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn addresses(settings: &NatsChildSettings) -> Vec<(SocketAddr, &'static str)> {
    let client = SocketAddr::new(settings.listen_host, settings.client_port);
    let mut all = vec![(client, "--nats-client-port")];
    if let Some(port) = settings.http_port {
        all.push((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "--nats-http-port"));
    }
    all
}

/// Fails now with a clear text rather than later with the server's own.
fn assert_free(address: SocketAddr, flag: &'static str) -> Result<(), NatsChildError> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(NatsChildError::PortInUse { address, flag })
        }
        Err(source) => Err(NatsChildError::CannotListen { address, flag, source }),
    }
}

/// The unspecified address is one to listen on, not one to connect to.
fn reachable(host: IpAddr, port: u16) -> SocketAddr {
    let host = match host {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    SocketAddr::new(host, port)
}
