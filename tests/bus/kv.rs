//! Get, put, compare-and-set, delete.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use pyoco_server::bus::{Error, Operation};

use crate::connect;
use crate::support::nats::NatsServer;

#[test]
fn a_value_is_created_read_updated_and_deleted() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    assert!(kv.get("a").unwrap().is_none());
    assert!(kv.get_for_show("a").unwrap().is_none());
    let first = kv.create("a", b"1").unwrap();
    assert!(matches!(kv.create("a", b"2"), Err(Error::Conflict(_))));
    let second = kv.update("a", b"2", first).unwrap();
    assert!(second > first);
    assert!(matches!(kv.update("a", b"3", first), Err(Error::Conflict(_))));
    for entry in [kv.get("a").unwrap().unwrap(), kv.get_for_show("a").unwrap().unwrap()] {
        assert_eq!((entry.value.as_slice(), entry.revision), (&b"2"[..], second));
    }
    assert!(matches!(kv.delete("a", first), Err(Error::Conflict(_))));
    kv.delete("a", second).unwrap();
    assert!(kv.get("a").unwrap().is_none());
    assert!(kv.get_for_show("a").unwrap().is_none());
    assert_eq!(kv.newest("a").unwrap().unwrap().operation, Operation::Delete);
    kv.create("a", b"4").unwrap();
    assert_eq!(kv.get("a").unwrap().unwrap().value, b"4");
}

#[test]
fn names_that_would_forge_a_subject_never_reach_the_wire() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    for bad in ["", "a b", "a*", ">", "a\r\nPUB x 1", "a..b", "é"] {
        assert!(matches!(kv.put(bad, b"x"), Err(Error::BadName(_))), "{bad:?}");
        assert!(matches!(kv.get(bad), Err(Error::BadName(_))), "{bad:?}");
    }
    kv.put("good", b"x").unwrap();
}

#[test]
fn of_many_writers_on_one_revision_exactly_one_wins() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    let mut revision = kv.create("a", b"0").unwrap();
    for round in 0..20 {
        let barrier = Barrier::new(8);
        let results: Vec<_> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|n| {
                    let (kv, barrier) = (kv.clone(), &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        kv.update("a", format!("{round}-{n}").as_bytes(), revision)
                    })
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let won: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(Error::Conflict(_)))));
        revision = *won[0];
    }
}

#[test]
fn a_message_over_max_payload_is_refused_before_it_costs_the_connection() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let kv = bus.runs();
    let huge = vec![b'x'; 2 * 1024 * 1024];
    assert!(matches!(kv.put("a", &huge), Err(Error::TooLarge { .. })));
    kv.put("a", b"small").unwrap();
    assert_eq!(bus.state().disconnects, 0);
}

#[test]
fn a_sequential_put_does_not_wait_for_the_crates_flush() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    kv.put("warm", b"x").unwrap();
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let before = Instant::now();
        for n in 0..50 {
            kv.put(&format!("k{n}"), b"x").unwrap();
        }
        best = best.min(before.elapsed());
    }
    // The crate alone takes 5 ms each, 250 ms at its best moment too; the bench has the exact figure.
    assert!(best < Duration::from_millis(50 * 4), "50 puts took {best:?} at best");
}
