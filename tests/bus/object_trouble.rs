//! The object store when bytes are missing or others, when it is full, and when the server goes.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyoco_server::bus::{Bus, Error, ObjectStore};
use pyoco_server::config::Config;
use serde_json::Map;

use crate::connect;
use crate::objects::{chunks, names, python, read, sample, sealed, stored, subjects};
use crate::support::measure;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::wait::eventually;

/// How much later than its deadline a call may return on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn bytes_that_are_not_what_was_stored_are_found_out() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let bytes = sample(300_000);
    let problem = |command: &str, arguments: &[&str]| -> String {
        let meta = stored(&store, command, &bytes);
        let subject = format!("C.{}", meta.nuid);
        python(&server, &[&[command, &subject], arguments].concat(), b"");
        let Err(Error::Damaged { object, problem }) = read(&store, &meta) else { panic!() };
        assert_eq!(object, command);
        // What is whole is read all the same.
        let whole = stored(&store, "whole", &bytes);
        assert_eq!(read(&store, &whole).unwrap(), bytes);
        problem
    };
    assert_eq!(problem("alter", &[]), "its digest is wrong");
    assert_eq!(problem("drop", &[]), "bytes are missing");
    let meta = stored(&store, "more", &bytes);
    let smaller = pyoco_server::bus::ObjectMeta { size: 200_000, ..meta.clone() };
    assert!(matches!(read(&store, &smaller), Err(Error::Damaged { .. })));
    let unknown = pyoco_server::bus::ObjectMeta { digest: "MD5=x".into(), ..meta };
    assert!(matches!(read(&store, &unknown), Err(Error::Damaged { .. })));
}

#[test]
fn without_direct_gets_the_leader_is_read() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let meta = stored(&store, "a", &sample(300_000));
    python(&server, &["leader_only"], b"");
    assert_eq!(read(&store, &meta).unwrap(), sample(300_000));
}

#[test]
fn a_reader_may_stop_or_fail() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let meta = stored(&store, "a", &sample(1_000_000));
    let pieces = AtomicUsize::new(0);
    let mut count = |_: &[u8]| {
        pieces.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let ended = store.read(&meta, &mut count, &|| pieces.load(Ordering::SeqCst) == 3);
    assert!(matches!(ended, Err(Error::Stopped(_))), "{ended:?}");
    assert_eq!(pieces.load(Ordering::SeqCst), 3);
    let mut fail = |_: &[u8]| Err(io::Error::other("the disk is full"));
    let error = store.read(&meta, &mut fail, &|| false).unwrap_err();
    assert!(matches!(error, Error::Sink { .. }), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

/// A store that takes so much.
fn small_store(server: &NatsServer, bytes: i64) -> ObjectStore {
    let mut config = Config::default();
    config.nats.url = server.url();
    config.resources.wheels_max_bytes = bytes;
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(Duration::from_secs(10)));
    bus.wheels()
}

#[test]
fn a_full_store_refuses_an_upload_and_keeps_what_it_has() {
    let server = NatsServer::start();
    let store = small_store(&server, 1_000_000);
    let meta = stored(&store, "a", &sample(500_000));
    let before = subjects(&server);
    let mut upload = store.upload().unwrap();
    let bytes = sample(50_000);
    let error = (0..100).find_map(|_| upload.write(&bytes).err()).expect("no room");
    assert!(error.is_store_full(), "{error}");
    assert!(!error.is_outcome_unknown() && !error.is_transient());
    // It is over: also what would have fitted is refused, and it cannot be sealed.
    assert!(upload.write(b"x").unwrap_err().is_store_full());
    assert!(upload.seal().is_err_and(|e| e.is_store_full()));
    assert_eq!(subjects(&server), before);
    assert_eq!(read(&store, &meta).unwrap().len(), 500_000);
    store.delete(&meta).unwrap();
    stored(&store, "b", &sample(700_000));
}

#[test]
fn from_a_store_that_is_full_to_the_last_byte_something_can_be_deleted() {
    let server = NatsServer::start();
    let store = small_store(&server, 500_000);
    let meta = stored(&store, "a", &sample(200_000));
    let sealed = sealed(&store, b"x");
    python(&server, &["fill"], b"");
    let error = sealed.publish("b", Map::new(), meta.revision).unwrap_err();
    assert!(error.is_store_full(), "{error}");
    assert!(store.delete(&meta).unwrap().is_some());
    let revision = store.list().unwrap().revision;
    assert!(revision > meta.revision && names(&store).is_empty());
    // The refused one can still be named.
    let late = sealed.publish("b", Map::new(), revision).unwrap();
    assert_eq!((late.nuid.as_str(), read(&store, &late).unwrap()), (sealed.nuid(), b"x".to_vec()));
}

#[test]
fn a_server_that_takes_small_messages_only_gets_small_chunks() {
    let options = NatsOptions { max_payload: Some(64 * 1024), ..NatsOptions::default() };
    let server = NatsServer::start_with(options);
    let store = connect(&server).wheels();
    let meta = stored(&store, "a", &sample(300_000));
    assert_eq!(meta.options["max_chunk_size"], 62 * 1024);
    assert_eq!(read(&store, &meta).unwrap(), sample(300_000));
    assert_eq!(python(&server, &["get", "a"], b""), sample(300_000));
}

#[test]
fn what_nobody_names_goes_when_nothing_was_added_for_long() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    assert_eq!(store.purge_orphans(Duration::ZERO).unwrap(), 0);
    let kept = stored(&store, "kept", &sample(300_000));
    let deleted = stored(&store, "deleted", b"x");
    store.delete(&deleted).unwrap();
    python(&server, &["add", "C.lost", "5000"], b"");
    python(&server, &["add", "C.lost", "5000"], b"");
    // The purge of a deleted object's bytes may have failed.
    python(&server, &["add", &format!("C.{}", deleted.nuid), "10"], b"");
    let mut young = store.upload().unwrap();
    young.write(&sample(200_000)).unwrap();
    assert_eq!(store.purge_orphans(Duration::from_secs(60)).unwrap(), 0);
    let young = young.seal().unwrap();
    assert_eq!(chunks(&server), 3 + 2 + 1 + 2);
    let revision = store.list().unwrap().revision;
    young.publish("young", Map::new(), revision).unwrap();
    assert_eq!(store.purge_orphans(Duration::ZERO).unwrap(), 2);
    assert_eq!(chunks(&server), 3 + 2);
    assert_eq!(read(&store, &kept).unwrap(), sample(300_000));
    // A meta that cannot be read may name anything.
    python(&server, &["add", "C.lost", "10"], b"");
    python(&server, &["add", "M.YQ==", "10"], b"");
    assert!(matches!(store.purge_orphans(Duration::ZERO), Err(Error::BadAnswer(_))));
    assert_eq!(names(&store), ["kept", "young"]);
    assert_eq!(chunks(&server), 3 + 2 + 1);
}

