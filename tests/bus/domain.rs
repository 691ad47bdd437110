//! A JetStream domain that is reached through a leaf node with a JetStream of its own.

use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use pyoco_server::bus::{Bus, PullEvent, WatchEvent};
use pyoco_server::config::Config;
use serde_json::{Map, Value};

use crate::support::jetstream;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::port::PortLease;
use crate::support::wait::{PATIENCE, eventually};

fn server(domain: &str, leaf: &str) -> NatsServer {
    NatsServer::start_with(NatsOptions {
        jetstream_lines: vec![format!("domain: {domain}")],
        config_lines: vec![format!("server_name: {domain}\nleafnodes {{ {leaf} }}")],
        ..NatsOptions::default()
    })
}

#[test]
fn everything_is_kept_and_found_in_the_domain_of_the_settings() {
    let leaves = PortLease::take();
    let hub = server("hub", &format!("listen: \"127.0.0.1:{}\"", leaves.port()));
    let leaf = server("edge", &format!("remotes: [ {{ url: \"nats://127.0.0.1:{}\" }} ]", leaves.port()));
    let mut config = Config::default();
    config.nats.url = leaf.url();
    config.nats.js_domain = Some("hub".into());
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(PATIENCE), "no connection");
    // The leaf may still be on its way to the hub.
    eventually(PATIENCE, "streams in the domain", || bus.ensure_resources().ok());

    let kv = bus.runs();
    let (tell, told) = unbounded();
    let _watch = kv.watch(move |event| {
        if let WatchEvent::Entry(entry) = event {
            let _ = tell.send((entry.key, entry.revision));
        }
    });
    let revision = kv.create("a", b"1").unwrap();
    let revision = kv.update("a", b"2", revision).unwrap();
    kv.put("b", b"3").unwrap();
    assert_eq!(kv.get("a").unwrap().unwrap().value, b"2");
    assert_eq!(kv.get_for_show("a").unwrap().unwrap().revision, revision);
    kv.delete("a", revision).unwrap();
    assert!(kv.get("a").unwrap().is_none());
    eventually(PATIENCE, "the watch tells the last change", || {
        told.try_iter().any(|(key, seen)| key == "a" && seen > revision).then_some(())
    });

    let queue = bus.queue();
    queue.ensure_consumer("default").unwrap();
    queue.submit("default", "r1", b"job", Instant::now() + Duration::from_secs(5)).unwrap();
    let mut inbox = queue.pull_inbox(&["default".to_owned()]);
    inbox.ask(0, 1, true).unwrap();
    let arrival = inbox.arrivals().recv_timeout(PATIENCE).unwrap();
    let PullEvent::Delivered { message, .. } = inbox.take(arrival) else { panic!("no job") };
    assert_eq!(message.payload, b"job");
    message.ack().unwrap();
    assert!(queue.stored_job(message.stream_seq).unwrap().is_none());

    let wheels = bus.wheels();
    let mut upload = wheels.upload().unwrap();
    upload.write(&[7; 300_000]).unwrap();
    let meta = upload.seal().unwrap().publish("w", Map::new(), 0).unwrap();
    let mut size = 0;
    wheels
        .read(
            &meta,
            &mut |piece| {
                size += piece.len();
                Ok(())
            },
            &|| false,
        )
        .unwrap();
    assert_eq!(size, 300_000);
    bus.audit().append("test", b"{}").unwrap();

    assert!(jetstream::messages(&hub, "KV_pyoco_runs") > 0);
    let here = jetstream::call(&leaf, "STREAM.NAMES", &Value::Null);
    assert_eq!(here["total"], 0, "{here}");
}
