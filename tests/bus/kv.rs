//! Get, put, compare-and-set, delete.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use pyoco_server::bus::{Edit, Entry, Error, Operation};

use crate::connect;
use crate::support::jetstream;
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
fn a_write_test_leaves_no_key_behind_and_finds_a_bucket_that_refuses() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let runs = bus.runs();
    for _ in 0..3 {
        runs.test_write().unwrap();
    }
    assert!(runs.get("pyoco_write_test").unwrap().is_none());
    assert_eq!(jetstream::messages(&server, "KV_pyoco_runs"), 1);
    jetstream::update(&server, "KV_pyoco_runs", |config| config["max_msg_size"] = 8.into());
    assert!(matches!(runs.test_write(), Err(Error::Api { .. })));
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

fn count(newest: Option<&Entry>) -> u64 {
    let text = newest.and_then(Entry::live_value).map(|value| String::from_utf8_lossy(value));
    text.map_or(0, |text| text.parse().unwrap())
}

#[test]
fn edits_of_one_key_are_decided_on_the_newest_value_and_none_is_lost() {
    const WRITERS: u64 = 4;
    const EDITS: u64 = 10;
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for _ in 0..EDITS {
                    let add = |newest: Option<&Entry>| {
                        let next = count(newest) + 1;
                        Ok::<_, Error>(Edit::Put(next.to_string().into_bytes(), next))
                    };
                    let edited = kv.edit("a", deadline, add).unwrap();
                    let written = edited.written.unwrap();
                    assert_eq!(written.value, edited.result.to_string().into_bytes());
                }
            });
        }
    });
    assert_eq!(count(kv.get("a").unwrap().as_ref()), WRITERS * EDITS);
}

#[test]
fn an_edit_may_delete_leave_or_fail_and_a_known_revision_saves_the_read() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    let first = kv.create("a", b"1").unwrap();
    // On a conflict, and only then, the newest value is looked at.
    let mut looks = 0;
    let mut after_conflict = |newest: Option<&Entry>| {
        looks += 1;
        Ok::<_, Error>(Edit::Put(format!("{} and 3", count(newest)).into_bytes(), ()))
    };
    let put = |text: &str| Edit::Put(text.into(), ());
    let edited = kv.edit_from("a", first, put("2"), kv.deadline(), &mut after_conflict).unwrap();
    assert!(edited.written.unwrap().revision > first);
    let edited = kv.edit_from("a", first, put("3"), kv.deadline(), &mut after_conflict).unwrap();
    let written = edited.written.unwrap();
    assert_eq!((written.value.as_slice(), looks), (&b"2 and 3"[..], 1));

    let left = kv.edit("a", kv.deadline(), |_| Ok::<_, Error>(Edit::Leave(7))).unwrap();
    assert_eq!((left.result, left.written.is_none()), (7, true));
    let failed = kv.edit("a", kv.deadline(), |_| Err::<Edit<()>, _>(Error::Stopped("x".into())));
    assert!(matches!(failed, Err(Error::Stopped(_))));
    assert_eq!(kv.newest("a").unwrap().unwrap().revision, written.revision);

    let deleted = kv.edit("a", kv.deadline(), |_| Ok::<_, Error>(Edit::Delete(()))).unwrap();
    assert_eq!(deleted.written.unwrap().operation, Operation::Delete);
    // A tombstone for a key that never was makes a create of it that is under way fail.
    kv.edit("b", kv.deadline(), |_| Ok::<_, Error>(Edit::Delete(()))).unwrap();
    assert!(matches!(kv.update("b", b"1", 0), Err(Error::Conflict(_))));
}

#[test]
fn an_edit_that_others_outrun_each_time_ends_as_a_conflict() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    kv.create("a", b"0").unwrap();
    let outrun = |newest: Option<&Entry>| {
        kv.put("a", b"other")?;
        Ok::<_, Error>(Edit::Put(newest.unwrap().value.clone(), ()))
    };
    let until = Instant::now() + Duration::from_secs(30);
    assert!(matches!(kv.edit("a", until, outrun), Err(Error::Conflict(_))));
}
