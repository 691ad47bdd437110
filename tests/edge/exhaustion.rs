//! A process without free descriptors: nothing of the server may die of it.

use std::fs::File;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{eventually, in_child, quick, site};

fn limit_descriptors(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).unwrap();
}

#[test]
fn the_server_lives_through_a_shortage_of_descriptors() {
    if !in_child("exhaustion::the_server_lives_through_a_shortage_of_descriptors") {
        return;
    }
    limit_descriptors(400);
    let mut settings = quick();
    settings.idle_deadline = Duration::from_secs(60);
    settings.head_deadline = Duration::from_secs(20);
    let site = site(settings);
    let mut kept: Vec<_> = (0..8).map(|_| site.wire()).collect();
    for wire in &mut kept {
        wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(wire.answer().status, 200);
    }
    for round in 0..3 {
        // A client whose connection waits to be accepted needs its own descriptor beforehand.
        let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        hoard.truncate(hoard.len() - 1);
        let mut waiting = site.wire();
        waiting.send("GET /waited HTTP/1.1\r\nHost: t\r\n\r\n");
        // Those inside are served, streams too.
        kept[round].send("GET /events HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(kept[round].try_answer(true).unwrap().status, 200);
        for _ in 0..50 {
            kept[7].send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(kept[7].answer().status, 200);
        }
        drop(hoard);
        assert!(waiting.answer().text().starts_with("GET /waited?"));
        site.assert_alive();
    }
    // All four handlers can be reached again.
    let mut wires: Vec<_> = (0..4).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    eventually("four slow requests at once", || site.slow_begun.len() == 4);
    (0..4).for_each(|_| site.release.send(()).unwrap());
    assert!(wires.iter_mut().all(|wire| wire.answer().text() == "slow"));
}
