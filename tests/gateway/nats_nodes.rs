//! A gateway and a worker on three NATS nodes that come and go under load: no acknowledged submit is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::load::Load;
use crate::support::nats_cluster::NatsCluster;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Running};
use crate::support::wait::{PATIENCE, eventually};

/// Most seconds without an acknowledged submit: a leader is elected, or a node is left that is frozen, or
/// that is cut off, which takes ten seconds to be known.
const LONGEST_GAP: Duration = Duration::from_secs(20);
/// For the runs, and then for the jobs, that are left at the end.
const SETTLE: Duration = Duration::from_secs(60);
const STREAMS: [&str; 2] = ["PYOCO_WORK", "KV_pyoco_runs"];

#[derive(Default)]
struct Clients {
    load: Load,
    longest_gap: Mutex<Duration>,
}

impl Clients {
    /// Submits one run after the other; what is not acknowledged is not promised.
    fn submit(&self, client: &Client) {
        let body = json!({"flow_name": "nobody", "params": {}}).to_string();
        let mut last = Instant::now();
        while !self.load.is_over() {
            let answer =
                client.request("POST", "/runs", &[("Content-Type", "application/json")], body.as_bytes());
            if answer.status == 200 {
                let run_id = answer.json()["run_id"].as_str().unwrap().to_owned();
                self.load.accept(run_id);
                let mut longest = self.longest_gap.lock().unwrap();
                *longest = longest.max(last.elapsed());
                last = Instant::now();
            } else {
                assert_eq!(answer.status, 503, "{}", answer.text());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The node that the gateway sends its requests to.
fn node_of(client: &Client) -> usize {
    let answer = client.get("/readyz").json();
    let server = answer["checks"]["nats"]["server"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let name = server.split(' ').next().unwrap();
    name.strip_prefix('n').unwrap().parse().unwrap()
}

#[test]
fn no_acknowledged_submit_is_lost_while_nodes_come_and_go() {
    let mut nats = NatsCluster::start(3);
    let place = |binary: Binary| {
        let mut command = binary.command();
        command.env("PYOCO_NATS_URL", nats.urls()).env("PYOCO_JS_REPLICAS", "3");
        command
    };
    let port = PortLease::take();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()));
    let mut command = place(Binary::Server);
    let _gateway = Running::start(command.args(["up", "--port", &port.port().to_string()]));
    let client = Client::to(address);
    eventually(PATIENCE, "the gateway is ready", || {
        std::net::TcpStream::connect(address).ok()?;
        (client.get("/readyz").status == 200).then_some(())
    });
    let mut command = place(Binary::Worker);
    let _worker = Running::start(command.args(["--python", "off", "--concurrency", "4"]));
    let clients = Clients::default();
    std::thread::scope(|scope| {
        let load = &clients.load;
        let _ends = load.end();
        for _ in 0..4 {
            scope.spawn(|| clients.submit(&client));
        }
        load.wait_accepted();
        STREAMS.iter().for_each(|stream| nats.wait_current(stream));
        // The leader of the queue dies.
        let leader = nats.wait_leader("PYOCO_WORK");
        nats.kill(leader);
        load.wait_accepted();
        nats.restart(leader);
        STREAMS.iter().for_each(|stream| nats.wait_current(stream));
        // The leader of the snapshots freezes, and thaws.
        let leader = nats.wait_leader("KV_pyoco_runs");
        nats.pause(leader);
        load.wait_accepted();
        nats.resume(leader);
        STREAMS.iter().for_each(|stream| nats.wait_current(stream));
        // The node that the gateway talks to is cut off from the others, and comes back.
        let cut_off = node_of(&client);
        nats.cut_off(cut_off);
        load.wait_accepted();
        nats.rejoin(cut_off);
        STREAMS.iter().for_each(|stream| nats.wait_current(stream));
        // Each node is restarted.
        for node in 0..3 {
            nats.stop(node);
            load.wait_accepted();
            nats.restart(node);
            STREAMS.iter().for_each(|stream| nats.wait_current(stream));
        }
        load.wait_accepted();
    });
    let accepted = clients.load.into_accepted();
    let longest_gap = clients.longest_gap.into_inner().unwrap();
    println!("{} accepted, at most {longest_gap:?} without one", accepted.len());
    assert!(longest_gap < LONGEST_GAP, "{longest_gap:?} without an accepted submit");
    // No worker has the flow, so each run that was executed has failed of that, once.
    let until = Instant::now() + SETTLE;
    for run_id in &accepted {
        let run: Value = loop {
            let answer = client.get(&format!("/runs/{run_id}"));
            assert!([200, 503].contains(&answer.status), "{run_id}: {}", answer.text());
            if answer.status == 200 && answer.json()["status"] == "FAILED" {
                break answer.json();
            }
            assert!(Instant::now() < until, "{run_id}: {}", answer.text());
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(run["error"].as_str().unwrap().starts_with("flow_not_found"), "{run}");
    }
    // An ACK that went down with a leader lets its job come once more, `ack_wait` later.
    eventually(SETTLE, "the queue is empty", || {
        let info = crate::support::jetstream::call(nats.any(), "STREAM.INFO.PYOCO_WORK", &Value::Null);
        (info["state"]["messages"] == 0).then_some(())
    });
}
