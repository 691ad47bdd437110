//! The largest message of the server changes while we are connected.

use std::time::Duration;

use pyoco_server::bus::Error;

use crate::connect;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::wait::eventually;

fn limited(bytes: u64) -> NatsOptions {
    NatsOptions { max_payload: Some(bytes), ..NatsOptions::default() }
}

#[test]
fn a_limit_that_shrinks_and_grows_is_followed_without_losing_the_connection() {
    let mut server = NatsServer::start_with(limited(1024 * 1024));
    let bus = connect(&server);
    let kv = bus.runs();
    let large = vec![b'x'; 200_000];
    kv.put("a", &large).unwrap();
    // Longer than what was learnt from the last message counts.
    let rest = || std::thread::sleep(Duration::from_millis(300));
    for _ in 0..2 {
        server.reload(limited(64 * 1024));
        rest();
        assert!(matches!(kv.put("a", &large), Err(Error::TooLarge { limit: 65_536, .. })));
        kv.put("a", &large[..60_000]).unwrap();
        server.reload(limited(2 * 1024 * 1024));
        rest();
        kv.put("a", &vec![b'x'; 2_000_000]).unwrap();
    }
    assert_eq!(bus.state().disconnects, 0);
    assert_eq!(bus.state().reconnects, 0);
}

#[test]
fn headers_count_as_payload_and_a_message_of_exactly_the_limit_is_taken() {
    const LIMIT: usize = 64 * 1024;
    let server = NatsServer::start_with(limited(LIMIT as u64));
    let bus = connect(&server);
    let kv = bus.runs();
    kv.ensure().unwrap();
    kv.put("a", &vec![b'x'; LIMIT]).unwrap();
    let headers = "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n".len();
    assert!(matches!(kv.create("b", &vec![b'x'; LIMIT - headers + 1]), Err(Error::TooLarge { .. })));
    kv.create("b", &vec![b'x'; LIMIT - headers]).unwrap();
    assert_eq!(bus.state().disconnects, 0);
}

#[test]
fn a_limit_that_is_another_one_after_a_restart_is_used() {
    let mut server = NatsServer::start_with(limited(64 * 1024));
    let bus = connect(&server);
    let large = vec![b'x'; 200_000];
    assert!(matches!(bus.runs().put("a", &large), Err(Error::TooLarge { .. })));
    server.stop();
    server.reconfigure(limited(1024 * 1024));
    server.restart();
    eventually(Duration::from_secs(10), "the larger message is stored", || bus.runs().put("a", &large).ok());
    assert_eq!(bus.state().disconnects, 1);
}
