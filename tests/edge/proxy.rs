//! Behind reverse proxies: whose word counts, and what they send.

use std::time::Duration;

use pyoco_server::http::TrustedProxies;

use crate::support::{Site, quick, site};

fn behind_proxy(networks: &[&str]) -> Site {
    let mut settings = quick();
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    settings.trusted_proxies = Some(TrustedProxies::new(networks));
    site(settings)
}

const FORWARDED: &str = "GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 6.6.6.6, 10.1.2.3\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: front.example\r\n\r\n";

#[test]
fn a_trusted_proxys_word_counts_for_the_address() {
    let mut site = behind_proxy(&[]);
    let answer = site.ask(FORWARDED);
    assert!(answer.text().contains("peer=10.1.2.3 id="), "{answer:?}");
    assert!(answer.text().contains("host=front.example scheme=https"), "{answer:?}");
    assert!(site.get("/").text().contains("peer=127.0.0.1 id="));
    assert_eq!(site.get("/panic").status, 500);
    assert_eq!(site.get("/bytes?300000").body.len(), 300_000);
    let mut wire = site.wire();
    wire.send("GET /download HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.answer().body.len(), 3_000_000);
    let old = site.ask("GET /download HTTP/1.0\r\n\r\n");
    assert_eq!((old.header("content-length"), old.body.len()), (Some("3000000"), 3_000_000));
    drop(wire);
    assert!(site.server.take().unwrap().stop(Duration::from_secs(5)));
}

#[test]
fn nobody_elses_word_counts() {
    for is_proxied in [false, true] {
        let site = if is_proxied { behind_proxy(&["10.0.0.0/8"]) } else { site(quick()) };
        let answer = site.ask(FORWARDED);
        assert!(answer.text().contains("peer=127.0.0.1 id="), "{answer:?}");
        assert!(answer.text().contains("host=t scheme=http\n"), "{answer:?}");
    }
}

#[test]
fn limits_hold_behind_a_proxy_too() {
    let site = behind_proxy(&[]);
    let refused = |head: &str, status| {
        let mut wire = site.wire();
        wire.send(&format!("POST / HTTP/1.1\r\nHost: t\r\n{head}\r\n"));
        wire.answer().assert_refused(status);
        assert!(wire.is_closed());
    };
    refused("Content-Length: 200000\r\n", 413);
    refused("Content-Length: 17592186044416\r\n", 413);
    // Beyond 64 bits, it once was no length at all, and what followed was a request.
    refused("Content-Length: 18446744073709551616\r\n", 400);
    refused("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 501);
    assert_eq!(site.count(), 0);
    site.assert_alive();
}

#[test]
fn a_body_leaves_nothing_behind_that_could_be_taken_for_a_request() {
    let site = behind_proxy(&[]);
    let mut wire = site.wire();
    wire.send("POST /unread HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send("1d\r\nGET /evil HTTP/1.1\r\nHost: t\r\n\r\n0\r\n\r\n");
    assert_eq!(wire.answer().text(), "did not look");
    wire.send("POST /after HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let text = wire.answer().text();
    assert!(text.starts_with("POST /after?") && text.ends_with("abc"), "{text}");
    assert_eq!(site.count(), 2);
}

#[test]
fn what_a_sign_on_proxy_adds_reaches_the_handler() {
    let site = behind_proxy(&[]);
    let answer = site.ask("GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-User: 山田\r\n\r\n");
    assert!(answer.text().contains("x-forwarded-user: 山田\n"), "{answer:?}");
    let absolute = site.ask("GET http://other:81/x?y HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(absolute.text().starts_with("GET /x?y\n"), "{absolute:?}");
    assert!(absolute.text().contains("host=other:81 "), "{absolute:?}");
}

#[test]
fn what_a_client_says_of_its_connection_does_not_remove_what_its_proxy_says() {
    let site = behind_proxy(&[]);
    for names in ["X-Forwarded-For", "close, x-forwarded-proto,X-FORWARDED-HOST,x-forwarded-for"] {
        let named = format!("Host: t\r\nConnection: {names}\r\n");
        let text = site.ask(&FORWARDED.replacen("Host: t\r\n", &named, 1)).text();
        assert!(text.contains("peer=10.1.2.3 id="), "{names}: {text}");
        assert!(text.contains("host=front.example scheme=https"), "{names}: {text}");
    }
}
