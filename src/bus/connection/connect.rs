//! Making one connection, with the deadlines that the crate lacks.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use serde::Deserialize;

use crate::bus::Error;
use crate::config::NatsConfig;

/// For the TCP handshake and the server's first line.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_INFO_BYTES: u64 = 64 * 1024;
/// Between two attempts of the crate to reconnect.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
const RECONNECT_DELAY_STEP: Duration = Duration::from_millis(20);

/// What a server says of itself before anything else.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerInfo {
    #[serde(default)]
    pub server_name: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub max_payload: usize,
}

/// What the crate's callbacks may touch: they run under a lock of the crate.
#[derive(Debug)]
pub(crate) struct Signals {
    pub up: AtomicBool,
    pub epoch: AtomicU64,
    /// Wakes the dispatcher; one pending wake is enough.
    pub changed: Sender<()>,
}

impl Signals {
    fn change(&self, up: bool) {
        // In this order: whoever sees the new socket sees its epoch too.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.up.store(up, Ordering::SeqCst);
        match self.changed.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// The servers of a URL list, and whether the settings can work at all.
pub(crate) fn servers(nats: &NatsConfig) -> Result<Vec<nats::ServerAddress>, Error> {
    let ways = [nats.creds.is_some(), nats.user.is_some(), nats.token.is_some()];
    if ways.iter().filter(|set| **set).count() > 1 {
        return Err(Error::Setup(
            "set only one of PYOCO_NATS_CREDS, PYOCO_NATS_USER and PYOCO_NATS_TOKEN".into(),
        ));
    }
    let urls: Vec<&str> = nats.url.split(',').map(str::trim).filter(|u| !u.is_empty()).collect();
    if urls.is_empty() {
        return Err(Error::Setup("PYOCO_NATS_URL names no server".into()));
    }
    // The crate's message would repeat the URL, and with it a password.
    urls.iter()
        .map(|url| {
            url.parse().map_err(|_| {
                let shown = nats.url.rsplit('@').next().unwrap_or_default();
                Error::Setup(format!("cannot read the NATS URL `…{shown}`"))
            })
        })
        .collect()
}

/// Asks each server for its first line; the first that answers wins. A silent listener would hold the
/// crate's connect for ever.
pub(crate) fn probe(servers: &[nats::ServerAddress]) -> Result<ServerInfo, String> {
    let mut last = "no address".to_owned();
    for server in servers {
        let addresses = match (server.host(), server.port()).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(e) => {
                last = format!("cannot resolve {}: {e}", server.host());
                continue;
            }
        };
        for address in addresses {
            match first_line(&address) {
                Ok(info) => return Ok(info),
                Err(e) => last = format!("{address}: {e}"),
            }
        }
    }
    Err(last)
}

/// Call [`probe`] first. Blocks for as long as the server takes to answer a PING.
pub(crate) fn connect(
    nats: &NatsConfig,
    servers: Vec<nats::ServerAddress>,
    name: &str,
    signals: &Arc<Signals>,
) -> std::io::Result<nats::Connection> {
    let options = match (&nats.creds, &nats.user, &nats.token) {
        (Some(creds), _, _) => nats::Options::with_credentials(creds),
        (_, Some(user), _) => {
            nats::Options::with_user_pass(user, nats.password.as_deref().unwrap_or_default())
        }
        (_, _, Some(token)) => nats::Options::with_token(token),
        _ => nats::Options::new(),
    };
    let mut options = options
        .with_name(name)
        .max_reconnects(None)
        // A request whose caller has long failed must not be replayed.
        .reconnect_buffer_size(0)
        .reconnect_delay_callback(reconnect_delay);
    if let Some(ca) = &nats.tls_ca {
        options = options.add_root_certificate(ca);
    }
    if let (Some(cert), Some(key)) = (&nats.tls_cert, &nats.tls_key) {
        options = options.client_cert(cert, key);
    }
    let (down, up) = (signals.clone(), signals.clone());
    options
        .disconnect_callback(move || down.change(false))
        .reconnect_callback(move || up.change(true))
        .error_callback(|error| log::warn!(error = error.to_string(); "NATS reports an error"))
        .connect(servers)
}

/// Sleeps by itself: the crate skips its own sleep when a name does not resolve, and would spin.
fn reconnect_delay(attempt: usize) -> Duration {
    if attempt > 0 {
        let factor = u32::try_from(attempt).unwrap_or(u32::MAX);
        std::thread::sleep(RECONNECT_DELAY_STEP.saturating_mul(factor).min(RECONNECT_DELAY_MAX));
    }
    Duration::ZERO
}

fn first_line(address: &std::net::SocketAddr) -> Result<ServerInfo, String> {
    let stream = TcpStream::connect_timeout(address, PROBE_TIMEOUT).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT)).map_err(|e| e.to_string())?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_INFO_BYTES))
        .read_line(&mut line)
        .map_err(|e| format!("no greeting: {e}"))?;
    let json = line.strip_prefix("INFO ").ok_or("this is not a NATS server")?;
    serde_json::from_str(json).map_err(|e| format!("unreadable greeting: {e}"))
}
