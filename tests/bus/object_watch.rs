//! Follows the metas of an object store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyoco_server::bus::{ObjectMeta, ObjectStore, Watch, WatchEvent};

use crate::connect;
use crate::objects::{python, sample, sealed, stored};
use crate::support::nats::NatsServer;
use crate::support::wait::eventually;

#[derive(Default)]
struct Mirror {
    metas: BTreeMap<String, ObjectMeta>,
    live: bool,
    resets: usize,
    stale: Vec<String>,
}

fn mirror(store: &ObjectStore) -> (Arc<Mutex<Mirror>>, Watch) {
    let mirror = Arc::new(Mutex::new(Mirror::default()));
    let seen = mirror.clone();
    let watch = store
        .watch(move |event| {
            let mut mirror = seen.lock().unwrap();
            match event {
                WatchEvent::Reset => {
                    mirror.metas.clear();
                    mirror.resets += 1;
                }
                WatchEvent::Live => mirror.live = true,
                WatchEvent::Stale(why) => {
                    mirror.live = false;
                    mirror.stale.push(why);
                }
                WatchEvent::Entry(meta) => drop(mirror.metas.insert(meta.name.clone(), meta)),
            }
        })
        .unwrap();
    (mirror, watch)
}

fn wait_for(mirror: &Mutex<Mirror>, what: &str, condition: impl Fn(&Mirror) -> bool) {
    eventually(Duration::from_secs(15), what, || condition(&mirror.lock().unwrap()).then_some(()));
}

#[test]
fn it_tells_what_is_there_and_each_change_of_either_side() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let (empty, _watch) = mirror(&store);
    wait_for(&empty, "an empty store is live", |m| m.live && m.metas.is_empty());
    let ours = stored(&store, "ours", &sample(300_000));
    python(&server, &["put", "theirs"], b"hello");
    let gone = stored(&store, "gone", b"x");
    store.delete(&gone).unwrap();
    wait_for(&empty, "all is told", |m| m.metas.get("gone").is_some_and(|meta| meta.deleted));
    let (later, _watch) = mirror(&store);
    wait_for(&later, "the second is live", |m| m.live);
    for mirror in [&empty, &later] {
        let mirror = mirror.lock().unwrap();
        assert_eq!(mirror.metas["ours"], ours);
        assert_eq!((mirror.metas["theirs"].size, mirror.metas["gone"].deleted), (5, true));
        // What a mirror knows is what a commit must expect.
        let newest = mirror.metas.values().map(|meta| meta.revision).max().unwrap();
        assert_eq!(newest, store.list().unwrap().revision);
    }
    python(&server, &["delete", "theirs"], b"");
    wait_for(&later, "a change of the other side", |m| m.metas["theirs"].deleted);
    // A meta that cannot be read ends nothing.
    python(&server, &["add", "M.YQ==", "10"], b"");
    stored(&store, "after", b"x");
    wait_for(&later, "it goes on", |m| m.metas.contains_key("after"));
}

#[test]
fn it_survives_a_restart_and_misses_nothing() {
    let mut server = NatsServer::start();
    let bus = connect(&server);
    let store = bus.wheels();
    stored(&store, "before", &sample(300_000));
    let (mirror, _watch) = mirror(&store);
    wait_for(&mirror, "live", |m| m.live);
    server.stop();
    wait_for(&mirror, "stale", |m| !m.live);
    server.restart();
    // Another process stores before our watch is back.
    stored(&connect(&server).wheels(), "meanwhile", b"x");
    wait_for(&mirror, "complete again", |m| m.live && m.metas.contains_key("meanwhile"));
    assert!(mirror.lock().unwrap().metas.contains_key("before"));
    assert_eq!(mirror.lock().unwrap().resets, 1);
}

#[test]
fn a_store_that_was_replaced_is_told_anew() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    stored(&store, "old", b"x");
    let (mirror, _watch) = mirror(&store);
    wait_for(&mirror, "live", |m| m.live && m.metas.contains_key("old"));
    python(&server, &["recreate"], b"");
    stored(&store, "new", b"x");
    wait_for(&mirror, "the new one", |m| m.live && m.metas.contains_key("new"));
    let mirror = mirror.lock().unwrap();
    assert_eq!((mirror.resets, mirror.metas.contains_key("old")), (2, false));
}

#[test]
fn chunks_alone_make_it_neither_stale_nor_deaf() {
    let server = NatsServer::start();
    let store = connect(&server).wheels();
    let (mirror, _watch) = mirror(&store);
    wait_for(&mirror, "live", |m| m.live);
    // The stream moves on without a meta for longer than its two looks at it are apart.
    let until = Instant::now() + Duration::from_secs(11);
    let mut uploads = Vec::new();
    while Instant::now() < until {
        uploads.push(sealed(&store, &sample(200_000)));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(mirror.lock().unwrap().stale, Vec::<String>::new());
    let revision = store.list().unwrap().revision;
    uploads[0].publish("a", serde_json::Map::new(), revision).unwrap();
    wait_for(&mirror, "the meta", |m| m.metas.contains_key("a"));
}
