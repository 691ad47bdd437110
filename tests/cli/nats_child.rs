//! The supervised local nats-server: ready when it says so, back after a death, gone with us.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pyoco_server::cli::server::nats_child::{NatsChild, NatsChildError, NatsChildSettings};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::http::Client;
use crate::support::nats::binary;
use crate::support::port::PortLease;
use crate::support::process::Running;
use crate::support::wait::{PATIENCE, eventually};

fn settings(store: &Path, port: &PortLease) -> NatsChildSettings {
    NatsChildSettings {
        bin: Some(binary().to_owned()),
        listen_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client_port: port.port(),
        http_port: None,
        store_dir: store.to_owned(),
        sync_interval: "always".to_owned(),
    }
}

fn address(port: &PortLease) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()))
}

/// The pid that the server has written into its store.
fn server_pid(store: &Path) -> Pid {
    eventually(PATIENCE, "pid file", || {
        let text = std::fs::read_to_string(store.join("nats-server.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    })
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

/// One request to the JetStream API.
fn jetstream(child: &NatsChild, what: &str, body: &str) -> String {
    #[allow(deprecated, reason = "the crate is, and it is the one we have")]
    let connection = nats::connect(child.url()).unwrap();
    let reply = connection.request_timeout(&format!("$JS.API.{what}"), body, PATIENCE).unwrap();
    String::from_utf8(reply.data).unwrap()
}

#[test]
fn it_answers_when_started_and_is_gone_when_dropped() {
    let (store, port, pages) = (tempfile::tempdir().unwrap(), PortLease::take(), PortLease::take());
    let wanted = NatsChildSettings { http_port: Some(pages.port()), ..settings(store.path(), &port) };
    let child = NatsChild::start(wanted).unwrap();
    assert_eq!(child.url(), format!("nats://127.0.0.1:{}", port.port()));
    assert!(TcpStream::connect(address(&port)).is_ok());
    let jetstream = Client::to(address(&pages)).get("/jsz").json();
    assert_eq!(jetstream["config"]["sync_always"], true, "{jetstream}");
    let pid = server_pid(store.path());
    drop(child);
    assert!(is_gone(pid), "the server must be gone when the drop returns");
    assert!(TcpStream::connect(address(&port)).is_err());
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let _other = TcpListener::bind(address(&port)).unwrap();
    let error = NatsChild::start(settings(store.path(), &port)).unwrap_err();
    assert!(matches!(error, NatsChildError::PortInUse { .. }), "{error}");
    let text = error.to_string();
    for part in [address(&port).to_string().as_str(), "--nats-client-port", "--nats-url"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_missing_program_and_a_refused_configuration_are_told_apart() {
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let missing = NatsChildSettings { bin: Some("/nonexistent".into()), ..settings(store.path(), &port) };
    let error = NatsChild::start(missing).unwrap_err().to_string();
    assert!(error.contains("/nonexistent") && error.contains("PYOCO_NATS_SERVER_BIN"), "{error}");
    // A file where the server wants its directory.
    std::fs::write(store.path().join("jetstream"), "").unwrap();
    let before = Instant::now();
    let error = NatsChild::start(settings(store.path(), &port)).unwrap_err();
    assert!(matches!(&error, NatsChildError::Died { log } if log.contains("directory")), "{error}");
    assert!(before.elapsed() < Duration::from_secs(10), "a death is an event, not a timeout");
}

#[test]
fn a_server_that_dies_comes_back_with_its_store() {
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let child = NatsChild::start(settings(store.path(), &port)).unwrap();
    let created = jetstream(&child, "STREAM.CREATE.kept", r#"{"name":"kept","subjects":["kept"]}"#);
    assert!(created.contains("\"did_create\":true"), "{created}");
    for _ in 0..2 {
        let first = server_pid(store.path());
        kill_process(first, Signal::KILL).unwrap();
        eventually(PATIENCE, "another server at the port", || {
            let pid = server_pid(store.path());
            (pid != first && TcpStream::connect(address(&port)).is_ok()).then_some(())
        });
    }
    let last = server_pid(store.path());
    drop(child);
    assert!(is_gone(last));
    let again = NatsChild::start(settings(store.path(), &port)).unwrap();
    let names = jetstream(&again, "STREAM.NAMES", "");
    assert!(names.contains("[\"kept\"]"), "{names}");
}

#[test]
fn one_store_has_one_server_and_a_restart_takes_it_over() {
    let (store, port, other) = (tempfile::tempdir().unwrap(), PortLease::take(), PortLease::take());
    let child = NatsChild::start(settings(store.path(), &port)).unwrap();
    let error = NatsChild::start(settings(store.path(), &other)).unwrap_err();
    assert!(matches!(error, NatsChildError::StoreInUse { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    child.stop();
    NatsChild::start(settings(store.path(), &port)).unwrap().stop();
}

#[test]
fn a_server_that_does_not_stop_is_killed() {
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let child = NatsChild::start(settings(store.path(), &port)).unwrap();
    let pid = server_pid(store.path());
    kill_process(pid, Signal::STOP).unwrap();
    drop(child);
    assert!(is_gone(pid));
}

/// Set in the process that holds a server until it is killed.
const HOLD: &str = "HOLD_NATS_CHILD_IN";

/// This test starts itself again as the process that is killed.
#[test]
fn it_does_not_outlive_a_killed_parent_and_the_next_parent_waits_for_its_store() {
    if let Some(place) = std::env::var_os(HOLD) {
        let place = place.into_string().unwrap();
        let (store, port) = place.split_once('|').unwrap();
        let settings = NatsChildSettings {
            client_port: port.parse().unwrap(),
            ..settings(Path::new(store), &PortLease::take())
        };
        let _child = NatsChild::start(settings).unwrap();
        println!("\nholding");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let name = "it_does_not_outlive_a_killed_parent_and_the_next_parent_waits_for_its_store";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("nats_child::{name}"), "--exact", "--nocapture"]);
    command.env(HOLD, format!("{}|{}", store.path().display(), port.port()));
    let mut parent = Running::start(&mut command);
    parent.wait_for_line(PATIENCE, "holding", |line| line.trim() == "holding");
    let orphan = server_pid(store.path());
    parent.kill();
    // At once, while the orphan is still on its way out: no error, the store is taken over.
    let child = NatsChild::start(settings(store.path(), &port)).unwrap();
    assert!(is_gone(orphan));
    assert_ne!(server_pid(store.path()), orphan);
    drop(child);
}

#[test]
fn ctrl_c_in_the_terminal_does_not_reach_it() {
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let _child = NatsChild::start(settings(store.path(), &port)).unwrap();
    let group_of = |pid: Option<Pid>| rustix::process::getpgid(pid).unwrap();
    assert_ne!(group_of(Some(server_pid(store.path()))), group_of(None));
}

#[test]
fn neither_server_nor_shell_stays_behind() {
    let (store, port) = (tempfile::tempdir().unwrap(), PortLease::take());
    let child = NatsChild::start(settings(store.path(), &port)).unwrap();
    let mentions = |store: &str| {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(store)).count()
    };
    let place = store.path().display().to_string();
    assert_eq!(mentions(&place), 2, "the server and its shell");
    drop(child);
    assert_eq!(mentions(&place), 0);
}
