//! The end of a server.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, descriptors, eventually, in_child, quick, site, threads};

#[test]
fn a_graceful_stop_finishes_what_is_in_flight_and_nothing_else() {
    let mut settings = quick();
    settings.idle_deadline = Duration::from_secs(60);
    let mut site = site(settings);
    let mut idle: Vec<_> = (0..10).map(|_| site.wire()).collect();
    for wire in &mut idle {
        wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(wire.answer().status, 200);
    }
    let mut half = site.wire();
    half.send("GET / HT");
    let mut wire = site.wire();
    wire.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    site.slow_begun.recv_timeout(PATIENCE).unwrap();
    let server = site.server.take().unwrap();
    let stopper = std::thread::spawn(move || {
        let started = Instant::now();
        (server.stop(Duration::from_secs(15)), started.elapsed())
    });
    // Whoever waits for nothing is sent away at once.
    for wire in idle.iter_mut().chain([&mut half]) {
        assert!(wire.is_closed());
    }
    assert!(!stopper.is_finished());
    assert!(TcpStream::connect(site.address).is_err());
    site.release.send(()).unwrap();
    let answer = wire.answer();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("slow", Some("close")));
    let (finished, took) = stopper.join().unwrap();
    assert!(finished && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_stop_cuts_what_does_not_end() {
    let mut site = site(quick());
    let mut stream = site.wire();
    stream.send("GET /events HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(stream.try_answer(true).unwrap().status, 200);
    let mut slow = site.wire();
    slow.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    site.slow_begun.recv_timeout(PATIENCE).unwrap();
    let server = site.server.take().unwrap();
    let started = Instant::now();
    assert!(!server.stop(Duration::from_millis(300)));
    let took = started.elapsed();
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    assert!(stream.try_chunk().is_err());
    assert!(slow.try_answer(true).is_err());
    site.events.take();
    site.release.send(()).unwrap();
    eventually("the handlers that were left behind", || site.stream_ended.try_recv().is_ok());
}

#[test]
fn nothing_is_left_of_a_stopped_server() {
    if !in_child("stop::nothing_is_left_of_a_stopped_server") {
        return;
    }
    let (threads_before, files_before) = (threads(), descriptors());
    for dropped in [false, true] {
        let mut site = site(quick());
        let mut wires: Vec<_> = (0..30).map(|_| site.wire()).collect();
        for wire in &mut wires {
            wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(wire.answer().status, 200);
        }
        assert!(threads() >= threads_before + 30 + 2);
        let server = site.server.take().unwrap();
        if dropped {
            drop(server);
        } else {
            assert!(server.stop(Duration::from_secs(5)));
        }
        assert_eq!(ours(), 0);
        drop((wires, site));
        eventually("the end of all threads", || threads() == threads_before);
        eventually("the end of all descriptors", || descriptors() == files_before);
    }
}

/// Threads that a server has started.
fn ours() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("http-")).count()
}
