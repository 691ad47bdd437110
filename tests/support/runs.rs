//! Runs: through a gateway as users see them, and in NATS as a worker sees them.

use std::time::{Duration, Instant};

use pyoco_server::bus::{Entry, Operation};
use pyoco_server::model::job::Job;
use pyoco_server::model::run::{RunSnapshot, RunStatus};
use pyoco_server::model::{clock, json as wire};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::history::History;
use super::http::{Client, Response};
use super::jetstream;
use super::wait::{PATIENCE, eventually};

/// The longest that [`Client::ended`] waits unless the cluster is told otherwise.
pub const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// What a look at a run may take.
const LOOK: Duration = Duration::from_secs(5);
/// The statuses of runs that have ended.
const TERMINAL: [&str; 3] = ["COMPLETED", "FAILED", "CANCELLED"];

pub fn main_flow() -> Value {
    json!({"flow_name": "main"})
}

/// The run ids of a plain list or of a page.
pub fn ids(answer: &Value) -> Vec<String> {
    let items = answer.get("items").unwrap_or(answer).as_array().expect("no list");
    items.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

/// The id of a run that has been accepted.
pub fn accepted(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["status"], "PENDING");
    answer["run_id"].as_str().unwrap().to_owned()
}

/// Runs as a gateway shows them.
impl Client {
    /// Submits a run that must be accepted; its id.
    pub fn submit(&self, body: &Value) -> String {
        accepted(&self.post("/runs", body))
    }

    /// Submits a run by the name of its flow; its id.
    pub fn submit_flow(&self, tag: &str, flow_name: &str, params: Value) -> String {
        self.submit(&json!({"flow_name": flow_name, "tag": tag, "params": params}))
    }

    /// Submits a run with its document; its id.
    pub fn submit_yaml(&self, tag: &str, flow_name: &str, document: &str) -> String {
        accepted(&self.post_yaml(tag, flow_name, document))
    }

    /// Sends a document, whatever the answer is.
    pub fn post_yaml(&self, tag: &str, flow_name: &str, document: &str) -> Response {
        let parts = [
            ("workflow", Some("flow.yaml"), document.as_bytes()),
            ("flow_name", None, flow_name.as_bytes()),
            ("tag", None, tag.as_bytes()),
        ];
        self.post_form("/runs/yaml", &parts)
    }

    /// A run with its records.
    pub fn run(&self, run_id: &str) -> Value {
        self.get_json(&format!("/runs/{run_id}?include=records"))
    }

    /// Asks for a cancel, which must be granted; the run.
    pub fn cancel(&self, run_id: &str) -> Value {
        let answer = self.post(&format!("/runs/{run_id}/cancel"), &json!({"reason": "a test"}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until the gateway shows `status` for a run; what it shows.
    pub fn wait_status(&self, run_id: &str, status: &str) -> Value {
        eventually(PATIENCE, &format!("run {run_id} to be {status}"), || {
            let answer = self.get(&format!("/runs/{run_id}"));
            (answer.status == 200).then(|| answer.json()).filter(|run| run["status"] == status)
        })
    }

    /// Waits until a run with its records satisfies `wanted`.
    pub fn wait_run(&self, run_id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + self.run_deadline;
        eventually(self.run_deadline * 2, &format!("run {run_id} {what}"), || {
            let run = self.run(run_id);
            assert!(Instant::now() < end, "waiting for a run {what}, which is still {run}");
            wanted(&run).then_some(run)
        })
    }

    /// Waits until a run has ended; the run with its records.
    pub fn ended(&self, run_id: &str) -> Value {
        self.wait_run(run_id, "to end", |run| TERMINAL.iter().any(|end| run["status"] == *end))
    }

    /// Waits for the end of a run that must end so; the run with its records.
    pub fn ended_as(&self, run_id: &str, status: &str) -> Value {
        let run = self.ended(run_id);
        assert_eq!(run["status"], status, "{run}");
        run
    }

    /// All pages of a paged list, from the first on.
    pub fn all_pages(&self, query: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get_json(&format!("/runs?{query}&cursor={cursor}"));
            all.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return all,
            }
        }
    }

    /// Waits until all pages together hold `count` runs.
    pub fn wait_count(&self, count: usize) {
        eventually(PATIENCE, &format!("{count} runs in the list"), || {
            let ready = self.get("/readyz").status == 200;
            (ready && self.all_pages("limit=200").len() == count).then_some(())
        });
    }
}

pub fn document(run_id: &str, updated_at: f64, edit: impl FnOnce(&mut RunSnapshot)) -> Vec<u8> {
    let (flow, tag) = ("main".to_owned(), "default".to_owned());
    let mut snapshot = RunSnapshot::pending(run_id.to_owned(), flow, tag, updated_at);
    edit(&mut snapshot);
    wire::to_wire(&snapshot).unwrap()
}

/// Edits a snapshot as a worker does that has ended the run.
pub fn completed(snapshot: &mut RunSnapshot) {
    let at = snapshot.updated_at.unwrap_or(1.0);
    snapshot.finish(RunStatus::Completed, None, at);
}

/// A job that is neither stored nor queued.
pub fn new_job(run_id: &str, tag: &str, flow_name: &str, params: Value) -> Job {
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
        requeued_at_revision: None,
        lost_attempts: None,
    }
}

