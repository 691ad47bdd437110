//! Making one connection to one server, with the deadlines that the crate lacks.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::bus::Error;
use crate::config::NatsConfig;

/// For the TCP handshake and the server's first line.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_INFO_BYTES: u64 = 64 * 1024;
/// Between two attempts of the crate to reconnect.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
const RECONNECT_DELAY_STEP: Duration = Duration::from_millis(20);

/// What a server says of itself before anything else.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerInfo {
    #[serde(default)]
    pub server_id: String,
    #[serde(default)]
    pub server_name: String,
    /// Name of its cluster; empty for a server that has none.
    #[serde(default)]
    pub cluster: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub max_payload: usize,
    #[serde(default)]
    pub tls_required: bool,
    /// Addresses of the other servers of its cluster, `host:port`.
    #[serde(default)]
    pub connect_urls: Vec<String>,
}

/// The socket of one connection of the crate. When it is lost, the connection is given up: the crate would
/// reconnect to a server that it does not name, and hang when that one is frozen.
pub(crate) struct Socket {
    up: AtomicBool,
    held: Mutex<Option<Held>>,
    /// Wakes the watchdog; one pending wake is enough.
    lost: Sender<()>,
}

/// Field order is the order of the drop: the connection tells the crate's threads to end, and the
/// subscriptions wake the one that would sleep for two minutes more.
pub(crate) struct Held {
    pub connection: nats::Connection,
    pub replies: nats::Subscription,
    /// Of pulls from work queues; `None` when they were ended.
    pub pulls: Option<nats::Subscription>,
}

impl Socket {
    pub(crate) fn new(lost: Sender<()>) -> Socket {
        Socket { up: AtomicBool::new(true), held: Mutex::new(None), lost }
    }

    pub(crate) fn hold(&self, held: Held) {
        *self.held.lock() = Some(held);
    }

    pub(crate) fn take(&self) -> Option<Held> {
        self.held.lock().take()
    }

    pub(crate) fn take_pulls(&self) -> Option<nats::Subscription> {
        self.held.lock().as_mut().and_then(|held| held.pulls.take())
    }

    /// Whether it stands; it may be half-open.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    pub(crate) fn connection(&self) -> Option<nats::Connection> {
        self.held.lock().as_ref().map(|held| held.connection.clone())
    }

    /// Called by the crate on its own thread, under a lock of its own.
    fn lose(&self) {
        self.up.store(false, Ordering::SeqCst);
        let _ = self.lost.try_send(());
        drop(self.take());
    }
}

/// The servers of a URL list, and whether the settings can work at all.
pub(crate) fn servers(nats: &NatsConfig) -> Result<Vec<nats::ServerAddress>, Error> {
    let ways =
        [nats.creds.is_some(), nats.user.is_some(), nats.token.is_some(), nats.nkey_seed_file.is_some()];
    if ways.iter().filter(|set| **set).count() > 1 {
        return Err(Error::Setup(
            "set only one of PYOCO_NATS_CREDS, PYOCO_NATS_USER, PYOCO_NATS_TOKEN and \
             PYOCO_NATS_NKEY_SEED_FILE"
                .into(),
        ));
    }
    nkey(nats).map_err(Error::Setup)?;
    let urls: Vec<&str> = nats.url.split(',').map(str::trim).filter(|u| !u.is_empty()).collect();
    if urls.is_empty() {
        return Err(Error::Setup("PYOCO_NATS_URL names no server".into()));
    }
    // The crate's message would repeat the URL, and with it a password.
    urls.iter()
        .map(|url| {
            url.parse().map_err(|_| {
                let shown = url.rsplit('@').next().unwrap_or_default();
                Error::Setup(format!("cannot read the NATS URL `…{shown}`"))
            })
        })
        .collect()
}

/// Asks a server for its first line. A silent listener would hold the crate's connect for ever.
pub(crate) fn greeting(address: &SocketAddr) -> Result<ServerInfo, String> {
    greeting_within(address, GREETING_TIMEOUT)
}

/// The same with a limit for the TCP handshake, and the same one for the line.
pub(crate) fn greeting_within(address: &SocketAddr, limit: Duration) -> Result<ServerInfo, String> {
    let stream = TcpStream::connect_timeout(address, limit).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(limit)).map_err(|e| e.to_string())?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_INFO_BYTES)).read_line(&mut line).map_err(|e| {
        format!(
            "no greeting ({e}); a server with `handshake_first: true` in its tls block sends none: set \
             `handshake_first: auto` there"
        )
    })?;
    let json = line.strip_prefix("INFO ").ok_or("this is not a NATS server")?;
    serde_json::from_str(json).map_err(|e| format!("unreadable greeting: {e}"))
}

/// Call [`greeting`] first. Blocks for as long as the server takes to answer a PING.
pub(crate) fn connect(
    nats: &NatsConfig,
    server: nats::ServerAddress,
    name: &str,
    socket: &Arc<Socket>,
) -> Result<nats::Connection, String> {
    let options = match (&nats.creds, &nats.user, &nats.token, nkey(nats)?) {
        (Some(creds), ..) => nats::Options::with_credentials(creds),
        (_, Some(user), ..) => {
            nats::Options::with_user_pass(user, nats.password.as_deref().unwrap_or_default())
        }
        (_, _, Some(token), _) => nats::Options::with_token(token),
        (_, _, _, Some(key)) => {
            // A signature fails only without a seed, and this pair was made from one.
            nats::Options::with_nkey(&key.public_key(), move |nonce| key.sign(nonce).unwrap_or_default())
        }
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
    let losing = socket.clone();
    options
        .disconnect_callback(move || losing.lose())
        .error_callback(|error| log::warn!(error = error.to_string(); "NATS reports an error"))
        .connect(server)
        .map_err(|e| e.to_string())
}

/// The key pair of the seed file; `None` when none is set.
fn nkey(nats: &NatsConfig) -> Result<Option<nkeys::KeyPair>, String> {
    let Some(path) = &nats.nkey_seed_file else { return Ok(None) };
    let told = |problem: String| format!("cannot use the NKey seed file {}: {problem}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| told(e.to_string()))?;
    let seed = text.split_whitespace().find(|word| word.starts_with("SU"));
    let seed = seed.ok_or_else(|| told("it holds no seed of a user, which begins with `SU`".into()))?;
    let pair = nkeys::KeyPair::from_seed(seed).map_err(|_| told("its seed cannot be read".into()))?;
    Ok(Some(pair))
}

/// Sleeps by itself: the crate skips its own sleep when a name does not resolve, and would spin. Only a
/// connection that was lost while somebody still used it reconnects, and then it closes.
fn reconnect_delay(attempt: usize) -> Duration {
    if attempt > 0 {
        let factor = u32::try_from(attempt).unwrap_or(u32::MAX);
        std::thread::sleep(RECONNECT_DELAY_STEP.saturating_mul(factor).min(RECONNECT_DELAY_MAX));
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_sends_no_greeting_is_told_with_the_way_out() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let problem = greeting_within(&address, Duration::from_millis(50)).unwrap_err();
        assert!(problem.contains("handshake_first: auto"), "{problem}");
    }
}
