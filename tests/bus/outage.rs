//! What callers see while the server is gone, frozen or refuses us.

use std::time::{Duration, Instant};

use pyoco_server::bus::{Bus, Error};
use pyoco_server::config::Config;

use crate::connect;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::wait::eventually;

/// How much later than its deadline a call may return on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn requests_fail_in_time_while_the_server_is_stopped_and_work_again_afterwards() {
    let mut server = NatsServer::start();
    let bus = connect(&server);
    let kv = bus.runs();
    kv.put("a", b"1").unwrap();
    server.stop();
    let before = Instant::now();
    assert!(kv.put("a", b"2").is_err());
    assert!(kv.get("a").is_err());
    assert!(kv.update("a", b"3", 1).is_err());
    assert!(before.elapsed() < Duration::from_secs(6) + SLACK, "{:?}", before.elapsed());
    server.restart();
    eventually(Duration::from_secs(10), "puts work again", || kv.put("a", b"4").ok());
    // Nothing that failed was replayed.
    assert_eq!(kv.get("a").unwrap().unwrap().value, b"4");
    assert!(bus.state().disconnects >= 1);
}

#[test]
fn a_frozen_server_is_noticed_and_left_when_it_answers_again() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let kv = bus.runs();
    kv.put("a", b"1").unwrap();
    server.pause();
    let before = Instant::now();
    assert!(matches!(kv.put("a", b"2"), Err(Error::Timeout { .. } | Error::Disconnected)));
    assert!(before.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", before.elapsed());
    eventually(Duration::from_secs(15), "the watchdog notices", || (!bus.state().connected).then_some(()));
    // The best of some, so that one bad moment of the machine does not count.
    let quickest = (0..5).map(|_| {
        let before = Instant::now();
        assert!(matches!(kv.put("a", b"3"), Err(Error::Disconnected)));
        before.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_secs(1), "did not fail at once: {quickest:?}");
    server.resume();
    eventually(Duration::from_secs(15), "puts work again", || kv.put("a", b"4").ok());
    let state = bus.state();
    assert_eq!((state.disconnects, state.reconnects), (1, 1), "a connection that was left is a lost one");
}

#[test]
fn a_bus_starts_before_its_server_and_connects_when_it_comes() {
    let mut server = NatsServer::start();
    let mut config = Config::default();
    config.nats.url = server.url();
    server.stop();
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(matches!(bus.runs().get("a"), Err(Error::Disconnected)));
    server.restart();
    assert!(bus.wait_connected(Duration::from_secs(10)));
    bus.runs().put("a", b"1").unwrap();
}

#[test]
fn what_is_deleted_under_us_is_created_again() {
    let server = NatsServer::start();
    let bus = connect(&server);
    bus.ensure_resources().unwrap();
    bus.ensure_resources().unwrap();
    drop(server);
    let server = NatsServer::start();
    let bus = connect(&server);
    // No ensure here: the first use of each creates it.
    bus.runs().put("a", b"1").unwrap();
    assert!(bus.workers().get("a").unwrap().is_none());
    let soon = Instant::now() + Duration::from_secs(5);
    bus.queue().submit("default", "r1", b"x", soon).unwrap();
    bus.queue().publish_dlq("default", b"{}").unwrap();
    assert_eq!(bus.queue().dlq_messages().unwrap(), 1);
}

#[test]
fn settings_that_cannot_work_are_refused_without_showing_a_secret() {
    let mut config = Config::default();
    config.nats.user = Some("u".into());
    config.nats.token = Some("hunter2".into());
    let error = Bus::start(&config.nats, &config.resources).err().unwrap().to_string();
    assert!(error.contains("only one of") && !error.contains("hunter2"), "{error}");
    let mut config = Config::default();
    config.nats.url = "nats://bob:hunter2@[bad".into();
    let error = Bus::start(&config.nats, &config.resources).err().unwrap().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_dropped_bus_closes_its_connections() {
    let server = NatsServer::start();
    let settled = connections(&server);
    let bus = connect(&server);
    bus.runs().put("a", b"1").unwrap();
    eventually(Duration::from_secs(5), "connected", || (connections(&server) == settled + 2).then_some(()));
    drop(bus);
    eventually(Duration::from_secs(10), "its connections are closed", || {
        (connections(&server) == settled).then_some(())
    });
}

/// Established connections to the server, as the kernel counts them from the server's side.
pub fn connections(server: &NatsServer) -> usize {
    let port = format!(":{:04X}", server.address().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&port) && row[3] == "01").count()
}

#[test]
fn a_stream_that_cannot_be_looked_for_does_not_take_more_time_than_there_is() {
    const LIMIT: Duration = Duration::from_millis(700);
    let user = "{user: a, password: a, permissions: {publish: {deny: \"$JS.API.STREAM.INFO.>\"}}}";
    let server = NatsServer::start_with(NatsOptions {
        config_lines: vec![format!("authorization {{ users: [{user}] }}"), "no_auth_user: a".to_owned()],
        ..NatsOptions::default()
    });
    let audit = connect(&server).audit().with_timeout(LIMIT);
    // The best of some, so that one bad moment of the machine does not count.
    let quickest = (0..3).map(|_| {
        let before = Instant::now();
        assert!(audit.append("run.submit", b"{}").is_err());
        before.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < LIMIT + Duration::from_millis(250), "{quickest:?}");
}
