//! Caps and deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Hooks, PATIENCE, Site, Wire, eventually, quick, site, site_with};

/// All of its places are taken, and no deadline ends a connection during a test.
fn site_with_eight_clients() -> (Site, Vec<Wire>) {
    let mut settings = quick();
    settings.max_connections = 8;
    settings.head_deadline = Duration::from_secs(30);
    settings.idle_deadline = Duration::from_secs(30);
    let site = site(settings);
    let wires = (0..8).map(|_| site.wire()).collect();
    (site, wires)
}

#[test]
fn connections_over_the_cap_are_told_so() {
    let (site, mut wires) = site_with_eight_clients();
    for wire in &mut wires {
        wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(wire.answer().status, 200);
        // A request that has begun: none of them is idle.
        wire.send("GET /");
    }
    eventually("eight heads", || wires.iter().all(|wire| wire.unread_by_server() == 0));
    for _ in 0..40 {
        site.ask("GET / HTTP/1.1\r\nHost: t\r\n\r\n").assert_refused(503);
    }
    // Those inside are served on, and a place that becomes free is given away.
    wires[7].send(" HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wires[7].answer().status, 200);
    drop(wires.pop());
    eventually("a free place", || site.get("/").status == 200);
}

#[test]
fn the_longest_idle_connection_makes_place_for_a_new_one() {
    let (site, mut wires) = site_with_eight_clients();
    for (i, wire) in wires.iter_mut().enumerate() {
        // Two that have never asked, and six idle ones of different ages.
        if i >= 2 {
            wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(wire.answer().status, 200);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    for i in 2..8 {
        let mut new = site.wire();
        new.send("GET /new HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(new.answer().text().starts_with("GET /new?"));
        assert!(wires[i].is_closed(), "the {i}th");
        // It keeps its place, and is not idle.
        new.send("GET /");
        eventually("a head", || new.unread_by_server() == 0);
        wires.push(new);
    }
    site.ask("GET / HTTP/1.1\r\nHost: t\r\n\r\n").assert_refused(503);
    wires[0].send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(wires[0].answer().status, 200);
}

#[test]
fn probes_are_answered_while_all_handlers_are_busy() {
    let site = site(quick());
    let mut slow: Vec<_> = (0..4).map(|_| site.wire()).collect();
    for wire in &mut slow {
        wire.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
        site.slow_begun.recv_timeout(crate::support::PATIENCE).unwrap();
    }
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(site.get("/probe").status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    (0..4).for_each(|_| site.release.send(()).unwrap());
    assert!(slow.iter_mut().all(|wire| wire.answer().text() == "slow"));
}

#[test]
fn idle_connections_are_closed() {
    let site = site(quick());
    let started = Instant::now();
    let mut silent = site.wire();
    let mut kept = site.wire();
    kept.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(kept.answer().status, 200);
    assert!(silent.is_closed());
    assert!(started.elapsed() < Duration::from_millis(1400), "{:?}", started.elapsed());
    assert!(kept.is_closed());
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1300) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_request_finds_no_free_handler() {
    let mut settings = quick();
    settings.permit_patience = Duration::from_millis(300);
    let site = site(settings);
    let mut slow: Vec<_> = (0..4).map(|_| site.wire()).collect();
    for wire in &mut slow {
        wire.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
        site.slow_begun.recv_timeout(crate::support::PATIENCE).unwrap();
    }
    site.get("/").assert_refused(503);
    for wire in &mut slow {
        site.release.send(()).unwrap();
        let _ = wire;
    }
    for wire in &mut slow {
        assert_eq!(wire.answer().text(), "slow");
    }
    site.assert_alive();
}

#[test]
fn an_answer_that_does_not_come_is_given_up_and_never_given_to_another() {
    let mut settings = quick();
    settings.answer_deadline = Duration::from_millis(300);
    let site = site(settings);
    for _ in 0..3 {
        site.get("/slow").assert_refused(504);
    }
    // One handler is left, with one connection.
    for i in 0..20 {
        assert!(site.get(&format!("/{i}")).text().starts_with(&format!("GET /{i}?")));
    }
    (0..3).for_each(|_| site.release.send(()).unwrap());
    // The others come back, on new connections.
    let mut wires: Vec<_> = (0..4).map(|_| site.wire()).collect();
    eventually("all four handlers", || {
        let started = site.slow_begun.len();
        for wire in &mut wires {
            wire.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        std::thread::sleep(Duration::from_millis(100));
        let at_once = site.slow_begun.len() - started;
        (0..4).for_each(|_| site.release.send(()).unwrap());
        for wire in &mut wires {
            *wire = site.wire();
        }
        at_once == 4
    });
}

#[test]
fn a_client_that_does_not_read_holds_neither_a_handler_nor_its_thread() {
    let mut settings = quick();
    // Whoever waited for a deaf client would wait for much longer than is allowed below.
    settings.write_deadline = Duration::from_secs(8);
    let site = site(settings);
    let mut deaf: Vec<_> = (0..12).map(|_| site.wire()).collect();
    for (i, wire) in deaf.iter_mut().enumerate() {
        let target = if i % 2 == 0 { "/endless" } else { "/bytes?60000" };
        for _ in 0..400 {
            // Pipelined answers that nobody reads fill the socket.
            let _ = std::io::Write::write_all(
                &mut wire.stream,
                format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes(),
            );
        }
    }
    // Long enough for every socket to be full, and shorter than the patience with deaf clients.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let started = Instant::now();
        site.assert_alive();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    // Each endless answer is told that its client is lost.
    for _ in 0..6 {
        assert!(!site.stream_ended.recv_timeout(crate::support::PATIENCE).unwrap());
    }
}

#[test]
fn bodies_share_one_allowance_of_memory() {
    let mut settings = quick();
    settings.max_buffered_bytes = 2 << 20;
    settings.body_deadline = Duration::from_secs(20);
    let site = site(settings);
    let mut stalled = site.wire();
    stalled.send("POST /big HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n");
    stalled.send_bytes(&vec![b'a'; 1_900_000]);
    let big =
        format!("POST /big HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n{}", "b".repeat(1_000_000));
    eventually("the server to have read all of it", || stalled.unread_by_server() == 0);
    site.ask(&big).assert_refused(503);
    // Small bodies need none of it.
    let small = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 16000\r\n\r\n{}", "c".repeat(16_000));
    assert_eq!(site.ask(&small).status, 200);
    drop(stalled);
    eventually("the allowance to be given back", || site.ask(&big).status == 200);
    site.ask("POST /big HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n").assert_refused(413);
}

#[test]
fn a_body_is_given_back_before_its_answer_is_read() {
    let mut settings = quick();
    settings.max_buffered_bytes = 100_000;
    settings.write_deadline = PATIENCE;
    let site = site(settings);
    let body = "a".repeat(90_000);
    let head = "HTTP/1.1\r\nHost: t\r\nContent-Length: 90000\r\n\r\n";
    let mut unread = site.wire();
    // More than sockets hold.
    unread.send(&format!("POST /bytes?30000000 {head}{body}"));
    assert_eq!(unread.stream.peek(&mut [0]).unwrap(), 1);
    assert_eq!(site.ask(&format!("POST / {head}{body}")).status, 200);
    assert_eq!(unread.answer().body.len(), 30_000_000);
}

#[test]
fn hooks_are_told_of_every_answer() {
    let answered = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let hooks = Hooks {
        answered: Some({
            let answered = Arc::clone(&answered);
            Box::new(move |access| {
                assert_eq!((access.method, access.status), ("GET", 200));
                assert!(access.complete && access.path == "/bytes");
                answered.fetch_add(usize::try_from(access.bytes).unwrap(), Ordering::SeqCst);
            })
        }),
        refused: Some({
            let refused = Arc::clone(&refused);
            Box::new(move |status| {
                refused.fetch_add(usize::from(status), Ordering::SeqCst);
            })
        }),
    };
    let site = site_with(quick(), hooks);
    assert_eq!(site.get("/bytes?1000").status, 200);
    assert_eq!(site.get("/bytes?200000").status, 200);
    site.ask("GET / HTTP/2.0\r\n\r\n").assert_refused(505);
    eventually("the hooks", || answered.load(Ordering::SeqCst) == 201_000);
    assert_eq!(refused.load(Ordering::SeqCst), 505);
}
