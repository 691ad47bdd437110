//! Uploads that break off, that never end, or that mean harm.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, UPLOAD_LIMIT, descriptors, eventually, in_child, quick, site};
use crate::uploads::{content, expected, head};

const ENDED_EARLY: &str = "request body ended early";

#[test]
fn an_upload_that_breaks_off_is_an_error_for_its_handler() {
    let site = site(quick());
    for sent in [0, 1, 1000, 70_000, 999_999] {
        let mut wire = site.wire();
        wire.send(&head("/upload", 1_000_000, ""));
        wire.send_bytes(&content(sent));
        eventually("the handler", || site.count() > 0);
        let gone = Instant::now();
        drop(wire);
        assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()), "{sent}");
        assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
        // Whoever can still hear it is told so.
        let mut wire = site.wire();
        wire.send(&head("/upload", 1_000_000, ""));
        wire.send_bytes(&content(sent));
        wire.half_close();
        let answer = wire.answer();
        answer.assert_refused(400);
        assert!(answer.text().contains(ENDED_EARLY));
        assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()), "{sent}");
    }
    // A form, too, and even when all of its parts have come.
    let mut wire = site.wire();
    let form = "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--XX--\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=XX\r\n";
    wire.send(&head("/upload-form", form.len() as u64 + 1, kind));
    wire.send(form);
    wire.half_close();
    wire.answer().assert_refused(400);
    assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()));
}

#[test]
fn a_client_that_falls_silent_or_drips_is_given_up() {
    let mut settings = quick();
    settings.upload_rate = 1000;
    let site = site(settings);
    let mut silent = site.wire();
    silent.send(&head("/upload", 1_000_000, ""));
    silent.send_bytes(&content(70_000));
    let started = Instant::now();
    silent.answer().assert_refused(408);
    let took = started.elapsed();
    assert!(took > Duration::from_millis(600) && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()));
    // Never silent for long, and below the rate all the same; however much it has announced.
    let mut drip = site.wire();
    drip.send(&head("/upload", 1_000_000, ""));
    drip.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let started = Instant::now();
    let answer = loop {
        let _ = drip.stream.write_all(b"x");
        match drip.try_answer(false) {
            Ok(answer) => break answer,
            Err(_) => assert!(started.elapsed() < PATIENCE),
        }
    };
    answer.assert_refused(408);
    let took = started.elapsed();
    assert!(took > Duration::from_millis(600) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()));
    // Slowly, but fast enough.
    let mut slow = site.wire();
    let body = content(3000);
    slow.send(&head("/upload", 3000, ""));
    for piece in body.chunks(500) {
        std::thread::sleep(Duration::from_millis(300));
        slow.send_bytes(piece);
    }
    assert_eq!(slow.answer().text(), expected(&body));
}

#[test]
fn a_handler_that_never_reads_is_given_up() {
    let mut settings = quick();
    settings.answer_deadline = Duration::from_millis(500);
    let site = site(settings);
    for more in ["", "Expect: 100-continue\r\n"] {
        let mut wire = site.wire();
        wire.send(&head("/upload-held", 5_000_000, more));
        if more.is_empty() {
            // More than fits into what lies between; how much of it goes out is of no matter.
            wire.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = wire.stream.write_all(&content(5_000_000));
        }
        wire.answer().assert_refused(504);
        site.release.send(()).unwrap();
        assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()));
    }
    site.assert_alive();
}

#[test]
fn a_panic_in_the_middle_of_a_body_costs_one_answer() {
    let mut settings = quick();
    settings.max_uploads = 2;
    // The first panic of a process may take a while to be printed.
    settings.body_deadline = Duration::from_secs(10);
    let site = site(settings);
    for _ in 0..10 {
        let mut wire = site.wire();
        wire.send(&head("/upload-panic", 2_000_000, ""));
        wire.send_bytes(&content(150_000));
        let answer = wire.answer();
        assert_eq!((answer.status, answer.header("connection")), (500, Some("close")));
        assert!(wire.is_closed());
    }
    let body = content(100_000);
    assert_eq!(site.upload("/upload-panic", &body).status, 500);
    assert_eq!(site.upload("/upload", &body).text(), expected(&body));
}

