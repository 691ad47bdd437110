//! A watch tells everything present, then every change, across restarts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyoco_server::bus::{Kv, Operation, Watch, WatchEvent};

use serde_json::json;

use crate::connect;
use crate::support::jetstream;
use crate::support::nats::NatsServer;
use crate::support::wait::eventually;

#[derive(Default)]
pub struct Mirror {
    pub values: BTreeMap<String, Vec<u8>>,
    pub live: bool,
    entries: usize,
}

/// What a watch of a bucket tells, put together.
pub fn mirror(kv: &Kv) -> (Arc<Mutex<Mirror>>, Watch) {
    let mirror = Arc::new(Mutex::new(Mirror::default()));
    let seen = mirror.clone();
    let watch = kv
        .watch(move |event| {
            let mut mirror = seen.lock().unwrap();
            match event {
                WatchEvent::Reset => mirror.values.clear(),
                WatchEvent::Live => mirror.live = true,
                WatchEvent::Stale(_) => mirror.live = false,
                WatchEvent::Entry(entry) => {
                    mirror.entries += 1;
                    match entry.operation {
                        Operation::Put => mirror.values.insert(entry.key, entry.value),
                        Operation::Delete => mirror.values.remove(&entry.key),
                    };
                }
            }
        })
        .unwrap();
    (mirror, watch)
}

#[test]
fn it_starts_with_what_is_there_and_goes_on_with_changes() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    for n in 0..1500 {
        kv.put(&format!("k{n}"), b"old").unwrap();
    }
    let (mirror, _watch) = mirror(&kv);
    eventually(Duration::from_secs(10), "the watch is live", || {
        let mirror = mirror.lock().unwrap();
        mirror.live.then(|| assert_eq!(mirror.values.len(), 1500))
    });
    for n in 0..1500 {
        kv.put(&format!("k{n}"), b"new").unwrap();
    }
    let revision = kv.get("k7").unwrap().unwrap().revision;
    kv.delete("k7", revision).unwrap();
    eventually(Duration::from_secs(10), "all changes are seen", || {
        let mirror = mirror.lock().unwrap();
        let all_new = mirror.values.values().all(|v| v == b"new");
        (all_new && mirror.values.len() == 1499).then_some(())
    });
    assert_eq!(mirror.lock().unwrap().entries, 3001, "told twice or not at all");
}

#[test]
fn a_change_is_seen_within_milliseconds() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    let (mirror, _watch) = mirror(&kv);
    eventually(Duration::from_secs(10), "live", || mirror.lock().unwrap().live.then_some(()));
    let mut delays = Vec::new();
    for n in 0..50 {
        let value = format!("{n}").into_bytes();
        let before = Instant::now();
        kv.put("k", &value).unwrap();
        while mirror.lock().unwrap().values.get("k") != Some(&value) {
            assert!(before.elapsed() < Duration::from_secs(5), "change {n} was not seen");
            std::thread::sleep(Duration::from_millis(1));
        }
        delays.push(before.elapsed());
    }
    delays.sort();
    assert!(delays[25] < Duration::from_millis(200), "p50 {:?}", delays[25]);
}

