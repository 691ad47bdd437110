//! One nats-server, one gateway in front of it, and a bus beside it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use pyoco_server::bus::{Bus, Entry, Operation};
use pyoco_server::config::Config;
use pyoco_server::model::json as wire;
use pyoco_server::model::run::{RunSnapshot, RunStatus};
use serde_json::{Value, json};

use crate::support::http::{self, Response};
use crate::support::nats::NatsServer;
use crate::support::process::{Binary, Running};
use crate::support::wait::{PATIENCE, eventually};

/// What a test plays on. The gateway ends before NATS does.
pub struct Stage {
    /// The gateway.
    pub gateway: Gateway,
    /// Our own way to NATS.
    pub bus: Bus,
    /// Its NATS.
    pub nats: NatsServer,
}

impl Stage {
    /// Everything started and ready.
    pub fn start() -> Stage {
        Stage::start_with(&[])
    }

    /// The same with variables in the gateway's environment.
    pub fn start_with(environment: &[(&str, &str)]) -> Stage {
        let nats = NatsServer::start();
        let mut gateway = Gateway::start(&nats, environment);
        gateway.wait_ready();
        let bus = connect(&nats);
        Stage { gateway, bus, nats }
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// GET.
    pub fn get(&self, path: &str) -> Response {
        http::get(self.address(), path)
    }

    /// POST of a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        http::post_json(self.address(), path, body)
    }

    /// POST without a body.
    pub fn post_nothing(&self, path: &str) -> Response {
        http::request(self.address(), "POST", path, &[], b"")
    }

    /// Submits a run that must be accepted; its id.
    pub fn submit(&self, body: &Value) -> String {
        let answer = self.post("/runs", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["status"], "PENDING");
        answer["run_id"].as_str().unwrap().to_owned()
    }

    /// The newest message of a run's key, tombstones included.
    pub fn newest(&self, run_id: &str) -> Option<Entry> {
        self.bus.runs().newest(run_id).unwrap()
    }

    /// A run's snapshot as it lies in KV, and its revision.
    pub fn snapshot(&self, run_id: &str) -> (RunSnapshot, u64) {
        let entry = self.bus.runs().get(run_id).unwrap().expect("no snapshot");
        (wire::from_wire(&entry.value).unwrap(), entry.revision)
    }

    /// Stores a document under a run's key, whatever was there.
    pub fn put(&self, run_id: &str, document: &[u8]) -> u64 {
        self.bus.runs().put(run_id, document).unwrap()
    }

    /// Stores a run as a worker would have.
    pub fn put_run(
        &self,
        run_id: &str,
        updated_at: f64,
        edit: impl FnOnce(&mut RunSnapshot),
    ) -> u64 {
        self.put(run_id, &document(run_id, updated_at, edit))
    }

    /// Waits until the gateway shows `status` for a run; the snapshot that it shows.
    pub fn wait_status(&self, run_id: &str, status: &str) -> Value {
        eventually(PATIENCE, &format!("run {run_id} to be {status}"), || {
            let answer = self.get(&format!("/runs/{run_id}"));
            (answer.status == 200).then(|| answer.json()).filter(|run| run["status"] == status)
        })
    }

    /// Waits until the gateway's list holds `count` runs.
    pub fn wait_count(&self, count: usize) {
        wait_count(self.address(), count);
    }

    /// Whether a run is neither shown nor listed, and its key is deleted or never was.
    pub fn assert_gone(&self, run_id: &str) {
        assert_eq!(self.get(&format!("/runs/{run_id}")).status, 404, "shown");
        assert!(!ids(&self.get("/runs?limit=200").json()).contains(&run_id.to_owned()), "listed");
        let entry = self.newest(run_id);
        assert!(entry.is_none_or(|entry| entry.operation == Operation::Delete), "still in KV");
    }
}

/// `pyoco-server up` on a port of its own.
pub struct Gateway {
    /// The process.
    pub process: Running,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts it; returns when it listens, whether NATS is there or not.
    pub fn start(nats: &NatsServer, environment: &[(&str, &str)]) -> Gateway {
        Gateway::start_on(nats, 0, environment)
    }

    /// The same on a port that clients know already.
    pub fn start_on(nats: &NatsServer, port: u16, environment: &[(&str, &str)]) -> Gateway {
        let mut command = Binary::Server.command();
        command.args(["up", "--port", &port.to_string(), "--nats-url", &nats.url()]);
        command.envs(environment.iter().copied());
        let mut process = Running::start(&mut command);
        let line =
            process.wait_for_line(PATIENCE, "the address", |l| l.contains("gateway listens"));
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap().parse().unwrap();
        Gateway { process, address }
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&mut self) {
        eventually(PATIENCE, "the gateway to be ready", || {
            (http::get(self.address, "/readyz").status == 200).then_some(())
        });
    }
}

/// A bus with short deadlines, as a worker of a test uses it.
pub fn connect(nats: &NatsServer) -> Bus {
    let mut config = Config::default();
    config.nats.url = nats.url();
    let bus = Bus::start(&config.nats, &config.resources).unwrap();
    assert!(bus.wait_connected(PATIENCE), "no connection");
    bus
}

/// A snapshot document.
pub fn document(run_id: &str, updated_at: f64, edit: impl FnOnce(&mut RunSnapshot)) -> Vec<u8> {
    let mut snapshot = RunSnapshot::pending(
        run_id.to_owned(),
        "main".to_owned(),
        "default".to_owned(),
        updated_at,
    );
    edit(&mut snapshot);
    wire::to_wire(&snapshot).unwrap()
}

/// A snapshot that a worker has ended.
pub fn completed(snapshot: &mut RunSnapshot) {
    let at = snapshot.updated_at.unwrap_or(1.0);
    snapshot.finish(RunStatus::Completed, None, at);
}

/// The run ids of a plain list or of a page.
pub fn ids(answer: &Value) -> Vec<String> {
    let items = answer.get("items").unwrap_or(answer).as_array().expect("no list");
    items.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

/// All pages of a paged list, from the first on.
pub fn all_pages(address: SocketAddr, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = http::get(address, &format!("/runs?{query}&cursor={cursor}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        all.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return all,
        }
    }
}

/// Waits until all pages together hold `count` runs.
pub fn wait_count(address: SocketAddr, count: usize) {
    eventually(PATIENCE, &format!("{count} runs in the list"), || {
        let ready = http::get(address, "/readyz").status == 200;
        (ready && all_pages(address, "limit=200").len() == count).then_some(())
    });
}

/// A `multipart/form-data` body: name, file name if it is a file, content.
pub fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let boundary = format!("part-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// POST of a form to `/runs/yaml`.
pub fn post_form(address: SocketAddr, parts: &[(&str, Option<&str>, &[u8])]) -> Response {
    let (content_type, body) = form(parts);
    http::request(address, "POST", "/runs/yaml", &[("Content-Type", &content_type)], &body)
}

/// The smallest submit.
pub fn main_flow() -> Value {
    json!({"flow_name": "main"})
}