#[test]
fn what_a_body_contains_frames_nothing() {
    let site = site(quick());
    let mut wire = site.wire();
    let evil = b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: t\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for spoof in ["", "X-Pyoco-Body: 5\r\n", "x-pyoco-body: 9999999\r\n", "TE: trailers\r\n"] {
        wire.send(&head("/upload", evil.len() as u64, spoof));
        wire.send_bytes(evil);
        // The next request is already there when the body ends.
        wire.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(wire.answer().text(), expected(evil), "{spoof}");
        assert!(wire.answer().text().starts_with("GET /next?"));
    }
    let before = site.count();
    for (more, status) in [
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: 17592186044416\r\n", 413),
        ("Content-Length: 18446744073709551615\r\n", 413),
        ("Content-Length: 18446744073709551616\r\n", 400),
    ] {
        let answer = site.ask(&format!("POST /upload HTTP/1.1\r\nHost: t\r\n{more}\r\n"));
        answer.assert_refused(status);
        assert_eq!(answer.text().contains("upload too large"), status == 413, "{more}");
    }
    let answer = site.ask(&head("/upload", UPLOAD_LIMIT + 1, "Expect: 100-continue\r\n"));
    answer.assert_refused(413);
    assert_eq!(site.count(), before);
    // Whoever sends more than was announced has sent another request, and no good one.
    let mut wire = site.wire();
    wire.send(&head("/upload", 5, ""));
    wire.send("hello world\r\n\r\n");
    assert_eq!(wire.answer().text(), expected(b"hello"));
    wire.answer().assert_refused(400);
}

