//! What a gateway says to systemd, and when.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::cluster::Cluster;
use crate::support::http::Client;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Running, without_settings};
use crate::support::systemd::{Systemd, WATCHDOG, beats};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::{measure, nats};

fn is_ready(line: &str) -> bool {
    line == "READY=1"
}

#[test]
fn a_gateway_is_ready_when_nats_has_come_and_says_at_once_that_it_stops() {
    let mut systemd = Systemd::start();
    let mut cluster = Cluster::new().quick().start();
    cluster.nats.stop();
    let mut gateway = cluster.spawn_gateway(systemd.options());
    systemd.wait_for("what it waits for", |line| line.starts_with("STATUS=gateway: waits for nats"));
    systemd.listen(Duration::from_secs(1));
    assert!(!systemd.seen.iter().any(|line| is_ready(line)), "{:?}", systemd.seen);
    cluster.nats.restart();
    systemd.wait_for("that it is ready", is_ready);
    assert_eq!(gateway.get("/readyz").status, 200);
    for _ in 0..4 {
        systemd.wait_for("a sign of life", |line| line == "WATCHDOG=1");
    }
    // An outage of NATS does not end them: a restart would mend nothing.
    cluster.nats.pause();
    let lines = systemd.listen(WATCHDOG * 10);
    assert!(beats(&lines) >= 4, "{lines:?}");
    // A request holds the end up.
    let mut held = crate::support::http::Connection::open(gateway.address);
    let body = r#"{"flow_name":"main"}"#;
    let head = "POST /runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    held.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    gateway.process.terminate();
    let lines = systemd.wait_for("that it stops", |line| line == "STOPPING=1");
    assert!(!lines.iter().any(|line| is_ready(line)), "{lines:?}");
    assert!(gateway.process.is_running());
    cluster.nats.resume();
    assert_eq!(gateway.process.wait(PATIENCE).code(), Some(0));
    let count = |wanted: &str| systemd.seen.iter().filter(|line| *line == wanted).count();
    assert_eq!((count("READY=1"), count("STOPPING=1")), (1, 1), "{:?}", systemd.seen);
}

#[test]
fn a_gateway_without_a_place_for_one_more_lives_and_one_that_does_not_answer_shows_no_life() {
    let mut systemd = Systemd::start();
    let cluster = Cluster::new().quick().start();
    let port = PortLease::take();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()));
    let mut command = cluster.place(without_settings("bash"));
    // So few descriptors that 16 connections fill it.
    command.args(["-c", "ulimit -n 144; exec \"$0\" \"$@\"", Binary::Server.path(), "up"]);
    command.args(["--nats-url", &cluster.nats.url(), "--port", &port.port().to_string()]);
    systemd.options().apply(&mut command);
    let gateway = Running::start(&mut command);
    systemd.wait_for("that it is ready", is_ready);
    systemd.wait_for("a sign of life", |line| line == "WATCHDOG=1");
    // A head that does not end keeps its place for 10 s, also against newcomers.
    let busy: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    eventually(PATIENCE, "no place is left", || {
        (Client::to(address).get("/health").status == 503).then_some(())
    });
    systemd.listen(Duration::from_millis(200));
    let lines = systemd.listen(WATCHDOG * 5);
    assert!(beats(&lines) > 1, "{lines:?}");
    gateway.signal(Signal::STOP);
    systemd.listen(Duration::from_millis(200));
    let lines = systemd.listen(WATCHDOG * 5);
    assert_eq!(beats(&lines), 0, "{lines:?}");
    gateway.signal(Signal::CONT);
    drop(busy);
    systemd.wait_for("a sign of life again", |line| line == "WATCHDOG=1");
}

#[test]
fn a_whole_installation_is_ready_with_its_worker_and_keeps_systemd_to_itself() {
    let mut systemd = Systemd::start_abstract();
    let cluster = Cluster::new().start();
    let (port, nats_port) = (PortLease::take(), PortLease::take());
    let mut command = cluster.place(Binary::Server.command());
    command.args(["up", "--with-worker", "--with-nats", "--nats-store-dir", "store"]);
    command.args(["--nats-client-port", &nats_port.port().to_string(), "--port", &port.port().to_string()]);
    command.env("PYOCO_NATS_SERVER_BIN", nats::binary()).env("PYOCO_PYTHON", "off");
    systemd.options().apply(&mut command);
    let mut process = Running::start(&mut command);
    systemd.wait_for("that it is ready", is_ready);
    let client = Client::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port.port())));
    assert_eq!(client.get("/readyz").status, 200);
    // It may have come before that, and is said once.
    let both = |line: &str| line.contains("gateway: serves") && line.contains("worker: executes 0 of");
    if !systemd.seen.iter().any(|line| both(line)) {
        systemd.wait_for("both at work", both);
    }
    for _ in 0..3 {
        systemd.wait_for("a sign of life", |line| line == "WATCHDOG=1");
    }
    let children = measure::below(process.pid());
    assert!(children.len() >= 2, "a shell and a nats-server: {children:?}");
    for (pid, _) in children {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG_USEC"), "{pid}");
    }
    process.terminate();
    systemd.wait_for("that it stops", |line| line == "STOPPING=1");
    assert_eq!(process.wait(PATIENCE).code(), Some(0));
}
