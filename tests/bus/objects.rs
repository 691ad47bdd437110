//! The object store: beside nats-py, and against each other.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use pyoco_server::bus::{Bus, Error, ObjectMeta, ObjectStore, Sealed};
use pyoco_server::config::Config;
use serde_json::{Map, Value, json};

use crate::connect;
use crate::outage::connections;
use crate::support::nats::NatsServer;
use crate::support::python::V08;
use crate::support::wait::eventually;

/// Runs a command of `object_store.py`.
pub fn python(server: &NatsServer, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(V08.path())
        .args(["-c", include_str!("object_store.py"), &server.url()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{arguments:?}");
    ended.stdout
}

pub fn python_json(server: &NatsServer, arguments: &[&str]) -> Value {
    serde_json::from_slice(&python(server, arguments, b"")).unwrap()
}

/// The subjects of the store that have messages, without their common beginning, and how many.
pub fn subjects(server: &NatsServer) -> Vec<(String, u64)> {
    let found = python_json(server, &["subjects"]);
    let counts = found.as_object().unwrap().iter();
    counts.map(|(s, n)| (s["$O.pyoco_wheels.".len()..].to_owned(), n.as_u64().unwrap())).collect()
}

pub fn chunks(server: &NatsServer) -> u64 {
    subjects(server).iter().filter(|(s, _)| s.starts_with("C.")).map(|(_, n)| n).sum()
}

/// Bytes that differ everywhere.
pub fn sample(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

pub fn sealed(store: &ObjectStore, bytes: &[u8]) -> Sealed {
    let mut upload = store.upload().unwrap();
    bytes.chunks(50_000).for_each(|piece| upload.write(piece).unwrap());
    assert_eq!(upload.size(), bytes.len() as u64);
    upload.seal().unwrap()
}

pub fn stored(store: &ObjectStore, name: &str, bytes: &[u8]) -> ObjectMeta {
    let revision = store.list().unwrap().revision;
    sealed(store, bytes).publish(name, Map::new(), revision).unwrap()
}

pub fn read(store: &ObjectStore, meta: &ObjectMeta) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    store.read(meta, &mut sink, &|| false)?;
    Ok(bytes)
}

pub fn names(store: &ObjectStore) -> Vec<String> {
    store.list().unwrap().objects.into_iter().map(|meta| meta.name).collect()
}

#[test]
fn python_reads_what_we_store_and_we_what_python_stores() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    assert!(store.find("a").unwrap().is_none());
    assert_eq!((names(&store), store.list().unwrap().revision), (vec![], 0));
    for (name, size) in [("empty", 0), ("ä ö.whl", 5), ("exact", 262_144), ("long", 300_001)] {
        let bytes = sample(size);
        let headers: Map<String, Value> = [("sha256".to_owned(), json!("x"))].into_iter().collect();
        let revision = store.list().unwrap().revision;
        let meta = sealed(&store, &bytes).publish(name, headers, revision).unwrap();
        assert_eq!((meta.size, meta.chunks), (size as u64, size.div_ceil(131_072) as u64));
        assert_eq!(store.find(name).unwrap().as_ref(), Some(&meta));
        assert_eq!(python(&server, &["get", name], b""), bytes, "{name}");
        assert_eq!(read(&store, &meta).unwrap(), bytes, "{name}");
        let (ours, theirs) = (format!("our {name}"), format!("their {name}"));
        python(&server, &["put", &theirs], &bytes);
        let found = store.find(&theirs).unwrap().unwrap();
        assert_eq!(found.headers["x-pyoco-wheel-tags"], "cpu,linux");
        assert_eq!((found.sha256_hex(), found.chunks), (meta.sha256_hex(), meta.chunks));
        assert_eq!(read(&store, &found).unwrap(), bytes, "{theirs}");
        assert!(store.find(&ours).unwrap().is_none());
    }
    let theirs = python_json(&server, &["infos"]);
    let theirs: Vec<_> = theirs.as_array().unwrap().iter().map(|o| o["name"].clone()).collect();
    let mut sorted: Vec<_> = theirs.iter().map(|name| name.as_str().unwrap()).collect();
    sorted.sort();
    assert_eq!(names(&store), sorted);
}

#[test]
fn uploads_whose_chunks_lie_between_each_other_are_read_each() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let contents: Vec<_> = [1_000_000, 3_000_000, 400_000].map(sample).into();
    let mut uploads: Vec<_> = contents.iter().map(|_| store.upload().unwrap()).collect();
    let mut pieces: Vec<_> = contents.iter().map(|bytes| bytes.chunks(190_000)).collect();
    loop {
        let turns = uploads.iter_mut().zip(&mut pieces);
        let written = turns.filter_map(|(upload, rest)| rest.next().map(|p| upload.write(p)));
        if written.map(Result::unwrap).count() == 0 {
            break;
        }
    }
    for (n, (upload, bytes)) in uploads.into_iter().zip(&contents).enumerate() {
        let revision = store.list().unwrap().revision;
        let name = format!("{n}");
        let meta = upload.seal().unwrap().publish(&name, Map::new(), revision).unwrap();
        assert_eq!(&read(&store, &meta).unwrap(), bytes);
        assert_eq!(&python(&server, &["get", &name], b""), bytes);
        // A meta may be wrong about the number of its chunks.
        for chunks in [0, 1, 100] {
            let vague = ObjectMeta { chunks, ..meta.clone() };
            assert_eq!(&read(&store, &vague).unwrap(), bytes, "{chunks}");
        }
    }
}

