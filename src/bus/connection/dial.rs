//! Which server to connect to: all that are known, one shortly after the other, without waiting for one that
//! is silent; the one just lost comes last.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use crate::bus::connection::connect::{self, ServerInfo, Socket};
use crate::bus::left;
use crate::config::NatsConfig;
use crate::thread;

/// After this time without an outcome the next server is dialled too.
const DIAL_OVERLAP: Duration = Duration::from_millis(500);
/// For the servers that are still silent when all have been dialled.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers dialled in one round at most; a cluster has three or five.
const MAX_DIALLED: usize = 16;
/// Servers kept at most of those that only other servers have named.
const MAX_DISCOVERED: usize = 16;

/// A server as it was configured or named by another one, at one of its addresses.
#[derive(Clone)]
struct Server {
    url: nats::ServerAddress,
    address: SocketAddr,
}

/// A connection that stands, and to which server.
pub(crate) struct Dialled {
    pub connection: nats::Connection,
    pub socket: Arc<Socket>,
    pub address: SocketAddr,
    pub info: ServerInfo,
}

pub(crate) struct Dialler {
    role: &'static str,
    nats: NatsConfig,
    configured: Vec<nats::ServerAddress>,
    /// What servers have said of other servers of their cluster, the newest first.
    discovered: Mutex<Vec<nats::ServerAddress>>,
    /// The server whose connection was lost last.
    lost: Mutex<Option<SocketAddr>>,
}

impl Dialler {
    pub(crate) fn new(role: &'static str, nats: NatsConfig, configured: Vec<nats::ServerAddress>) -> Dialler {
        let (discovered, lost) = (Mutex::new(Vec::new()), Mutex::new(None));
        Dialler { role, nats, configured, discovered, lost }
    }

    pub(crate) fn set_lost(&self, address: SocketAddr) {
        *self.lost.lock() = Some(address);
    }

    /// Whether no other server is known than the one that it was connected to.
    pub(crate) fn is_alone(&self) -> bool {
        self.servers().map_or(0, |servers| servers.len()) < 2
    }

    /// Connects to the first server that answers. `lost` is told when the connection breaks.
    pub(crate) fn dial(&self, lost: &Sender<()>) -> Result<Dialled, String> {
        let servers = self.servers()?;
        let (made, outcomes) = bounded(servers.len());
        let mut to_dial = servers.into_iter();
        let mut under_way = 0_usize;
        let mut last_problem = String::from("no address");
        let mut deadline = None;
        loop {
            let patience = match to_dial.next() {
                Some(server) => {
                    self.begin(server, lost.clone(), made.clone())?;
                    under_way += 1;
                    DIAL_OVERLAP
                }
                None if under_way == 0 => return Err(last_problem),
                None => left(*deadline.get_or_insert_with(|| Instant::now() + DIAL_TIMEOUT)),
            };
            match outcomes.recv_timeout(patience) {
                Ok(Ok((server, dialled))) => {
                    self.learn(&server, &dialled.info);
                    return Ok(dialled);
                }
                Ok(Err(problem)) => {
                    under_way -= 1;
                    last_problem = problem;
                }
                Err(_) if deadline.is_some() => return Err(format!("no handshake within {DIAL_TIMEOUT:?}")),
                Err(_) => {}
            }
        }
    }

    /// Dials on a thread of its own, which is left to its end: the crate's handshake has no deadline.
    fn begin(
        &self,
        server: Server,
        lost: Sender<()>,
        made: Sender<Result<(Server, Dialled), String>>,
    ) -> Result<(), String> {
        let (nats, name) = (self.nats.clone(), format!("pyoco-server {}", self.role));
        let body = move || {
            let dialled = server.dial(&nats, &name, lost).map_err(|e| format!("{}: {e}", server.address));
            if let Err(unsent) = made.send(dialled.map(|dialled| (server, dialled)))
                && let Ok((_, late)) = unsent.0
            {
                // Another server was quicker.
                late.connection.close();
            }
        };
        thread::spawn(format!("dial-{}", self.role), body).map_err(|e| e.to_string())?.abandon();
        Ok(())
    }

