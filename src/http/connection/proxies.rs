//! Whose word counts for where a request comes from: that of the named proxies.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::head::Head;
use crate::model::network::Network;

/// Between two warnings about forwarding headers from addresses that are not trusted.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// What a proxy says of the request that it passes on.
pub const FORWARDING: [&str; 3] = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];

/// The proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
#[derive(Default)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    last_warning: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub peer: Arc<str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What a trusted proxy says of the host that its client asked for.
    pub host: Option<String>,
}

impl TrustedProxies {
    /// Those in `networks`; the machine's own addresses when there are none.
    pub fn new(networks: Vec<Network>) -> TrustedProxies {
        let networks = if networks.is_empty() { Network::loopback().to_vec() } else { networks };
        TrustedProxies { networks, last_warning: Mutex::new(None) }
    }

    /// Where a request comes from whose connection was made by `peer`.
    pub fn origin(&self, head: &Head, peer: IpAddr, direct: &Origin) -> Origin {
        if !self.trusts(peer) {
            self.warn(head, peer);
            return direct.clone();
        }
        let last = |name| head.values(name).next_back().and_then(last_entry);
        let scheme = match last("X-Forwarded-Proto") {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
            _ => "http",
        };
        let client = self.client(head);
        let peer = client.map_or_else(|| Arc::clone(&direct.peer), |ip| ip.to_string().into());
        Origin { peer, scheme, host: last("X-Forwarded-Host").map(str::to_owned) }
    }

    /// The nearest address in `X-Forwarded-For` that is not a trusted proxy: each proxy adds the one that it
    /// has seen at the end, and what stands before those is what the client claims.
    fn client(&self, head: &Head) -> Option<IpAddr> {
        let lines = head.values("X-Forwarded-For").rev();
        let mut entries = lines.flat_map(|line| line.rsplit(|b| *b == b','));
        let mut nearest = None;
        loop {
            // One that cannot be read hides all before it.
            let Some(address) = entries.next().and_then(address) else {
                return nearest;
            };
            nearest = Some(address);
            if !self.trusts(address) {
                return nearest;
            }
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    fn warn(&self, head: &Head, peer: IpAddr) {
        if !FORWARDING.iter().any(|name| head.values(name).next().is_some()) {
            return;
        }
        let is_due = {
            let mut last = self.last_warning.lock();
            let is_due = last.is_none_or(|at| at.elapsed() >= WARNING_PAUSE);
            *last = if is_due { Some(Instant::now()) } else { *last };
            is_due
        };
        if is_due {
            log::warn!(address = peer.to_string();
                "ignored the forwarding headers of an address that is no trusted proxy; \
                 if it is one, name it in PYOCO_TRUSTED_PROXIES");
        }
    }
}

fn last_entry(value: &[u8]) -> Option<&str> {
    let entry = std::str::from_utf8(value).ok()?.rsplit(',').next()?.trim();
    (!entry.is_empty()).then_some(entry)
}

/// An address as proxies write it: bare, with a port, in brackets, or in brackets with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // More than one colon is IPv6 without a port.
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(trusted: &[&str], headers: &str) -> String {
        let networks = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let proxies = TrustedProxies::new(networks);
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let head = Head::read(head.as_bytes()).unwrap();
        let direct = Origin { peer: "127.0.0.1".into(), scheme: "http", host: None };
        let origin = proxies.origin(&head, "127.0.0.1".parse().unwrap(), &direct);
        format!("{} {} {}", origin.peer, origin.scheme, origin.host.unwrap_or("-".into()))
    }

    #[test]
    fn the_nearest_address_that_is_no_proxy_is_the_client() {
        for (value, peer) in [
            ("6.6.6.6, 10.1.2.3", "10.1.2.3"),
            ("10.1.2.3:5060", "10.1.2.3"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("10.1.2.3, 127.0.0.1, ::1", "10.1.2.3"),
            ("10.1.2.3\r\nX-Forwarded-For: 10.9.9.9, 127.0.0.2", "10.9.9.9"),
            ("unknown", "127.0.0.1"),
            ("6.6.6.6, unknown, 127.0.0.3", "127.0.0.3"),
            ("", "127.0.0.1"),
            ("\u{5c71}", "127.0.0.1"),
        ] {
            let seen = origin(&[], &format!("X-Forwarded-For: {value}\r\n"));
            assert_eq!(seen, format!("{peer} http -"), "{value}");
        }
        let all = "X-Forwarded-For: 9.9.9.9, 10.1.2.3\r\nX-Forwarded-Proto: HTTPS\r\n\
            X-Forwarded-Host: a.example, front.example:8443\r\n";
        assert_eq!(origin(&[], all), "10.1.2.3 https front.example:8443");
        assert_eq!(origin(&["127.0.0.0/8", "10.0.0.0/8"], all), "9.9.9.9 https front.example:8443");
        assert_eq!(origin(&["10.0.0.0/8"], all), "127.0.0.1 http -", "not sent by a proxy");
    }
}