#[test]
fn a_deleted_object_is_marked_as_python_marks_it_and_its_bytes_are_gone() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let meta = stored(&store, "a", &sample(200_000));
    python(&server, &["put", "b"], &sample(200_000));
    assert!(store.delete(&meta).unwrap().is_some());
    python(&server, &["delete", "b"], b"");
    assert_eq!(chunks(&server), 0);
    assert!(store.find("a").unwrap().is_none() && store.find("b").unwrap().is_none());
    assert_eq!(names(&store), Vec::<String>::new());
    let raw = |token: &str| -> Value {
        let message = python_json(&server, &["raw", &format!("M.{token}")]);
        serde_json::from_str(message["data"].as_str().unwrap()).unwrap()
    };
    let (ours, theirs) = (raw("YQ=="), raw("Yg=="));
    for field in ["size", "mtime", "chunks", "digest", "deleted"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    assert_eq!(ours["nuid"], meta.nuid);
    // Once more is a conflict, or nothing to do.
    assert!(matches!(store.delete(&meta), Err(Error::Conflict(_))));
    // The name may be used again, by both sides.
    stored(&store, "b", b"new");
    assert_eq!(python(&server, &["get", "b"], b""), b"new");
}

#[test]
fn a_replaced_object_leaves_no_bytes() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let old = stored(&store, "a", &sample(300_000));
    let new = stored(&store, "a", &sample(100_000));
    assert_eq!(chunks(&server), 1);
    assert!(matches!(read(&store, &old), Err(Error::Damaged { .. })));
    assert_eq!(read(&store, &new).unwrap(), sample(100_000));
    assert!(matches!(store.delete(&old), Err(Error::Conflict(_))));
    assert_eq!(store.find("a").unwrap().unwrap(), new);
}

#[test]
fn the_store_is_created_as_python_creates_it() {
    let (ours, theirs) = (NatsServer::start(), NatsServer::start());
    let mut config = Config::default();
    config.nats.url = ours.url();
    config.resources.wheels_max_bytes = 64 * 1024 * 1024;
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(Duration::from_secs(10)));
    bus.ensure_resources().unwrap();
    let [ours, theirs] = [&ours, &theirs].map(|server| python_json(server, &["config"]));
    for (name, value) in theirs.as_object().unwrap() {
        // What later clients and servers add by default is theirs to decide.
        if !["metadata", "description"].contains(&name.as_str()) {
            assert_eq!(&ours[name], value, "{name}");
        }
    }
    let listed: Vec<String> = bus.inspect().into_iter().map(|(name, _)| name).collect();
    for name in ["OBJ_pyoco_wheels", "KV_pyoco_wheel_history"] {
        assert!(listed.iter().any(|known| known == name), "{listed:?}");
    }
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let bytes = sample(1_000_000);
    let mut upload = store.upload().unwrap();
    upload.write(&bytes).unwrap();
    drop(upload);
    assert_eq!(chunks(&server), 0);
    let unnamed = sealed(&store, &bytes);
    assert_eq!(chunks(&server), 8);
    drop(unnamed);
    assert_eq!(chunks(&server), 0);
    // A conflict is no success.
    stored(&store, "a", b"x");
    let late = sealed(&store, &bytes);
    assert!(matches!(late.publish("b", Map::new(), 0), Err(Error::Conflict(_))));
    drop(late);
    assert_eq!(subjects(&server).len(), 2);
}