/// Runs as they lie in NATS, past every gateway.
impl Cluster {
    /// A run of a flow that the worker knows by name, queued in the gateway's own two steps; its id.
    pub fn queue(&self, tag: &str, flow_name: &str, params: Value) -> String {
        self.queue_job(new_job(&uuid::Uuid::new_v4().to_string(), tag, flow_name, params))
    }

    /// The same for a document.
    pub fn queue_yaml(&self, tag: &str, yaml: &str) -> String {
        self.queue_yaml_with(tag, yaml, json!({}))
    }

    /// The same with parameters.
    pub fn queue_yaml_with(&self, tag: &str, yaml: &str, params: Value) -> String {
        let job = new_job(&uuid::Uuid::new_v4().to_string(), tag, "main", params);
        self.queue_job(Job { workflow_yaml: Some(yaml.to_owned()), ..job })
    }

    fn queue_job(&self, job: Job) -> String {
        self.store_pending(&job);
        let payload = wire::to_wire(&job).unwrap();
        let deadline = Instant::now() + PATIENCE;
        self.bus.queue().submit(&job.tag, &job.run_id, &payload, deadline).unwrap();
        job.run_id
    }

    /// The gateway's first step.
    pub fn store_pending(&self, job: &Job) -> u64 {
        let (id, flow, tag) = (job.run_id.clone(), job.flow_name.clone(), job.tag.clone());
        let mut snapshot = RunSnapshot::pending(id, flow, tag, clock::now());
        snapshot.params.clone_from(&job.params);
        self.bus.runs().create(&job.run_id, &wire::to_wire(&snapshot).unwrap()).unwrap()
    }

    /// Marks a run as the gateway does that is asked to cancel it.
    pub fn mark_cancelling(&self, run_id: &str) {
        eventually(PATIENCE, "the cancel is stored", || {
            let (mut snapshot, revision) = self.snapshot(run_id);
            snapshot.status = RunStatus::Cancelling;
            snapshot.cancel_requested_at = Some(clock::now());
            let document = wire::to_wire(&snapshot).unwrap();
            self.bus.runs().update(run_id, &document, revision).ok()
        });
    }

    /// The newest message of a run's key, tombstones included.
    pub fn newest(&self, run_id: &str) -> Option<Entry> {
        self.bus.runs().newest(run_id).unwrap()
    }

    /// A run's snapshot, and its revision.
    pub fn snapshot(&self, run_id: &str) -> (RunSnapshot, u64) {
        let entry = self.bus.runs().get(run_id).unwrap().expect("no snapshot");
        (wire::from_wire(&entry.value).unwrap(), entry.revision)
    }