    /// Those of the settings, then those that other servers have named; each kind from a random place on, so
    /// that many processes spread over a cluster.
    fn servers(&self) -> Result<Vec<Server>, String> {
        let mut servers = Vec::new();
        let mut seen = HashSet::new();
        let mut unresolved = None;
        for mut kind in [self.configured.clone(), self.discovered.lock().clone()] {
            let count = kind.len().max(1) as u128;
            kind.rotate_left((uuid::Uuid::new_v4().as_u128() % count) as usize);
            for url in kind {
                match (url.host(), url.port()).to_socket_addrs() {
                    Ok(addresses) => servers.extend(
                        addresses
                            .filter(|address| seen.insert(*address))
                            .map(|address| Server { url: url.clone(), address }),
                    ),
                    Err(e) => unresolved = Some(format!("cannot resolve {}: {e}", url.host())),
                }
            }
        }
        let lost = *self.lost.lock();
        servers.sort_by_key(|server| Some(server.address) == lost);
        servers.truncate(MAX_DIALLED);
        match unresolved {
            Some(problem) if servers.is_empty() => Err(problem),
            _ => Ok(servers),
        }
    }

    fn learn(&self, from: &Server, info: &ServerInfo) {
        let mut discovered = self.discovered.lock();
        for named in &info.connect_urls {
            if let Some(url) = from.neighbour(named)
                && !self.configured.contains(&url)
            {
                discovered.retain(|known| *known != url);
                discovered.insert(0, url);
            }
        }
        discovered.truncate(MAX_DISCOVERED);
    }
}

impl Server {
    fn dial(&self, nats: &NatsConfig, name: &str, lost: Sender<()>) -> Result<Dialled, String> {
        let info = connect::greeting(&self.address)?;
        // A certificate names the host. Without one the address decides, so that we know where we are.
        let is_tls = self.url.tls_required() || info.tls_required;
        let url = if is_tls { None } else { self.at(&self.address.ip().to_string(), self.address.port()) };
        let socket = Arc::new(Socket::new(lost));
        let connection = connect::connect(nats, url.unwrap_or_else(|| self.url.clone()), name, &socket)?;
        Ok(Dialled { connection, socket, address: self.address, info })
    }

    /// The server that this one calls `host:port`, with the scheme and the credentials of this one's URL.
    fn neighbour(&self, named: &str) -> Option<nats::ServerAddress> {
        let named: nats::ServerAddress = named.parse().ok()?;
        self.at(named.host(), named.port())
    }

    fn at(&self, host: &str, port: u16) -> Option<nats::ServerAddress> {
        let mut url = self.url.clone().into_inner();
        match host.parse::<IpAddr>() {
            Ok(ip) => url.set_ip_host(ip).ok()?,
            Err(_) => url.set_host(Some(host)).ok()?,
        }
        url.set_port(Some(port)).ok()?;
        nats::ServerAddress::from_url(url).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialler(urls: &[&str]) -> Dialler {
        let configured = urls.iter().map(|url| url.parse().unwrap()).collect();
        Dialler::new("test", crate::config::Config::default().nats, configured)
    }

    fn info(connect_urls: &[&str]) -> ServerInfo {
        let text = serde_json::json!({"connect_urls": connect_urls}).to_string();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_server_just_lost_is_dialled_last() {
        let dialler = dialler(&["nats://127.0.0.1:4001", "nats://127.0.0.1:4002", "127.0.0.1:4003"]);
        for lost in [4001, 4002, 4003] {
            dialler.set_lost(SocketAddr::from(([127, 0, 0, 1], lost)));
            let servers = dialler.servers().unwrap();
            assert_eq!(servers.len(), 3);
            assert_eq!(servers[2].address.port(), lost);
        }
    }

    #[test]
    fn a_named_server_is_known_with_the_credentials_of_the_one_that_named_it() {
        let dialler = dialler(&["nats://bob:secret@127.0.0.1:4001"]);
        let first = dialler.servers().unwrap().remove(0);
        dialler.learn(&first, &info(&["127.0.0.1:4001", "127.0.0.2:4002", "[::1]:4003"]));
        let servers = dialler.servers().unwrap();
        assert_eq!(servers[0].address, "127.0.0.1:4001".parse().unwrap());
        let mut others: Vec<_> = servers[1..].iter().map(|s| s.address.to_string()).collect();
        others.sort_unstable();
        assert_eq!(others, ["127.0.0.2:4002", "[::1]:4003"]);
        assert!(servers.iter().all(|server| server.url.has_user_pass()));
    }
}
