//! One nats-server with our buckets and queue, and what tests do to them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use pyoco_server::bus::Bus;
use pyoco_server::config::{Config, Source};
use pyoco_server::model::job::Job;
use pyoco_server::model::run::RunSnapshot;
use pyoco_server::model::{clock, json};
use serde_json::{Value, json};

use crate::history::History;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::wait::{PATIENCE, eventually};

/// What all tests begin with: everything that is waited for comes soon.
const QUICK: [(&str, &str); 4] = [
    ("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "2"),
    ("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.5"),
    ("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0.5"),
    ("PYOCO_LOG_LEVEL", "INFO"),
];
/// For one request of a test to JetStream.
const REQUEST: Duration = Duration::from_secs(5);

/// A nats-server, a bus of the test's own, and the settings that all workers on it share.
pub struct Lab {
    pub server: NatsServer,
    pub bus: Bus,
    pub config: Config,
    pub env: Vec<(String, String)>,
    nats: nats::Connection,
}

/// A message as it lies in a stream.
pub struct Stored {
    pub seq: u64,
    pub data: Vec<u8>,
}

impl Lab {
    /// With settings of its own over the quick ones.
    pub fn start(env: &[(&str, &str)]) -> Lab {
        Self::on(NatsServer::start(), env)
    }

    /// On a server with other settings than the usual.
    pub fn start_on(options: NatsOptions, env: &[(&str, &str)]) -> Lab {
        Self::on(NatsServer::start_with(options), env)
    }

    fn on(server: NatsServer, env: &[(&str, &str)]) -> Lab {
        let url = server.url();
        let env: Vec<(String, String)> = QUICK
            .iter()
            .chain(env)
            .chain(&[("PYOCO_NATS_URL", url.as_str())])
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let source = Source::from_pairs(env.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let loaded = Config::load(&source);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let config = loaded.config;
        let nats = nats::Options::new().max_reconnects(None).connect(&url).unwrap();
        let bus = Bus::start(&config.nats, &config.resources).unwrap();
        assert!(bus.wait_connected(PATIENCE), "no connection");
        let lab = Lab { server, bus, config, env, nats };
        // Existing buckets are used as they are; with this one every revision can be read later.
        lab.api(
            "STREAM.CREATE.KV_pyoco_runs",
            &json!({
                "name": "KV_pyoco_runs", "subjects": ["$KV.pyoco_runs.>"], "discard": "new",
                "max_msgs_per_subject": 10_000, "allow_rollup_hdrs": true, "allow_direct": true,
                "duplicate_window": 120_000_000_000u64,
            }),
        );
        lab.bus.ensure_resources().unwrap();
        lab
    }

    /// A run of a `flow.yaml`, in the gateway's own two steps; returns its id.
    pub fn submit_yaml(&self, tag: &str, yaml: &str) -> String {
        self.submit_document(tag, yaml, json!({}))
    }

    /// The same with parameters.
    pub fn submit_document(&self, tag: &str, yaml: &str, params: Value) -> String {
        self.submit_with(tag, "main", params, |job| job.workflow_yaml = Some(yaml.to_owned()))
    }

    /// A run of a flow that the worker knows by name.
    pub fn submit(&self, tag: &str, flow_name: &str, params: Value) -> String {
        self.submit_with(tag, flow_name, params, |_| {})
    }

    fn submit_with(
        &self,
        tag: &str,
        flow_name: &str,
        params: Value,
        edit: impl FnOnce(&mut Job),
    ) -> String {
        let run_id = uuid::Uuid::new_v4().to_string();
        let mut job = self.job(&run_id, tag, flow_name, params);
        edit(&mut job);
        self.store_pending(&job);
        let deadline = Instant::now() + PATIENCE;
        let payload = json::to_wire(&job).unwrap();
        self.bus.queue().submit(tag, &run_id, &payload, deadline).unwrap();
        run_id
    }

    /// A job that is neither stored nor queued.
    pub fn job(&self, run_id: &str, tag: &str, flow_name: &str, params: Value) -> Job {
        let Value::Object(params) = params else { panic!("params are an object") };
        Job {
            run_id: run_id.to_owned(),
            flow_name: flow_name.to_owned(),
            tag: tag.to_owned(),
            tags: vec![tag.to_owned()],
            tenant_id: None,
            api_key_id: None,
            params,
            submitted_at: Some(clock::now()),
            workflow_yaml: None,
            workflow_yaml_sha256: None,
            workflow_yaml_bytes: None,
        }
    }

    /// The gateway's first step.
    pub fn store_pending(&self, job: &Job) -> u64 {
        let (id, flow, tag) = (job.run_id.clone(), job.flow_name.clone(), job.tag.clone());
        let mut snapshot = RunSnapshot::pending(id, flow, tag, clock::now());
        snapshot.params.clone_from(&job.params);
        self.bus.runs().create(&job.run_id, &json::to_wire(&snapshot).unwrap()).unwrap()
    }

    /// Queues bytes as they are, under no message id; returns their sequence.
    pub fn publish_raw(&self, subject: &str, payload: &[u8]) -> u64 {
        let answer = self.nats.request_timeout(subject, payload, REQUEST).unwrap();
        let ack: Value = serde_json::from_slice(&answer.data).unwrap();
        ack["seq"].as_u64().unwrap_or_else(|| panic!("not stored: {ack}"))
    }

    /// Queues a message with a header block as it is, which no client library would send.
    pub fn publish_with_raw_headers(&self, subject: &str, headers: &[u8], payload: &[u8]) {
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(REQUEST)).unwrap();
        let total = headers.len() + payload.len();
        let mut bytes =
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n".to_vec();
        bytes.extend(format!("HPUB {subject} {} {total}\r\n", headers.len()).into_bytes());
        bytes.extend([headers, payload, b"\r\nPING\r\n"].concat());
        stream.write_all(&bytes).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let answer = lines.find(|line| line.starts_with("PONG") || line.starts_with("-ERR"));
        assert_eq!(answer.as_deref(), Some("PONG"));
    }

    /// Gives a delivered job back in the place of its worker; it comes again at once.
    pub fn give_back(&self, ack_subject: &str) {
        self.nats.publish(ack_subject, "-NAK").unwrap();
        self.nats.flush_timeout(REQUEST).unwrap();
    }

    /// Asks for a cancel as the gateway does.
    pub fn cancel(&self, run_id: &str) {
        eventually(PATIENCE, "the cancel is stored", || {
            let entry = self.bus.runs().get(run_id).unwrap().expect("the run is there");
            let mut snapshot: RunSnapshot = json::from_wire(&entry.value).unwrap();
            snapshot.status = pyoco_server::model::run::RunStatus::Cancelling;
            snapshot.cancel_requested_at = Some(clock::now());
            let document = json::to_wire(&snapshot).unwrap();
            self.bus.runs().update(run_id, &document, entry.revision).ok()
        });
    }

    /// The newest snapshot of a run.
    pub fn snapshot(&self, run_id: &str) -> Option<Value> {
        let entry = self.bus.runs().get(run_id).ok()??;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    /// Waits until the run has this status.
    pub fn wait_status(&self, run_id: &str, status: &str) -> Value {
        self.wait_status_within(PATIENCE, run_id, status)
    }

    /// Waits until the run has this status, at most for `deadline`.
    pub fn wait_status_within(&self, deadline: Duration, run_id: &str, status: &str) -> Value {
        let end = Instant::now() + deadline;
        eventually(deadline + REQUEST, &format!("run {run_id} is {status}"), || {
            let snapshot = self.snapshot(run_id)?;
            let is = snapshot["status"].as_str().unwrap_or_default();
            let terminal = ["COMPLETED", "FAILED", "CANCELLED"].contains(&is);
            assert!(is == status || !terminal, "it has ended otherwise: {snapshot}");
            assert!(
                is == status || Instant::now() < end,
                "not {status} in {deadline:?}: {snapshot}"
            );
            (is == status).then_some(snapshot)
        })
    }

    /// Waits for the terminal status and for the job to leave the queue, then checks everything
    /// that must hold of any run that has ended; returns all its revisions.
    pub fn ended(&self, run_id: &str, status: &str) -> History {
        self.wait_status(run_id, status);
        self.wait_queue_empty();
        let history = self.history(run_id);
        history.assert_lawful(status);
        history
    }

    /// Waits until no job is left, settled ones aside.
    pub fn wait_queue_empty(&self) {
        eventually(PATIENCE, "the work queue is empty", || (self.queued() == 0).then_some(()));
    }

    /// Jobs that are not settled.
    pub fn queued(&self) -> u64 {
        self.api("STREAM.INFO.PYOCO_WORK", &Value::Null)["state"]["messages"].as_u64().unwrap()
    }

    /// Every revision of a run's snapshot.
    pub fn history(&self, run_id: &str) -> History {
        History(
            self.stored("KV_pyoco_runs", &format!("$KV.pyoco_runs.{run_id}"))
                .into_iter()
                .filter(|stored| !stored.data.is_empty())
                .map(|stored| (stored.seq, serde_json::from_slice(&stored.data).unwrap()))
                .collect(),
        )
    }

    /// All entries of the DLQ.
    pub fn dlq(&self) -> Vec<Value> {
        self.stored("PYOCO_DLQ", "pyoco.dlq.>")
            .iter()
            .map(|stored| serde_json::from_slice(&stored.data).unwrap())
            .collect()
    }

    /// Waits for the DLQ to hold `count` entries.
    pub fn wait_dlq(&self, count: usize) -> Vec<Value> {
        eventually(PATIENCE, &format!("{count} entries in the DLQ"), || {
            let entries = self.dlq();
            (entries.len() >= count).then_some(entries)
        })
    }

    /// All messages of a stream under a subject, oldest first.
    pub fn stored(&self, stream: &str, subject: &str) -> Vec<Stored> {
        let (mut found, mut seq) = (Vec::new(), 1);
        loop {
            let which = json!({"seq": seq, "next_by_subj": subject});
            let answer = self.api(&format!("STREAM.MSG.GET.{stream}"), &which);
            let Some(at) = answer["message"]["seq"].as_u64() else { return found };
            let data = answer["message"]["data"].as_str().unwrap_or_default();
            found.push(Stored {
                seq: at,
                data: base64::engine::general_purpose::STANDARD.decode(data).unwrap(),
            });
            seq = at + 1;
        }
    }

    /// One call of JetStream's API; a refusal is an answer too.
    pub fn api(&self, call: &str, body: &Value) -> Value {
        let payload = if body.is_null() { String::new() } else { body.to_string() };
        let subject = format!("$JS.API.{call}");
        let answer = eventually(PATIENCE, &format!("an answer to {call}"), || {
            self.nats.request_timeout(&subject, &payload, REQUEST).ok()
        });
        serde_json::from_slice(&answer.data).unwrap()
    }

    /// Changes settings of a stream.
    pub fn update_stream(&self, stream: &str, edit: impl FnOnce(&mut Value)) {
        let mut config = self.api(&format!("STREAM.INFO.{stream}"), &Value::Null)["config"].take();
        edit(&mut config);
        let answer = self.api(&format!("STREAM.UPDATE.{stream}"), &config);
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// The record of a worker.
    pub fn record(&self, worker_id: &str) -> Option<Value> {
        let entry = self.bus.workers().get(worker_id).ok()??;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    /// Waits for a worker's record to satisfy `wanted`.
    pub fn wait_record(
        &self,
        worker_id: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(PATIENCE, &format!("record of {worker_id}: {what}"), || {
            self.record(worker_id).filter(|record| wanted(record))
        })
    }
}
