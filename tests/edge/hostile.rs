//! Requests that must never reach a handler, and clients that must not cost one.

use std::time::{Duration, Instant};

use crate::support::{Wire, eventually, quick, resident_kib, site};

const GET: &str = "GET /evil HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn an_absurd_length_is_refused_from_the_head_alone() {
    let site = site(quick());
    for length in ["17592186044416", "9223372036854775807", "18446744073709551615", "100001"] {
        let answer = site.ask(&format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n"));
        answer.assert_refused(413);
        assert!(answer.text().contains(r#""detail":"request body too large""#));
    }
    assert_eq!(site.count(), 0);
    site.assert_alive();
}

#[test]
fn a_client_can_read_its_refusal_while_it_still_sends() {
    let site = site(quick());
    for _ in 0..5 {
        let mut wire = site.wire();
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 500000\r\n\r\n");
        // The refusal is there, and this client goes on regardless. A reset would fail its writes.
        assert_eq!(wire.stream.peek(&mut [0]).unwrap(), 1);
        for _ in 0..10 {
            wire.send_bytes(&vec![b'a'; 50_000]);
            eventually("the server to swallow it", || wire.unread_by_server() == 0);
        }
        wire.answer().assert_refused(413);
        wire.half_close();
        assert!(wire.is_closed());
    }
}

/// As proxies send an upload: they look for an answer when a write fails, or after all of it.
#[test]
fn a_refusal_is_not_overtaken_by_a_reset_while_megabytes_are_on_their_way() {
    let site = site(quick());
    for target in ["/", "/unread", "/upload-early"] {
        let mut wire = site.wire();
        wire.send(&format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 400000000\r\n\r\n"));
        assert_eq!(wire.stream.peek(&mut [0]).unwrap(), 1);
        for _ in 0..80 {
            wire.send_bytes(&vec![b'a'; 100_000]);
        }
        wire.answer().assert_refused(413);
    }
}

#[test]
fn other_versions_of_http_are_refused() {
    let site = site(quick());
    for _ in 0..20 {
        for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2"] {
            site.ask(&format!("GET / {version}\r\nHost: t\r\n\r\n")).assert_refused(505);
        }
        site.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").assert_refused(505);
    }
    assert_eq!(site.count(), 0);
    site.assert_alive();
}

#[test]
fn lengths_that_readers_disagree_about_are_refused() {
    let site = site(quick());
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: five\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: \r\n",
        "Content-Length : 5\r\n",
        "Content-Length:\r\n 5\r\n",
    ] {
        let mut wire = site.wire();
        wire.send(&format!("POST / HTTP/1.1\r\nHost: t\r\n{lengths}\r\nhello{GET}"));
        wire.answer().assert_refused(400);
        // Nothing that follows is taken for a request.
        assert!(wire.is_closed(), "{lengths:?}");
    }
    assert_eq!(site.count(), 0);
}

#[test]
fn a_smuggled_request_is_not_executed() {
    let site = site(quick());
    for coding in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "tRANSFER-eNCODING:\tchunked, chunked\r\n",
    ] {
        let mut wire = site.wire();
        wire.send(&format!("POST / HTTP/1.1\r\nHost: t\r\n{coding}\r\n0\r\n\r\n{GET}"));
        wire.answer().assert_refused(501);
        assert!(wire.is_closed(), "{coding:?}");
    }
    for head in [
        "POST / HTTP/1.1\r\nHost: t\r\nX: 1\n\nGET /evil HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nX: 1\r\n\tTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nX: a\rContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nX: 1\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\n: novalue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nnovalue\r\n\r\n",
    ] {
        site.ask(head).assert_refused(400);
    }
    assert_eq!(site.count(), 0);
}

