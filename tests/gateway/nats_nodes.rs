//! A gateway and a worker on three NATS nodes that come and go under load: no acknowledged submit is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::Client;
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

struct Load {
    accepted: Mutex<Vec<String>>,
    is_over: AtomicBool,
    longest_gap: Mutex<Duration>,
}

impl Load {
    /// Submits one run after the other; what is not acknowledged is not promised.
    fn submit(&self, client: &Client) {
        let body = json!({"flow_name": "nobody", "params": {}}).to_string();
        let mut last = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let answer =
                client.request("POST", "/runs", &[("Content-Type", "application/json")], body.as_bytes());
            if answer.status == 200 {
                let run_id = answer.json()["run_id"].as_str().unwrap().to_owned();
                self.accepted.lock().unwrap().push(run_id);
                let mut longest = self.longest_gap.lock().unwrap();
                *longest = longest.max(last.elapsed());
                last = Instant::now();
            } else {
                assert_eq!(answer.status, 503, "{}", answer.text());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until some more runs were accepted.
    fn wait_accepted(&self) {
        let before = self.accepted.lock().unwrap().len();
        eventually(PATIENCE, "submits are accepted", || {
            (self.accepted.lock().unwrap().len() >= before + 20).then_some(())
        });
    }
}

/// Ends the load, also when the test fails.
struct EndOfLoad<'a>(&'a Load);

impl Drop for EndOfLoad<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
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
    let load =
        Load { accepted: Mutex::default(), is_over: AtomicBool::new(false), longest_gap: Mutex::default() };
    std::thread::scope(|scope| {
        let _ends = EndOfLoad(&load);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load.submit(&client))).collect();
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
        load.is_over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let accepted = load.accepted.into_inner().unwrap();
    let longest_gap = load.longest_gap.into_inner().unwrap();
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
