//! Answers that come with time.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Wire, eventually, quick, site};

const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: t\r\n\r\n";

fn open(site: &crate::support::Site) -> Wire {
    let mut wire = site.wire();
    wire.send(EVENTS);
    assert_eq!(wire.try_answer(true).unwrap().status, 200);
    wire
}

#[test]
fn events_flow_one_by_one() {
    let mut site = site(quick());
    let mut wire = open(&site);
    let events = site.events.take().unwrap();
    for i in 0..20 {
        let sent = Instant::now();
        events.send(format!("event {i}")).unwrap();
        let chunk = wire.try_chunk().unwrap().unwrap();
        assert_eq!(chunk, format!("data: event {i}\n\n").as_bytes());
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    }
    drop(events);
    assert_eq!(wire.try_chunk().unwrap(), None);
    assert!(site.stream_ended.recv_timeout(PATIENCE).unwrap());
    // The connection goes on.
    wire.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.answer().text().starts_with("GET /next?"));
}

#[test]
fn an_old_client_gets_a_stream_without_chunks() {
    let mut site = site(quick());
    let mut wire = site.wire();
    wire.send("GET /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = wire.try_answer(true).unwrap();
    assert!(head.header("transfer-encoding").is_none() && head.header("connection") == Some("close"));
    let events = site.events.take().unwrap();
    events.send("one".into()).unwrap();
    wire.read_more().unwrap();
    assert_eq!(wire.buffer, b"data: one\n\n");
    drop(events);
    assert!(wire.is_closed());
}

#[test]
fn streams_do_not_starve_requests() {
    let site = site(quick());
    // Ten times as many as there are handlers.
    let wires: Vec<_> = (0..40).map(|_| open(&site)).collect();
    let started = Instant::now();
    for _ in 0..100 {
        site.assert_alive();
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(wires);
}

#[test]
fn streams_over_the_cap_are_told_so() {
    let mut settings = quick();
    settings.max_streams = 3;
    let site = site(settings);
    let _wires: Vec<_> = (0..3).map(|_| open(&site)).collect();
    let refused = site.ask(EVENTS);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.text().starts_with(r#"{"detail":"too many streaming answers""#));
    site.assert_alive();
}

#[test]
fn a_vanished_watcher_frees_its_handler() {
    let site = site(quick());
    let events = site.events.clone().unwrap();
    for _ in 0..5 {
        let mut wire = open(&site);
        events.send("seen".into()).unwrap();
        assert!(wire.try_chunk().unwrap().is_some());
        drop(wire);
        let gone = Instant::now();
        // The edge notices by itself, without an event to write.
        eventually("the end of the connection", || site.server.as_ref().unwrap().connections() == 0);
        assert!(gone.elapsed() < Duration::from_secs(2), "{:?}", gone.elapsed());
        // One of the next writes must fail, although none of them fills a buffer.
        let written = loop {
            events.send("into the void".into()).unwrap();
            match site.stream_ended.recv_timeout(Duration::from_millis(20)) {
                Ok(written) => break written,
                Err(_) => assert!(gone.elapsed() < PATIENCE, "the handler was never told"),
            }
        };
        assert!(!written);
        assert!(gone.elapsed() < Duration::from_secs(2), "{:?}", gone.elapsed());
    }
    site.assert_alive();
}

#[test]
fn a_stream_that_breaks_off_does_not_look_complete() {
    let site = site(quick());
    for target in ["/broken", "/panic-stream"] {
        let mut wire = site.wire();
        wire.send(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert!(wire.try_answer(false).is_err(), "{target}");
    }
    let mut wire = site.wire();
    wire.send("GET /broken-download HTTP/1.1\r\nHost: t\r\n\r\n");
    // Whether its head still comes before it breaks off is a matter of luck.
    assert!(wire.try_answer(false).is_err());
    assert!(wire.buffer.len() < 100);
    site.assert_alive();
}

#[test]
fn a_download_has_its_length_and_arrives_whole() {
    let site = site(quick());
    let mut wire = site.wire();
    for _ in 0..3 {
        wire.send("GET /download HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = wire.answer();
        assert_eq!(answer.header("content-length"), Some("3000000"));
        assert!(answer.body.len() == 3_000_000 && answer.body.iter().all(|&b| b == b'd'));
    }
    let old = site.ask("GET /download HTTP/1.0\r\n\r\n");
    assert_eq!(old.body.len(), 3_000_000);
}

#[test]
fn a_slow_reader_gets_all_of_a_download() {
    let site = site(quick());
    let mut wire = site.wire();
    wire.send("GET /download HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let mut total = 0;
    let mut piece = vec![0; 100_000];
    loop {
        match wire.stream.read(&mut piece).unwrap() {
            0 => break,
            count => total += count,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(total > 3_000_000);
}

#[test]
fn a_client_that_has_said_all_it_wants_still_gets_its_download() {
    let site = site(quick());
    let mut wire = site.wire();
    wire.send("GET /slow-download HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    wire.half_close();
    assert_eq!(wire.answer().text(), "0123456789".repeat(2));
}