#[test]
fn a_head_without_bounds_is_refused() {
    let site = site(quick());
    let long = "a".repeat(200_000);
    let many = "X-A: 1\r\n".repeat(1000);
    let before = resident_kib();
    for _ in 0..20 {
        site.ask(&format!("GET / HTTP/1.1\r\nHost: t\r\nX-Long: {long}\r\n\r\n")).assert_refused(431);
        site.ask(&format!("GET / HTTP/1.1\r\nHost: t\r\n{many}\r\n")).assert_refused(431);
        site.ask(&format!("GET /{long} HTTP/1.1\r\nHost: t\r\n\r\n")).assert_refused(431);
    }
    assert!(resident_kib() < before + 30_000);
    assert_eq!(site.count(), 0);
    // Up to the bounds, everything passes.
    let name = "X-A: 1\r\n".repeat(63);
    assert_eq!(site.ask(&format!("GET / HTTP/1.1\r\nHost: t\r\n{name}\r\n")).status, 200);
    let value = "a".repeat(16_000);
    let answer = site.ask(&format!("GET / HTTP/1.1\r\nHost: t\r\nX-A: {value}\r\n\r\n"));
    assert!(answer.status == 200 && answer.text().contains(&value));
}

#[test]
fn pipelined_requests_wait_on_the_wire_and_not_in_memory() {
    const REQUESTS: usize = 65_536;
    let site = site(quick());
    let before = resident_kib();
    let mut wire = site.wire();
    let sender = {
        let mut wire = Wire { stream: wire.stream.try_clone().unwrap(), buffer: Vec::new() };
        std::thread::spawn(move || {
            for start in (0..REQUESTS).step_by(256) {
                let batch: String = (start..start + 256)
                    .map(|i| format!("HEAD /{i} HTTP/1.1\r\nHost: t\r\nX-Request-ID: {i}\r\n\r\n"))
                    .collect();
                wire.send(&batch);
            }
        })
    };
    for i in 0..REQUESTS {
        let answer = wire.try_answer(true).unwrap();
        assert_eq!(answer.header("x-request-id"), Some(&*i.to_string()));
    }
    sender.join().unwrap();
    assert!(resident_kib() < before + 20_000, "{} KiB more", resident_kib() - before);
}

