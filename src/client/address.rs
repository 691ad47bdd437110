//! The server's address: checked once, so that errors name it and not a part of it.

use ureq::http::Uri;

use super::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    origin: String,
    /// The origin and, when the gateway sits below a path, that path; no slash at the end.
    pub base: String,
    /// Whether the server is on this machine.
    pub is_loopback: bool,
}

impl Address {
    /// Takes `http://host[:port][/path]` or the same with https.
    pub fn parse(server: &str) -> Result<Address, Error> {
        let bad = |reason: String| Error::BadServer { server: server.to_owned(), reason };
        let base = server.trim().trim_end_matches('/');
        let Some((scheme, rest)) = base.split_once("://") else {
            return Err(bad(format!("it has no scheme; write http://{base}")));
        };
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(bad(format!("`{scheme}` is neither http nor https")));
        }
        let uri: Uri = base.parse().map_err(|error| bad(format!("{error}")))?;
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(bad("it has no host".to_owned()));
        }
        if rest.contains(['@', '?', '#']) {
            return Err(bad("only scheme, host, port and path may be given".to_owned()));
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_loopback =
            host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
        Ok(Address { origin: format!("{scheme}://{authority}"), base: base.to_owned(), is_loopback })
    }

    /// Where a redirect leads, when that is the same server.
    pub fn redirected(&self, location: &str) -> Option<String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(format!("{}{location}", self.origin));
        }
        let rest = location.strip_prefix(&self.origin)?;
        (rest.is_empty() || rest.starts_with(['/', '?'])).then(|| location.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        for (server, why) in [
            ("127.0.0.1:8000", "write http://127.0.0.1:8000"),
            ("localhost", "write http://localhost"),
            ("ftp://h", "neither http nor https"),
            ("http://", "scheme"),
            ("http:///runs", "server"),
            ("http://u:p@h", "only scheme"),
            ("http://h?x=1", "only scheme"),
            ("http://h h", "server"),
        ] {
            let error = Address::parse(server).unwrap_err().to_string();
            assert!(error.contains(why), "{server}: {error}");
        }
        assert_eq!(Address::parse("http://h:1/p/").unwrap().base, "http://h:1/p");
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for server in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:8000"] {
            assert!(Address::parse(server).unwrap().is_loopback, "{server}");
        }
        assert!(!Address::parse("http://localhost.example.org").unwrap().is_loopback);
    }

    #[test]
    fn redirects_stay_on_the_server() {
        let address = Address::parse("http://h:1/p").unwrap();
        assert_eq!(address.redirected("/p/runs").unwrap(), "http://h:1/p/runs");
        assert_eq!(address.redirected("http://h:1/p/runs").unwrap(), "http://h:1/p/runs");
        for elsewhere in ["http://h:12/", "http://h:1.evil/", "//evil/", "https://h:1/", "runs"] {
            assert_eq!(address.redirected(elsewhere), None, "{elsewhere}");
        }
    }
}
