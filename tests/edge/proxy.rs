//! Without the edge, where a reverse proxy keeps the bounds.

use std::time::Duration;

use crate::support::{UPLOAD_LIMIT, eventually, quick, site};
use crate::uploads::{content, expected, head};

fn behind_proxy() -> crate::support::Site {
    let mut settings = quick();
    settings.behind_proxy = true;
    site(settings)
}

#[test]
fn the_proxys_word_counts_for_the_address() {
    let mut site = behind_proxy();
    let answer =
        site.ask("GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 6.6.6.6, 10.1.2.3\r\n\r\n");
    assert!(answer.text().contains("peer=10.1.2.3 id="), "{answer:?}");
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
fn a_body_leaves_nothing_behind_that_could_be_taken_for_a_request() {
    let site = behind_proxy();
    let mut wire = site.wire();
    wire.send("POST /unread HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send("1d\r\nGET /evil HTTP/1.1\r\nHost: t\r\n\r\n0\r\n\r\n");
    assert_eq!(wire.answer().text(), "did not look");
    wire.send("POST /after HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let text = wire.answer().text();
    assert!(text.starts_with("POST /after?") && text.ends_with("abc"), "{text}");
    wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
    wire.send_bytes(&vec![b'a'; 200_000]);
    assert_eq!(wire.answer().status, 413);
    wire.send("GET /still HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.answer().text().starts_with("GET /still?"));
    assert_eq!(site.count(), 3);
}

#[test]
fn an_absurd_length_does_not_end_the_process() {
    let site = behind_proxy();
    let mut wire = site.wire();
    wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 17592186044416\r\n\r\n");
    for _ in 0..10 {
        site.assert_alive();
    }
    drop(wire);
    assert_eq!(site.count(), 10);
}

#[test]
fn uploads_are_read_without_an_edge_too() {
    let site = behind_proxy();
    let mut wire = site.wire();
    let body = content(700_001);
    for length in [0, 1, 1024, 1025, 65_536, 700_001] {
        wire.send(&head("/upload", length as u64, ""));
        wire.send_bytes(&body[..length]);
        assert_eq!(wire.answer().text(), expected(&body[..length]), "{length}");
    }
    // What the handler leaves is skipped, and is no request.
    for (path, status) in [("/upload-refused", 401), ("/upload-half", 409), ("/upload-panic", 500)]
    {
        let mut body = content(150_000);
        body.extend_from_slice(b"GET /evil HTTP/1.1\r\nHost: t\r\n\r\n");
        wire.send(&head(path, body.len() as u64, ""));
        wire.send_bytes(&body);
        assert_eq!(wire.answer().status, status);
    }
    let before = site.count();
    wire.send("POST /upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send("1d\r\nGET /evil HTTP/1.1\r\nHost: t\r\n\r\n0\r\n\r\n");
    assert_eq!(wire.answer().status, 411);
    wire.send("GET /still HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.answer().text().starts_with("GET /still?"));
    assert_eq!(site.count(), before + 1);
}

#[test]
fn a_proxy_that_breaks_off_or_sends_too_much_is_found_out() {
    let site = behind_proxy();
    for sent in [0, 1000, 99_999] {
        let mut wire = site.wire();
        wire.send(&head("/upload", 100_000, ""));
        wire.send_bytes(&content(sent));
        wire.half_close();
        assert_eq!(site.outcome(), Err("request body ended early".to_owned()), "{sent}");
        assert_eq!(wire.answer().status, 400);
    }
    let before = site.count();
    let mut wire = site.wire();
    wire.send(&head("/upload", UPLOAD_LIMIT + 1, ""));
    wire.half_close();
    let answer = wire.answer();
    assert_eq!((answer.status, answer.text().contains("upload too large")), (413, true));
    let mut absurd = site.wire();
    absurd.send(&head("/upload", 17_592_186_044_416, ""));
    (0..10).for_each(|_| site.assert_alive());
    assert_eq!(site.count(), before + 10);
    // None of them holds a place.
    let body = content(1000);
    eventually("an upload", || site.upload("/upload", &body).text() == expected(&body));
}