#[test]
fn a_dripping_head_meets_its_total_deadline() {
    let site = site(quick());
    let started = Instant::now();
    let mut wire = site.wire();
    wire.send("GET / HTTP/1.1\r\nHost: t\r\n");
    wire.stream.set_nonblocking(true).unwrap();
    // A byte every 50 ms keeps any timeout per read from ever firing.
    eventually("the refusal of a dripping head", || {
        let _ = std::io::Write::write(&mut wire.stream, b"X");
        std::thread::sleep(Duration::from_millis(40));
        let _ = wire.read_more();
        wire.buffer.ends_with(b"}")
    });
    wire.try_answer(false).unwrap().assert_refused(408);
    let took = started.elapsed();
    assert!(took > Duration::from_millis(600) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_dripping_body_meets_its_total_deadline_and_holds_no_handler() {
    let site = site(quick());
    let started = Instant::now();
    let mut wires: Vec<_> = (0..16).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 50000\r\n\r\n");
        wire.stream.set_nonblocking(true).unwrap();
    }
    // Four times as many as there are handlers, and still:
    site.assert_alive();
    eventually("the refusal of dripping bodies", || {
        wires.iter_mut().fold(true, |all, wire| {
            let _ = std::io::Write::write(&mut wire.stream, b"x");
            let _ = wire.read_more();
            all & wire.buffer.ends_with(b"}")
        })
    });
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    for wire in &mut wires {
        wire.try_answer(false).unwrap().assert_refused(408);
    }
    assert_eq!(site.count(), 1);
}

#[test]
fn a_truncated_body_is_never_executed() {
    let site = site(quick());
    for sent in [0, 10, 999, 1500, 20_000] {
        let mut wire = site.wire();
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 50000\r\n\r\n");
        wire.send_bytes(&vec![b'a'; sent]);
        wire.half_close();
        wire.answer().assert_refused(400);
    }
    for _ in 0..5 {
        let mut wire = site.wire();
        wire.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 500\r\n\r\nhalf");
    }
    site.assert_alive();
    assert_eq!(site.count(), 1);
}

#[test]
fn a_body_that_nobody_reads_holds_no_handler() {
    let site = site(quick());
    let mut wires: Vec<_> = (0..12).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.send("POST /unread HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n");
    }
    site.assert_alive();
    for wire in &mut wires {
        wire.send_bytes(&[b'a'; 60_000]);
        assert_eq!(wire.answer().text(), "did not look");
        wire.send("GET /after HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(wire.answer().text().starts_with("GET /after?"));
    }
}

#[test]
fn an_upgrade_is_ignored() {
    let site = site(quick());
    let mut wire = site.wire();
    wire.send(
        "POST /up HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AA\r\nContent-Length: 2\r\n\r\nok",
    );
    let text = wire.answer().text();
    assert!(text.ends_with("ok") && !text.to_lowercase().contains("upgrade"), "{text}");
    wire.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(wire.answer().text().starts_with("GET /next?"));
}

#[test]
fn the_peers_address_cannot_be_forged() {
    let site = site(quick());
    let answer = site.ask(
        "GET / HTTP/1.1\r\nHost: t\r\nX-Pyoco-Peer: 6.6.6.6\r\nx-pyoco-peer: 6.6.6.7\r\n\
         X-Forwarded-For: 6.6.6.8\r\nConnection: X-Pyoco-Peer, X-Mine\r\nX-Mine: 1\r\n\r\n",
    );
    let text = answer.text();
    assert!(text.contains("peer=127.0.0.1 ") && !text.contains("6.6.6.6"), "{text}");
    // Named as headers of this connection alone, they are not for handlers.
    assert!(!text.contains("x-pyoco-peer"), "{text}");
    assert!(!text.contains("x-mine"), "{text}");
}

#[test]
fn targets_that_name_no_path_of_ours_are_refused() {
    let site = site(quick());
    site.ask("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n").assert_refused(400);
    site.ask("GET ftp://t/ HTTP/1.1\r\nHost: t\r\n\r\n").assert_refused(400);
    site.ask("CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n").assert_refused(501);
    site.ask("GET / HTTP/1.1\r\n\r\n").assert_refused(400);
}

#[test]
fn garbage_is_answered_at_once() {
    let site = site(quick());
    let started = Instant::now();
    let mut wire = site.wire();
    // The first bytes of a TLS handshake.
    wire.send_bytes(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]);
    wire.answer().assert_refused(400);
    assert!(started.elapsed() < Duration::from_millis(2400), "{:?}", started.elapsed());
}

/// A small generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

#[test]
fn thousands_of_random_connections_leave_nothing_behind() {
    let site = site(quick());
    site.assert_alive();
    let before = resident_kib();
    let pieces: [&[u8]; 24] = [
        b"GET ",
        b"POST ",
        b"/",
        b"*",
        b" HTTP/1.1",
        b" HTTP/2.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"Host: t\r\n",
        b"Content-Length: ",
        b"5",
        b"99999999999",
        b"-1",
        b"Transfer-Encoding: chunked",
        b"Connection: upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"\0",
        b"\xff\xfe",
        b":",
        b" ",
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
        b"0\r\n\r\n",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let address = site.address;
            std::thread::spawn(move || {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (worker + 1));
                for _ in 0..600 {
                    let mut wire = Wire::to(address);
                    let mut bytes = Vec::new();
                    for _ in 0..dice.roll(30) {
                        match dice.roll(8) {
                            0 => bytes.push(dice.roll(256) as u8),
                            _ => bytes.extend_from_slice(pieces[dice.roll(pieces.len())]),
                        }
                    }
                    // The server may have refused and closed already.
                    let _ = std::io::Write::write_all(&mut wire.stream, &bytes);
                    match dice.roll(3) {
                        0 => {}
                        1 => {
                            let _ = wire.stream.shutdown(std::net::Shutdown::Write);
                            let _ = wire.read_to_end();
                        }
                        _ => {
                            wire.stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
                            let _ = wire.read_more();
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    site.assert_alive();
    let mut wires: Vec<_> = (0..16).map(|_| site.wire()).collect();
    wires.iter_mut().for_each(|wire| wire.send(GET));
    assert!(wires.iter_mut().all(|wire| wire.answer().status == 200));
    assert!(resident_kib() < before + 40_000, "{} KiB more", resident_kib() - before);
}
