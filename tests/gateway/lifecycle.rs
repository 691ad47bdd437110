//! Starting, stopping and the small commands of `pyoco-server`.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::cluster::{Cluster, Options};
use crate::support::http::{self, Client};
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::runs::main_flow;
use crate::support::wait::{PATIENCE, eventually};

fn server(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command: Command = Binary::Server.command();
    run(command.args(arguments).envs(environment.iter().copied()), b"", PATIENCE)
}

#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    let mut cluster = Cluster::with_gateway();
    let address = cluster.address;
    // Whoever is told to continue is inside.
    let mut client = http::Connection::open(address);
    let body = main_flow().to_string();
    let head = format!(
        "POST /runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes()).unwrap();
    client.take_until(b"100 Continue\r\n\r\n").unwrap();
    // Its answer needs NATS, which is frozen until the gateway is on its way out.
    cluster.nats.pause();
    client.send(body.as_bytes()).unwrap();
    cluster.gateways[0].process.terminate();
    let begun = Instant::now();
    eventually(PATIENCE, "the port to be closed", || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).err()
    });
    cluster.nats.resume();
    let answer = client.receive().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ended = cluster.gateways[0].process.wait(PATIENCE);
    assert_eq!(ended.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    assert!(client.is_closed());
    let run_id = answer.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(cluster.snapshot(&run_id).0.flow_name, "main");
}

#[test]
fn sigterm_and_ctrl_c_end_an_idle_gateway_at_once() {
    let cluster = Cluster::new().start();
    for signal in [Signal::TERM, Signal::INT] {
        let mut gateway = cluster.another_gateway();
        // An idle keep-alive connection does not hold it up.
        let mut idle = http::Connection::open(gateway.address);
        idle.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(idle.receive().unwrap().status, 200);
        let begun = Instant::now();
        gateway.process.signal(signal);
        let ended = gateway.process.wait(PATIENCE);
        assert_eq!(ended.code(), Some(0), "{signal:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{signal:?}: {:?}", begun.elapsed());
        assert!(idle.is_closed());
    }
}

#[test]
fn a_gateway_without_nats_ends_when_asked() {
    let mut cluster = Cluster::new().start();
    cluster.nats.stop();
    let mut gateway = cluster.spawn_gateway(Options::default());
    let begun = Instant::now();
    assert_eq!(gateway.process.stop(PATIENCE).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn port_zero_is_a_free_port_which_the_log_names() {
    let cluster = Cluster::new().start();
    let mut command = Binary::Server.command();
    command.args(["up", "--port", "0", "--nats-url", &cluster.nats.url()]);
    let mut process = Running::start(&mut command);
    let line = process.wait_for_line(PATIENCE, "the address", |l| l.contains("gateway listens"));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    Client::to(line["address"].as_str().unwrap().parse().unwrap()).wait_ready();
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = server(&["up", "--port", &port], &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let listen = format!("cannot listen on 127.0.0.1:{port}");
    assert!(ended.stderr.contains(&listen) && ended.stderr.contains("--port"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_gateway_that_may_have_been_told_to_ask_for_keys_does_not_start_without() {
    let ended = server(&["up", "--port", "0"], &[("PYOCO_HTTP_AUTH_MODE", "apikey")]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot read PYOCO_HTTP_AUTH_MODE"), "{}", ended.stderr);
    assert!(ended.stderr.contains("- hint: "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("gateway listens"), "{}", ended.stderr);
}

#[test]
fn values_that_do_not_parse_are_warned_of_by_name_and_the_gateway_starts() {
    let bad = [
        ("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "soon"),
        ("PYOCO_HTTP_THREADS", "many"),
        ("PYOCO_DEFAULT_TAG", "a.b"),
    ];
    let mut cluster = Cluster::with_gateway_env(&bad);
    let run_id = cluster.submit(&main_flow());
    assert_eq!(cluster.get(&format!("/runs/{run_id}")).json()["tag"], "default");
    for (name, _) in bad {
        let line = cluster.gateways[0].process.wait_for_line(PATIENCE, name, |line| line.contains(name));
        assert!(line.contains("\"level\":\"WARNING\""), "{line}");
    }
}

#[test]
fn config_check_and_show_name_values_and_where_they_come_from() {
    let ended = server(&["config", "check"], &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "all settings can be read\n"));
    let bad = [("PYOCO_CANCEL_GRACE_PERIOD_SEC", "soon"), ("PYOCO_NATS_PASSWORD", "hunter2")];
    let ended = server(&["config", "check"], &bad);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("PYOCO_CANCEL_GRACE_PERIOD_SEC"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"));

    let ended = server(&["config", "show"], &bad);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("PYOCO_CANCEL_GRACE_PERIOD_SEC"), "{}", ended.stderr);
    let line = |name: &str| {
        let start = format!("{name}=");
        ended.stdout.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(line("PYOCO_NATS_URL"), "PYOCO_NATS_URL=nats://127.0.0.1:4222  # default");
    assert!(line("PYOCO_NATS_PASSWORD").ends_with("# environment"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.env");
    std::fs::write(&file, "export PYOCO_DEFAULT_TAG='gpu' # ours\nPYOCO_LOG_LEVEL=debug\n").unwrap();
    let ended = server(
        &["config", "show"],
        &[
            ("PYOCO_LOAD_DOTENV", "1"),
            ("PYOCO_ENV_FILE", file.to_str().unwrap()),
            ("PYOCO_LOG_LEVEL", "error"),
        ],
    );
    assert!(ended.stdout.contains("PYOCO_DEFAULT_TAG=gpu  # .env\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("PYOCO_LOG_LEVEL=error  # environment\n"), "{}", ended.stdout);
}

#[test]
fn healthcheck_says_by_its_exit_code_whether_a_gateway_is_ready() {
    let mut cluster = Cluster::with_gateway();
    let url = cluster.url();
    let ended = server(&["healthcheck", "--url", &url], &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let shown: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(shown["status"], "ok");
    cluster.nats.stop();
    cluster.wait_answer("/readyz", 503);
    let ended = server(&["healthcheck", "--url", &url], &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("not ready"), "{}", ended.stderr);
    cluster.gateways[0].process.stop(PATIENCE);
    let begun = Instant::now();
    let ended = server(&["healthcheck", "--url", &url], &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