#[test]
fn it_survives_a_restart_and_misses_nothing() {
    let mut server = NatsServer::start();
    let bus = connect(&server);
    let kv = bus.runs();
    let (mirror, _watch) = mirror(&kv);
    kv.put("before", b"x").unwrap();
    eventually(Duration::from_secs(10), "live", || mirror.lock().unwrap().live.then_some(()));
    server.stop();
    eventually(Duration::from_secs(10), "stale", || (!mirror.lock().unwrap().live).then_some(()));
    server.restart();
    // Another process writes before our watch is back.
    connect(&server).runs().put("meanwhile", b"x").unwrap();
    eventually(Duration::from_secs(15), "the mirror is complete again", || {
        let mirror = mirror.lock().unwrap();
        (mirror.live && mirror.values.contains_key("meanwhile")).then_some(())
    });
    assert!(bus.wait_connected(Duration::from_secs(10)));
    kv.put("after", b"x").unwrap();
    eventually(Duration::from_secs(10), "changes go on", || {
        mirror.lock().unwrap().values.contains_key("after").then_some(())
    });
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn wait_keys(mirror: &Mutex<Mirror>, wanted: &[&str]) {
    eventually(Duration::from_secs(20), &format!("the keys {wanted:?}"), || {
        let mirror = mirror.lock().unwrap();
        (mirror.live && mirror.values.keys().eq(wanted)).then_some(())
    });
}

/// A server that is not started yet, with what this one has stored until now.
fn backup(server: &mut NatsServer) -> NatsServer {
    let mut elsewhere = NatsServer::start();
    elsewhere.stop();
    server.stop();
    copy(&server.store(), &elsewhere.store());
    server.restart();
    elsewhere
}

/// The stream has the same name, was created at the same time, and goes further than what was seen.
#[test]
fn a_backup_that_went_on_elsewhere_is_not_taken_for_what_was_followed() {
    // In the second one nothing is left of the message that was seen last.
    for (written, expected) in
        [(["x", "y", "z"], &["a", "b", "x", "y", "z"][..]), (["x"; 3], &["a", "b", "x"])]
    {
        let mut server = NatsServer::start();
        let kv = connect(&server).runs();
        let (mirror, _watch) = mirror(&kv);
        for key in ["a", "b"] {
            kv.put(key, b"1").unwrap();
        }
        wait_keys(&mirror, &["a", "b"]);
        let mut elsewhere = backup(&mut server);
        for key in ["c", "d"] {
            connect(&server).runs().put(key, b"1").unwrap();
        }
        wait_keys(&mirror, &["a", "b", "c", "d"]);
        elsewhere.restart();
        for key in written {
            connect(&elsewhere).runs().put(key, b"1").unwrap();
        }
        elsewhere.stop();
        server.stop();
        copy(&elsewhere.store(), &server.store());
        server.restart();
        wait_keys(&mirror, expected);
    }
}

/// What the newest consumer of a watch has delivered.
fn delivered(server: &NatsServer) -> Option<u64> {
    let list = jetstream::call(server, "CONSUMER.LIST.KV_pyoco_runs", &json!({}));
    let consumers = list["consumers"].as_array().unwrap();
    let newest = consumers.iter().max_by_key(|info| info["created"].as_str().unwrap().to_owned())?;
    newest["delivered"]["consumer_seq"].as_u64()
}

#[test]
fn it_goes_on_where_it_was_although_the_last_messages_were_replaced() {
    let mut server = NatsServer::start();
    let kv = connect(&server).runs();
    for n in 0..1000 {
        kv.put(&format!("k{n}"), b"1").unwrap();
    }
    let (mirror, _watch) = mirror(&kv);
    eventually(Duration::from_secs(20), "live", || mirror.lock().unwrap().live.then_some(()));
    // Written all the time: the test of writes, and a run that goes on.
    let busy = |kv: &Kv| {
        kv.put("k999", b"2").unwrap();
        kv.test_write().unwrap();
    };
    busy(&kv);
    eventually(Duration::from_secs(10), "told", || (mirror.lock().unwrap().entries == 1002).then_some(()));
    let mut elsewhere = NatsServer::start();
    elsewhere.stop();
    server.stop();
    copy(&server.store(), &elsewhere.store());
    elsewhere.restart();
    busy(&connect(&elsewhere).runs());
    elsewhere.stop();
    copy(&elsewhere.store(), &server.store());
    server.restart();
    eventually(Duration::from_secs(20), "live with what is new", || {
        let mirror = mirror.lock().unwrap();
        (mirror.live && mirror.entries == 1004).then_some(())
    });
    let delivered = delivered(&server).unwrap();
    assert!(delivered < 10, "{delivered} of 1,001 messages were read anew");
    assert_eq!(mirror.lock().unwrap().values.len(), 1000);
}

/// What was told last of a key is not there, but an older version of it.
#[test]
fn a_backup_from_before_what_was_told_brings_older_versions_back() {
    let mut server = NatsServer::start();
    let kv = connect(&server).runs();
    let (mirror, _watch) = mirror(&kv);
    for key in ["a", "b"] {
        kv.put(key, b"1").unwrap();
    }
    wait_keys(&mirror, &["a", "b"]);
    let mut elsewhere = backup(&mut server);
    for key in ["a", "c"] {
        connect(&server).runs().put(key, b"2").unwrap();
    }
    wait_keys(&mirror, &["a", "b", "c"]);
    elsewhere.restart();
    for _ in 0..3 {
        connect(&elsewhere).runs().put("x", b"1").unwrap();
    }
    elsewhere.stop();
    server.stop();
    copy(&elsewhere.store(), &server.store());
    server.restart();
    wait_keys(&mirror, &["a", "b", "x"]);
    assert_eq!(mirror.lock().unwrap().values["a"], b"1");
}

#[test]
fn what_leaves_a_bucket_without_a_marker_is_told() {
    let server = NatsServer::start();
    let kv = connect(&server).runs();
    for n in 0..5 {
        kv.put(&format!("k{n}"), b"1").unwrap();
    }
    let (mirror, _watch) = mirror(&kv);
    wait_keys(&mirror, &["k0", "k1", "k2", "k3", "k4"]);
    // Somebody writes all the time, so the watch is never at the very end.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn({
        let kv = kv.clone();
        move || {
            while stopped
                .recv_timeout(Duration::from_millis(2))
                .is_err_and(|e| e == RecvTimeoutError::Timeout)
            {
                kv.put("k4", b"2").unwrap();
                kv.test_write().unwrap();
            }
        }
    });
    let purge = |what| jetstream::call(&server, "STREAM.PURGE.KV_pyoco_runs", &what);
    // In the middle, the oldest ones, and all.
    purge(json!({"filter": "$KV.pyoco_runs.k2"}));
    wait_keys(&mirror, &["k0", "k1", "k3", "k4"]);
    let oldest = kv.get("k1").unwrap().unwrap().revision;
    purge(json!({"seq": oldest + 1}));
    wait_keys(&mirror, &["k3", "k4"]);
    drop(stop);
    writer.join().unwrap();
    // What comes last tells that all before it was told.
    kv.put("k4", b"last").unwrap();
    let entries = eventually(Duration::from_secs(10), "all that was written is told", || {
        let mirror = mirror.lock().unwrap();
        (mirror.values["k4"] == b"last").then_some(mirror.entries)
    });
    purge(json!({}));
    wait_keys(&mirror, &[]);
    // The two, and the tombstone of the test of writes.
    assert_eq!(mirror.lock().unwrap().entries, entries + 3, "nothing is told twice");
}