    /// A run's snapshot as a document; none while NATS is away.
    pub fn stored(&self, run_id: &str) -> Option<Value> {
        let entry = self.bus.runs().get(run_id).ok()??;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    /// Stores a document under a run's key, whatever was there.
    pub fn put(&self, run_id: &str, document: &[u8]) -> u64 {
        self.bus.runs().put(run_id, document).unwrap()
    }

    /// Stores a run as a worker would have.
    pub fn put_run(&self, run_id: &str, updated_at: f64, edit: impl FnOnce(&mut RunSnapshot)) -> u64 {
        self.put(run_id, &document(run_id, updated_at, edit))
    }

    /// Whether a run is neither shown nor listed, and its key is deleted or never was.
    pub fn assert_gone(&self, run_id: &str) {
        assert_eq!(self.get(&format!("/runs/{run_id}")).status, 404, "shown");
        assert!(!ids(&self.get("/runs?limit=200").json()).contains(&run_id.to_owned()), "listed");
        let entry = self.newest(run_id);
        assert!(entry.is_none_or(|entry| entry.operation == Operation::Delete), "still in KV");
    }

    /// Waits until the stored snapshot has this status; a run that has ended otherwise fails the test.
    pub fn wait_stored(&self, run_id: &str, status: &str) -> Value {
        self.wait_stored_within(PATIENCE, run_id, status)
    }

    /// The same, at most for `deadline`.
    pub fn wait_stored_within(&self, deadline: Duration, run_id: &str, status: &str) -> Value {
        let end = Instant::now() + deadline;
        eventually(deadline + LOOK, &format!("run {run_id} is {status}"), || {
            let snapshot = self.stored(run_id)?;
            let is = snapshot["status"].as_str().unwrap_or_default();
            assert!(is == status || !TERMINAL.contains(&is), "it has ended otherwise: {snapshot}");
            assert!(is == status || Instant::now() < end, "not {status} in {deadline:?}: {snapshot}");
            (is == status).then_some(snapshot)
        })
    }

    /// Waits for the terminal status and for the job to leave the queue, then checks everything that must
    /// hold of any run that has ended; all its revisions. It needs [`super::cluster::Builder::quick`].
    pub fn settled(&self, run_id: &str, status: &str) -> History {
        self.wait_stored(run_id, status);
        self.wait_queue_empty();
        let history = self.history(run_id);
        history.assert_lawful(status);
        history
    }

    /// Every revision of a run's snapshot. It needs [`super::cluster::Builder::quick`].
    pub fn history(&self, run_id: &str) -> History {
        let stored = jetstream::all(&self.nats, "KV_pyoco_runs", &format!("$KV.pyoco_runs.{run_id}"));
        let documents = stored.iter().filter(|message| !message.data.is_empty());
        History(documents.map(|message| (message.seq, message.json())).collect())
    }

    /// Jobs that are not settled.
    pub fn queued(&self) -> u64 {
        jetstream::messages(&self.nats, "PYOCO_WORK")
    }

    /// Waits until no job is left, settled ones aside.
    pub fn wait_queue_empty(&self) {
        eventually(PATIENCE, "the work queue is empty", || (self.queued() == 0).then_some(()));
    }

    /// All entries of the DLQ.
    pub fn dlq(&self) -> Vec<Value> {
        let entries = jetstream::all(&self.nats, "PYOCO_DLQ", "pyoco.dlq.>");
        entries.iter().map(jetstream::Stored::json).collect()
    }

    /// Waits for the DLQ to hold `count` entries.
    pub fn wait_dlq(&self, count: usize) -> Vec<Value> {
        eventually(PATIENCE, &format!("{count} entries in the DLQ"), || {
            Some(self.dlq()).filter(|entries| entries.len() >= count)
        })
    }
}