#[test]
fn a_stop_lets_an_upload_finish_or_cuts_it() {
    for finishes in [true, false] {
        let mut site = site(quick());
        let body = content(1_000_000);
        let mut wire = site.wire();
        wire.send(&head("/upload", body.len() as u64, ""));
        wire.send_bytes(&body[..500_000]);
        eventually("the handler", || site.count() == 1);
        let server = site.server.take().unwrap();
        let grace = if finishes { PATIENCE } else { Duration::from_millis(300) };
        let stopper = std::thread::spawn(move || {
            let started = Instant::now();
            (server.stop(grace), started.elapsed())
        });
        if finishes {
            eventually("the end of the port", || std::net::TcpStream::connect(site.address).is_err());
            wire.send_bytes(&body[500_000..]);
            let answer = wire.answer();
            assert_eq!(answer.text(), expected(&body));
            assert_eq!(answer.header("connection"), Some("close"));
        } else {
            assert_eq!(site.outcome(), Err(ENDED_EARLY.to_owned()));
        }
        let (finished, took) = stopper.join().unwrap();
        assert_eq!(finished, finishes);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn broken_uploads_leave_nothing_behind() {
    if !in_child("broken_uploads::broken_uploads_leave_nothing_behind") {
        return;
    }
    let site = site(quick());
    site.assert_alive();
    let files = descriptors();
    for round in 0..100 {
        let mut wire = site.wire();
        wire.send(&head(["/upload", "/upload-refused", "/upload-half"][round % 3], 1_000_000, ""));
        wire.send_bytes(&content(round * 10));
    }
    eventually("the end of all uploads", || site.server.as_ref().unwrap().connections() == 0);
    eventually("the end of all descriptors", || descriptors() <= files);
    // All four handlers can be reached.
    let mut wires: Vec<_> = (0..4).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    eventually("four slow requests at once", || site.slow_begun.len() == 4);
    (0..4).for_each(|_| site.release.send(()).unwrap());
    assert!(wires.iter_mut().all(|wire| wire.answer().text() == "slow"));
}

#[test]
fn a_crowd_of_refused_uploads_leaves_room_for_requests() {
    let site = site(quick());
    let until = Instant::now() + Duration::from_secs(2);
    let (refused, slowest) = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut refused = 0;
                    while Instant::now() < until {
                        let answer = site.upload("/upload-refused", b"for nothing");
                        assert!([401, 503].contains(&answer.status), "{answer:?}");
                        refused += 1;
                    }
                    refused
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            let asked = Instant::now();
            site.assert_alive();
            slowest = slowest.max(asked.elapsed());
        }
        (crowd.into_iter().map(|one| one.join().unwrap()).sum::<u32>(), slowest)
    });
    println!("{refused} uploads refused, the slowest request between them took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn no_part_of_a_body_is_ever_taken_for_the_whole() {
    let mut settings = quick();
    settings.body_deadline = Duration::from_secs(5);
    // Whoever breaks off holds a place for a moment longer, and comes again at once.
    settings.max_uploads = 64;
    let site = site(settings);
    let bytes = content(400_000);
    let whole = std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=6u64)
            .map(|client| {
                let (site, bytes) = (&site, &bytes);
                scope.spawn(move || {
                    let mut whole = 0;
                    for round in 0..60u64 {
                        let random = (client * 7919 + round * 104_729) % 399_989;
                        let length = usize::try_from(random + 1).unwrap();
                        // One in three is sent to its end, the others break off somewhere.
                        let cut = if round % 3 == 0 { length } else { length * 7 / 9 };
                        let mut wire = site.wire();
                        wire.send(&head("/upload", length as u64, ""));
                        for piece in bytes[..cut].chunks(1 + length / 5) {
                            wire.send_bytes(piece);
                        }
                        match round % 3 {
                            0 => assert_eq!(wire.answer().text(), expected(&bytes[..length])),
                            1 => wire.half_close(),
                            _ => {}
                        }
                        whole += usize::from(cut == length);
                        if round % 3 == 1 && cut < length {
                            wire.answer().assert_refused(400);
                        }
                    }
                    whole
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    eventually("the end of all uploads", || site.server.as_ref().unwrap().connections() == 0);
    eventually("the end of all handlers", || site.uploaded.len() == site.count());
    let ended: Vec<_> = site.uploaded.try_iter().collect();
    assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), whole);
    assert!(ended.iter().flatten().all(|count| *count > 0));
    assert!(whole >= 120 && ended.len() > whole + 100, "{whole} of {}", ended.len());
}

#[test]
fn a_handler_is_not_told_that_a_chunked_body_has_ended_before_it_has() {
    let site = site(quick());
    for (body, ok) in [
        ("5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", true),
        ("5\r\nhello\r\n5;a=b\r\nworld\r\n0\r\nTrailer: x\r\n\r\n", true),
        // Cut in a chunk, between two, behind the last byte, and in the end mark.
        ("a\r\nhello", false),
        ("5\r\nhello\r\n", false),
        ("a\r\nhelloworld\r\n", false),
        ("a\r\nhelloworld\r\n0\r\n", false),
        // Not in chunks.
        ("a\r\nhelloworldx", false),
        ("hello", false),
        ("-5\r\nhello\r\n0\r\n\r\n", false),
        ("5\nhello\n0\n\n", false),
    ] {
        for path in ["/upload", "/whole"] {
            let mut wire = site.wire();
            let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
            wire.send(&(head + body));
            wire.half_close();
            if path == "/upload" {
                let expected = if ok { Ok(10) } else { Err(ENDED_EARLY.to_owned()) };
                assert_eq!(site.outcome(), expected, "{body:?}");
            }
            let answer = wire.answer();
            if ok {
                assert_eq!(answer.status, 200, "{body:?}");
            } else {
                answer.assert_refused(400);
            }
        }
    }
}

#[test]
fn a_chunked_body_is_bounded_as_any_other() {
    let site = site(quick());
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    for (path, chunks, status) in [("/", 10, 200), ("/", 11, 413), ("/big", 100, 200)] {
        let mut wire = site.wire();
        wire.send(&format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"));
        (0..chunks).for_each(|_| wire.send(&chunk));
        wire.send("0\r\n\r\n");
        let answer = wire.answer();
        assert_eq!(answer.status, status, "{path} {chunks}");
        if status == 200 {
            assert!(answer.text().ends_with(&format!("body {} bytes", chunks * 10_000)));
            // The connection goes on behind the last chunk.
            wire.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
            assert!(wire.answer().text().starts_with("GET /next?"));
        } else {
            answer.assert_refused(413);
        }
    }
    // Leave to send is asked for as with any other body, and what drips meets the same deadline.
    let mut wire = site.wire();
    wire.send("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(wire.answer().status, 100);
    wire.send("3\r\nabc\r\n");
    wire.answer().assert_refused(408);
}