#[test]
fn a_server_that_goes_ends_an_upload_in_time_and_what_is_left_is_found() {
    let mut server = NatsServer::start();
    let store = connect(&server).wheels();
    let kept = stored(&store, "kept", b"x");
    let mut upload = store.upload().unwrap();
    upload.write(&sample(1_000_000)).unwrap();
    server.stop();
    let before = Instant::now();
    let bytes = sample(1_000_000);
    assert!((0..10).any(|_| upload.write(&bytes).is_err()));
    assert!(upload.write(b"x").is_err(), "a chunk is missing");
    drop(upload);
    assert!(before.elapsed() < Duration::from_secs(6) + SLACK, "{:?}", before.elapsed());
    server.restart();
    eventually(Duration::from_secs(10), "what is left is removed", || {
        let purged = store.purge_orphans(Duration::ZERO).ok()?;
        (purged == 1 && chunks(&server) == 1).then_some(())
    });
    assert_eq!(read(&store, &kept).unwrap(), b"x");
}

#[test]
fn a_frozen_server_ends_an_upload_in_time() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let mut upload = store.upload().unwrap();
    upload.write(&sample(1_000_000)).unwrap();
    server.pause();
    let before = Instant::now();
    let bytes = sample(1_000_000);
    assert!((0..10).any(|_| upload.write(&bytes).is_err()));
    drop(upload);
    assert!(before.elapsed() < Duration::from_secs(7) + SLACK, "{:?}", before.elapsed());
    server.resume();
}

