//! A rolling restart under load: gateways and workers are stopped and started one after the other, and no
//! client sees more of it than a port where nobody listens.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{Cluster, with_flags};
use crate::support::forms::form;
use crate::support::http::{Client, Response};
use crate::support::load::Load;

const ROUNDS: usize = 2;
const CLIENTS: usize = 4;
/// For a drain, whose runs take a tenth of a second.
const DRAIN: Duration = Duration::from_secs(20);
/// Long enough to be under way when a worker stops, so that it has something to finish.
const NAP: &str = "version: 1
flow: {graph: nap}
tasks: {nap: {use: builtin/sleep, inputs: {seconds: 0.1}}}
";

#[derive(Default)]
struct Clients {
    load: Load,
    /// Requests that found nobody on the port.
    away: AtomicUsize,
}

impl Clients {
    /// Asks both gateways in turn; a port where nobody listens is asked again, any other failure is one.
    fn run(&self, gateways: &[Client]) {
        let parts = [("workflow", Some("flow.yaml"), NAP.as_bytes()), ("flow_name", None, b"nap")];
        let (content_type, body) = form(&parts);
        for gateway in gateways.iter().cycle() {
            if self.load.is_over() {
                return;
            }
            let headers = [("Content-Type", content_type.as_str())];
            let Some(answer) = self.ask(gateway, "POST", "/runs/yaml", &headers, &body) else { continue };
            let run_id = answer.json()["run_id"].as_str().unwrap().to_owned();
            self.ask(gateway, "GET", &format!("/runs/{run_id}"), &[], b"");
            self.load.accept(run_id);
        }
    }

    fn ask(
        &self,
        gateway: &Client,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Response> {
        match gateway.try_request(method, path, headers, body) {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
                Some(answer)
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                self.away.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
                None
            }
            Err(e) => panic!("{method} {path}: {e}"),
        }
    }
}

#[test]
fn a_rolling_restart_fails_no_request_and_executes_no_run_twice() {
    let cluster = Cluster::new().quick().start();
    let mut gateways: Vec<_> = (0..2).map(|_| cluster.another_gateway()).collect();
    let flags = ["--python", "off", "--concurrency", "4"];
    let mut workers: Vec<_> =
        ["w1", "w2", "w3"].map(|id| cluster.start_worker(id, with_flags(&flags))).into();
    let doors: Vec<Client> = gateways.iter().map(|gateway| gateway.client()).collect();
    let clients = Clients::default();
    std::thread::scope(|scope| {
        let load = &clients.load;
        let _ends = load.end();
        for _ in 0..CLIENTS {
            scope.spawn(|| clients.run(&doors));
        }
        load.wait_accepted();
        for _ in 0..ROUNDS {
            for gateway in &mut gateways {
                gateway.stop();
                load.wait_accepted();
                gateway.restart();
            }
            for worker in &mut workers {
                assert!(worker.stop(DRAIN).success(), "{}", worker.stderr());
                load.wait_accepted();
                worker.restart();
            }
        }
        load.wait_accepted();
    });
    let accepted = clients.load.into_accepted();
    println!("{} accepted, {} found nobody", accepted.len(), clients.away.into_inner());
    cluster.wait_queue_empty();
    for run_id in &accepted {
        let run = cluster.stored(run_id).unwrap();
        assert_eq!((&run["status"], run.get("lost_attempts")), (&"COMPLETED".into(), None), "{run}");
        // Who has begun the run in which attempt: a claim that was not executed is given back.
        let history = cluster.history(run_id);
        let mut tasks_begun = BTreeSet::new();
        for revision in history.all("tasks").zip(history.all("attempt")) {
            if let (Value::Object(tasks), attempt) = revision
                && tasks.get("nap").is_some_and(|nap| nap == "RUNNING")
            {
                tasks_begun.insert(attempt.as_u64());
            }
        }
        assert!(tasks_begun.len() <= 1, "{run_id} was begun in the attempts {tasks_begun:?}");
    }
}
