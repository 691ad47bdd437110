//! Whether a browser has sent a form on behalf of somebody else's page.
//!
//! A page of any site may make its visitor's browser post a form to any address that the visitor
//! reaches, loopback too, without asking first; bodies of JSON it must ask for, which is refused. Where
//! no API key stands between, the origin that browsers name is all that tells such a form apart.

use crate::http::Request;

/// What a browser says of where a request comes from.
struct Signs<'r> {
    /// `Sec-Fetch-Site`: how page and gateway stand to each other, as new browsers see it.
    site: Option<&'r str>,
    /// `Origin`: whose page it is, as all browsers say with a POST, and nobody else.
    origin: Option<&'r str>,
    /// What the gateway is called by the client, and by the client of a trusted proxy.
    hosts: [Option<&'r str>; 2],
    /// The request has a header for which a browser would have asked first.
    was_asked_for: bool,
}

/// Whether the request comes from a page of somebody else. A client that is no browser passes.
pub fn is_foreign(request: &Request) -> bool {
    is_of_another_page(&Signs {
        site: request.header("Sec-Fetch-Site"),
        origin: request.header("Origin"),
        hosts: [request.header("Host"), request.host()],
        was_asked_for: request.header("Idempotency-Key").is_some(),
    })
}

fn is_of_another_page(signs: &Signs<'_>) -> bool {
    if signs.was_asked_for {
        return false;
    }
    if let Some(site) = signs.site {
        // `none` is a person, `same-site` another port or a sister's host.
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = signs.origin else { return false };
    // A page without an origin of its own says `null`.
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let is_ours = |host: &&str| authority.is_some_and(|ours| ours.eq_ignore_ascii_case(host));
    !signs.hosts.iter().flatten().any(is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forms_of_other_pages_are_foreign() {
        let foreign = |site, origin, forwarded| {
            let hosts = [Some("gate.lan:8000"), forwarded];
            is_of_another_page(&Signs { site, origin, hosts, was_asked_for: false })
        };
        let (ours, evil) = (Some("http://Gate.lan:8000"), Some("https://evil.example"));
        // curl and the clients.
        assert!(!foreign(None, None, None));
        assert!(!foreign(None, ours, None) && !foreign(Some("same-origin"), evil, None));
        assert!(!foreign(Some("none"), None, None));
        for origin in [evil, Some("null"), Some("http://gate.lan"), Some("http://gate.lan:3000")] {
            assert!(foreign(None, origin, None), "{origin:?}");
        }
        for site in ["cross-site", "same-site", "what comes next"] {
            assert!(foreign(Some(site), ours, None), "{site}");
        }
        // A proxy that gives the gateway another name says what it is called itself.
        assert!(!foreign(None, Some("http://front.lan"), Some("front.lan")));
        // The dashboard behind a proxy that does not.
        let hosts = [Some("127.0.0.1:8000"), None];
        let asked = Signs { site: None, origin: Some("http://front.lan"), hosts, was_asked_for: true };
        assert!(!is_of_another_page(&asked));
    }
}
