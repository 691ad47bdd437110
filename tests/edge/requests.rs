//! Ordinary requests: what handlers see, what clients get.

use std::time::Duration;

use crate::support::{quick, site};

#[test]
fn a_handler_sees_the_request_as_it_was_meant() {
    let site = site(quick());
    let answer =
        site.ask("POST /a/b%20c?x=1&y HTTP/1.1\r\nHost: t\r\nX-Mine: 1\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.starts_with("POST /a/b%20c?x=1&y\npeer=127.0.0.1 id="), "{text}");
    assert!(text.contains("\nx-mine: 1\n") && text.ends_with("hello"), "{text}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(answer.header("server"), Some("pyoco-server"));
}

#[test]
fn a_request_id_is_taken_over_or_made_and_always_echoed() {
    let site = site(quick());
    let answer = site.ask("GET / HTTP/1.1\r\nHost: t\r\nX-Request-ID: my-id.7\r\n\r\n");
    assert_eq!(answer.header("x-request-id"), Some("my-id.7"));
    assert!(answer.text().contains(" id=my-id.7\n"));
    let made = site.get("/");
    let id = made.header("x-request-id").unwrap().to_owned();
    assert!(id.len() == 32 && made.text().contains(&format!(" id={id}\n")));
    let refused = site.ask("GET * HTTP/1.1\r\nHost: t\r\nX-Request-ID: my-id.8\r\n\r\n");
    refused.assert_refused(400);
    assert_eq!(refused.header("x-request-id"), Some("my-id.8"));
}

#[test]
fn one_connection_serves_many_requests_and_pipelined_ones_in_order() {
    let site = site(quick());
    let mut wire = site.wire();
    for i in 0..50 {
        wire.send(&format!("GET /{i} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = wire.answer();
        assert!(answer.text().starts_with(&format!("GET /{i}?")), "{answer:?}");
        assert!(answer.header("connection").is_none());
    }
    let mut batch = String::new();
    for i in 0..20 {
        batch += &format!("POST /{i} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nb{i:02}");
    }
    wire.send(&batch);
    for i in 0..20 {
        let text = wire.answer().text();
        assert!(text.starts_with(&format!("POST /{i}?")) && text.ends_with(&format!("b{i:02}")));
    }
}

#[test]
fn old_clients_get_what_they_understand() {
    let site = site(quick());
    let mut wire = site.wire();
    wire.send("GET /one HTTP/1.0\r\n\r\n");
    let answer = wire.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(wire.is_closed());
    let mut wire = site.wire();
    for _ in 0..3 {
        wire.send("GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(wire.answer().header("connection"), Some("keep-alive"));
    }
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let site = site(quick());
    let mut wire = site.wire();
    for (target, length) in [("/bytes?1000", "1000"), ("/bytes?300000", "300000"), ("/download", "3000000")] {
        wire.send(&format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = wire.try_answer(true).unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some(length)));
    }
    wire.send("HEAD /events HTTP/1.1\r\nHost: t\r\n\r\nGET /next HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.try_answer(true).unwrap().status, 200);
    assert!(wire.answer().text().starts_with("GET /next"));
    wire.send("HEAD * HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.try_answer(true).unwrap().status, 400);
    assert!(wire.is_closed() && wire.buffer.is_empty());
}

#[test]
fn bodies_and_answers_of_all_sizes_arrive_whole() {
    let site = site(quick());
    let mut wire = site.wire();
    for size in [0, 1, 1000, 1024, 1025, 4096, 16_384, 16_385, 40_000, 65_536, 65_537, 100_000] {
        wire.send(&format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"));
        wire.send_bytes(&vec![b'a'; size]);
        let answer = wire.answer();
        assert_eq!(answer.status, 200, "{size}");
        if size > 1000 {
            assert!(answer.text().ends_with(&format!("body {size} bytes")), "{size}");
        }
        wire.send(&format!("GET /bytes?{size} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = wire.answer();
        assert!(answer.body == vec![b'b'; size], "{size}");
    }
    wire.send("GET /empty HTTP/1.1\r\nHost: t\r\n\r\nGET /bytes?3000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    let empty = wire.answer();
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
    assert_eq!(wire.answer().body.len(), 3_000_000);
}

#[test]
fn a_client_that_waits_for_leave_to_send_is_told_to_go_on() {
    let site = site(quick());
    let mut wire = site.wire();
    wire.send("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(wire.answer().status, 100);
    wire.send("hello");
    assert!(wire.answer().text().ends_with("hello"));
    // A body over the limit is refused before it is sent.
    wire.send("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 100001\r\n\r\n");
    wire.answer().assert_refused(413);
    // Whoever sends the body anyway is not held up by an interim answer.
    let answer =
        site.ask("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello");
    assert!(answer.text().ends_with("hello"), "{answer:?}");
}

#[test]
fn a_panic_costs_one_request() {
    let site = site(quick());
    let mut wire = site.wire();
    // More often than there are handlers.
    for _ in 0..12 {
        wire.send("GET /panic HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = wire.answer();
        assert_eq!(answer.status, 500);
        assert_eq!(answer.text(), r#"{"detail":"Internal Server Error"}"#);
        assert!(answer.header("x-request-id").is_some());
    }
    wire.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
}

#[test]
fn answers_do_not_wait_for_the_clients_acknowledgement() {
    let site = site(quick());
    let mut wire = site.wire();
    let mut round = || {
        let started = std::time::Instant::now();
        for size in [900, 10_000, 40_000].repeat(10) {
            wire.send(&format!("GET /bytes?{size} HTTP/1.1\r\nHost: t\r\n\r\n"));
            assert_eq!(wire.answer().body.len(), size);
        }
        started.elapsed()
    };
    // Acknowledgements come at once at the beginning of a connection.
    round();
    // With Nagle's algorithm each took 44 ms, at the best moment of the machine too.
    let best = (0..8).map(|_| round()).min().unwrap();
    assert!(best.as_millis() < 30 * 30, "{best:?}");
}

#[test]
fn a_burst_of_connections_is_answered_to_the_last() {
    let site = site(quick());
    for _ in 0..5 {
        let mut wires: Vec<_> = (0..64).map(|_| site.wire()).collect();
        for round in 0..3 {
            for (i, wire) in wires.iter_mut().enumerate() {
                wire.send(&format!("GET /{round}/{i} HTTP/1.1\r\nHost: t\r\n\r\n"));
            }
            for (i, wire) in wires.iter_mut().enumerate() {
                assert!(wire.answer().text().starts_with(&format!("GET /{round}/{i}?")));
            }
        }
    }
}

/// Old clients send an empty line after a body (RFC 9112, 2.2).
#[test]
fn empty_lines_between_requests_begin_no_request() {
    let site = site(quick());
    let mut wire = site.wire();
    for _ in 0..2 {
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc\r");
        assert_eq!(wire.answer().status, 200);
        wire.send("\n\r\n");
        // Longer than a head may take, and shorter than a connection may be idle.
        std::thread::sleep(Duration::from_millis(900));
    }
    // In pieces they are read as in one.
    for piece in ["\r", "\n", "\r", "\n", "GET /pieces HTTP/1.1\r\nHost: t\r\n\r\n"] {
        wire.send(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(wire.answer().text().starts_with("GET /pieces?"));
}
