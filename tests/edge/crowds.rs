//! Many clients at once that come, stay and go as they like; and what is left of them.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use crate::support::{Wire, descriptors, eventually, in_child, quick, resident_kib, site, threads};

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn ten_thousand_quick_connections_leave_nothing_behind() {
    if !in_child("crowds::ten_thousand_quick_connections_leave_nothing_behind") {
        return;
    }
    let site = site(quick());
    site.assert_alive();
    eventually("the first connection to end", || site.server.as_ref().unwrap().connections() == 0);
    let (threads_before, files_before, memory_before) = (threads(), descriptors(), resident_kib());
    for i in 0..10_000 {
        if i % 100 == 0 {
            // The kernel lets 128 wait to be accepted, and the others try again a second later.
            site.assert_alive();
        }
        let stream = TcpStream::connect(site.address).unwrap();
        if i % 2 == 0 {
            // Closing is a reset then.
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    }
    site.assert_alive();
    eventually("all threads to end", || threads() <= threads_before);
    eventually("all descriptors to close", || descriptors() <= files_before);
    let grown = resident_kib().saturating_sub(memory_before);
    assert!(grown < 16 * 1024, "{grown} KiB");
}

#[test]
fn idle_connections_beyond_the_cap_make_place_one_by_one() {
    let mut settings = quick();
    settings.max_connections = 100;
    settings.idle_deadline = Duration::from_secs(60);
    let site = site(settings);
    let mut wires = Vec::new();
    for _ in 0..1_100 {
        let mut wire = site.wire();
        wire.send(GET);
        let answer = wire.try_answer(false);
        assert!(answer.as_ref().is_ok_and(|a| a.status == 200), "{answer:?}");
        wires.push(wire);
        assert!(site.server.as_ref().unwrap().connections() <= 100);
    }
    // Exactly one was closed for each new one.
    let is_open = |wire: &mut Wire| {
        wire.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        !wire.is_closed()
    };
    assert_eq!(wires.iter_mut().filter_map(|wire| is_open(wire).then_some(())).count(), 100);
}

/// Places a connection in one of the states in which a stop may find it.
fn place(wire: &mut Wire, state: usize) {
    let text = match state {
        0 => "",
        1 => "GET / HT",
        2 => GET,
        3 => "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc",
        4 => "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nff\r\na",
        5 => "GET /slow HTTP/1.1\r\nHost: t\r\n\r\n",
        6 => "GET /events HTTP/1.1\r\nHost: t\r\n\r\n",
        7 => "POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nabc",
        8 => "GET /endless HTTP/1.1\r\nHost: t\r\n\r\n",
        9 => "\0\r\n\r\n",
        10 => "POST /unread HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        _ => "GET / HTTP/1.1\r\nHost: t\r\n\r\nGET /slow HTTP/1.1\r\nHost: t\r\n\r\nGET /",
    };
    wire.send(text);
}

#[test]
fn a_stop_ends_connections_in_every_state() {
    if !in_child("crowds::a_stop_ends_connections_in_every_state") {
        return;
    }
    let (threads_before, files_before) = (threads(), descriptors());
    for (round, pause) in [0, 1, 5, 30, 100, 300].into_iter().enumerate() {
        let mut settings = quick();
        settings.max_connections = 30;
        let mut site = site(settings);
        let mut wires: Vec<_> = (0..36).map(|_| site.wire()).collect();
        for (i, wire) in wires.iter_mut().enumerate() {
            place(wire, i % 12);
        }
        std::thread::sleep(Duration::from_millis(pause));
        let grace = Duration::from_millis(if round % 2 == 0 { 0 } else { 400 });
        let started = Instant::now();
        site.server.take().unwrap().stop(grace);
        let took = started.elapsed();
        // What a handler waits for by itself is left behind after a second.
        assert!(took < grace + Duration::from_secs(3), "{pause}: {took:?}");
        for _ in 0..200 {
            let _ = site.release.send(());
        }
        site.events.take();
        for wire in &mut wires {
            let end = wire.read_to_end().map_err(|error| error.kind());
            assert!(matches!(end, Ok(()) | Err(ErrorKind::ConnectionReset)), "{end:?}");
        }
        drop((wires, site));
        eventually("all threads to end", || threads() <= threads_before);
        eventually("all descriptors to close", || descriptors() <= files_before);
    }
}