#[test]
fn an_object_whose_commit_is_in_doubt_has_its_bytes_if_it_is_there() {
    let server = NatsServer::start();
    let store = connect(&server).wheels().with_timeout(Duration::from_millis(300));
    let patient = store.with_timeout(Duration::from_secs(10));
    let answered = Duration::from_secs(10);
    let bytes = sample(300_000);
    for round in 0..10 {
        let name = format!("{round}");
        let listing = eventually(answered, "the server answers", || patient.list().ok());
        let upload = eventually(answered, "it takes an upload", || {
            let mut upload = store.upload().ok()?;
            upload.write(&bytes).ok()?;
            upload.seal().ok()
        });
        // The server stands still at some moment between the first request and the last answer.
        let result = std::thread::scope(|scope| {
            let commit = scope.spawn(|| upload.publish(&name, Map::new(), listing.revision));
            std::thread::sleep(Duration::from_micros(60 * round));
            server.pause();
            commit.join().unwrap()
        });
        server.resume();
        drop(upload);
        match result {
            Ok(meta) => {
                let found = eventually(answered, "it answers again", || patient.find(&name).ok());
                assert_eq!(found, Some(meta));
            }
            Err(error) => assert!(error.is_outcome_unknown(), "{error}"),
        }
    }
    eventually(answered, "the server answers", || patient.purge_orphans(Duration::ZERO).ok());
    let objects = patient.list().unwrap().objects;
    for meta in &objects {
        assert_eq!(read(&patient, meta).unwrap(), bytes, "{}", meta.name);
    }
    assert_eq!(chunks(&server), 3 * objects.len() as u64);
}

#[test]
fn neither_a_slow_writer_nor_a_slow_reader_is_taken_for_a_slow_server() {
    let server = NatsServer::start();
    let timeout = Duration::from_secs(1);
    let store = connect(&server).wheels().with_timeout(timeout);
    let bytes = sample(1_200_000);
    let mut upload = store.upload().unwrap();
    for half in bytes.chunks(600_000) {
        upload.write(half).unwrap();
        std::thread::sleep(timeout + timeout / 2);
    }
    let meta = upload.seal().unwrap().publish("a", Map::new(), 0).unwrap();
    let mut got = Vec::new();
    let mut sink = |piece: &[u8]| {
        if got.is_empty() {
            std::thread::sleep(timeout + timeout / 2);
        }
        got.extend_from_slice(piece);
        Ok(())
    };
    store.read(&meta, &mut sink, &|| false).unwrap();
    assert_eq!(got, bytes);
}

#[test]
fn a_read_goes_on_after_a_short_outage() {
    let mut server = NatsServer::start();
    let store = connect(&server).wheels().with_timeout(Duration::from_secs(10));
    let bytes = sample(1_000_000);
    let meta = stored(&store, "a", &bytes);
    let restarted = AtomicBool::new(false);
    let mut got = Vec::new();
    let mut sink = |piece: &[u8]| {
        got.extend_from_slice(piece);
        if !restarted.swap(true, Ordering::SeqCst) {
            server.restart();
        }
        Ok(())
    };
    store.read(&meta, &mut sink, &|| false).unwrap();
    assert_eq!(got, bytes);
}

/// Set in the child of a test that measures its process, and so needs one of its own.
const CHILD: &str = "PYOCO_TEST_CHILD";
const LARGE: usize = 200_000_000;
/// What moving it may cost: chunks under way, and what the connection buffers of them.
const MAX_GROWTH_KIB: u64 = 4 * 1024;

#[test]
fn a_large_object_moves_in_little_memory() {
    if std::env::var_os(CHILD).is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "object_trouble::a_large_object_moves_in_little_memory"])
            .args(["--nocapture"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let piece = sample(1_000_000);
    let warm = stored(&store, "warm", &piece);
    read(&store, &warm).unwrap();
    let before = measure::resident_kib(measure::own());
    // From here on the peak is counted anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let started = Instant::now();
    let mut upload = store.upload().unwrap();
    (0..LARGE / piece.len()).for_each(|_| upload.write(&piece).unwrap());
    let meta = upload.seal().unwrap().publish("large", Map::new(), warm.revision).unwrap();
    let uploaded = (started.elapsed(), measure::peak_kib(measure::own()).saturating_sub(before));
    let started = Instant::now();
    let mut size = 0;
    let mut count = |bytes: &[u8]| {
        size += bytes.len();
        Ok(())
    };
    store.read(&meta, &mut count, &|| false).unwrap();
    assert_eq!(size, LARGE);
    let read = (started.elapsed(), measure::peak_kib(measure::own()).saturating_sub(before));
    println!("200 MB: stored {uploaded:?}, read {read:?} (time, KiB)");
    assert!(read.1 < MAX_GROWTH_KIB, "{} KiB more", read.1);
}