#[test]
fn of_many_commits_on_one_revision_exactly_one_wins() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    for round in 0..5 {
        let uploads: Vec<_> = (0..6).map(|n| sealed(&store, format!("{n}").as_bytes())).collect();
        let revision = store.list().unwrap().revision;
        let barrier = Barrier::new(uploads.len());
        let results: Vec<_> = std::thread::scope(|scope| {
            let commits: Vec<_> = uploads
                .iter()
                .enumerate()
                .map(|(n, upload)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        // Other names: it is the store that must not have changed.
                        upload.publish(&format!("{round}-{n}"), Map::new(), revision)
                    })
                })
                .collect();
            commits.into_iter().map(|commit| commit.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{results:?}");
        assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(Error::Conflict(_)))));
        // A loser looks again and repeats it.
        let loser = results.iter().position(Result::is_err).unwrap();
        let revision = store.list().unwrap().revision;
        uploads[loser].publish(&format!("{round}-again"), Map::new(), revision).unwrap();
    }
    assert_eq!(names(&store).len(), 10);
    assert_eq!(chunks(&server), 10);
}

#[test]
fn the_connection_for_chunks_is_opened_when_the_first_one_moves() {
    let server = NatsServer::start();
    let settled = connections(&server);
    let bus = connect(&server);
    let store = bus.wheels();
    store.ensure().unwrap();
    store.list().unwrap();
    assert_eq!(connections(&server), settled + 2);
    let meta = stored(&store, "a", b"x");
    assert_eq!(connections(&server), settled + 3);
    read(&store, &meta).unwrap();
    assert_eq!(connections(&server), settled + 3);
    drop((bus, store));
    eventually(Duration::from_secs(10), "its connections are closed", || {
        (connections(&server) == settled).then_some(())
    });
}

#[test]
fn many_objects_are_listed_in_one_go() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let mut revision = 0;
    for n in 0..200 {
        let meta = sealed(&store, b"x").publish(&format!("{n:03}"), Map::new(), revision).unwrap();
        revision = meta.revision;
    }
    let listing = store.list().unwrap();
    assert_eq!(listing.revision, revision);
    assert_eq!(names(&store), (0..200).map(|n| format!("{n:03}")).collect::<Vec<_>>());
    // The newest meta counts, also when it is that of a deleted object.
    let first = &listing.objects[0];
    store.delete(first).unwrap();
    let listing = store.list().unwrap();
    assert_eq!((listing.objects.len(), listing.revision > revision), (199, true));
}

#[test]
fn names_and_uploads_that_would_forge_a_subject_never_reach_the_wire() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let meta = stored(&store, "a", b"x");
    for bad in [String::new(), "x".repeat(2_000)] {
        assert!(matches!(store.find(&bad), Err(Error::BadName(_))));
        let upload = sealed(&store, b"y");
        assert!(matches!(upload.publish(&bad, Map::new(), 1), Err(Error::BadName(_))));
    }
    for bad in ["", "*", ">", "a.b", "a b"] {
        let forged = ObjectMeta { nuid: bad.into(), ..meta.clone() };
        assert!(matches!(read(&store, &forged), Err(Error::BadName(_))), "{bad:?}");
    }
    // A meta with a wildcard deletes itself, and the bytes of nobody.
    let forged = ObjectMeta { nuid: ">".into(), ..meta.clone() };
    assert!(store.delete(&forged).unwrap().is_some());
    assert_eq!(chunks(&server), 1);
}
