//! The tests' own nats-server does what the tests rely on.

use std::net::TcpStream;

use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::port::PortLease;

#[test]
fn a_server_keeps_its_port_over_stop_kill_pause_and_restart() {
    let mut nats = NatsServer::start();
    let address = nats.address();
    let first = nats.pid();
    nats.pause();
    nats.resume();
    nats.kill();
    assert!(TcpStream::connect(address).is_err());
    nats.restart();
    assert_eq!(nats.address(), address);
    assert_ne!(nats.pid(), first);
    nats.pause();
    nats.stop();
    assert!(TcpStream::connect(address).is_err());
    nats.restart();
    drop(nats);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn options_reach_the_server() {
    let nats = NatsServer::start_with(NatsOptions {
        user: Some(("u".to_owned(), "p w".to_owned())),
        max_payload: Some(65_536),
        sync_interval: Some("always".to_owned()),
        config_lines: vec!["server_name: \"of-this-test\"".to_owned()],
        ..NatsOptions::default()
    });
    let mut stream = TcpStream::connect(nats.address()).unwrap();
    let mut info = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&mut stream), &mut info).unwrap();
    for part in ["\"auth_required\":true", "\"max_payload\":65536", "of-this-test"] {
        assert!(info.contains(part), "{info}");
    }
    let _token =
        NatsServer::start_with(NatsOptions { token: Some("t".to_owned()), ..NatsOptions::default() });
}

#[test]
fn two_leases_never_share_a_port() {
    let leases: Vec<PortLease> = (0..50).map(|_| PortLease::take()).collect();
    let mut ports: Vec<u16> = leases.iter().map(PortLease::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
}
