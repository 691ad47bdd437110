//! A job whose worker is gone comes back soon, and one whose worker lives stays where it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pyoco_server::bus::{Bus, Delivered, PullEvent, PullInbox};
use pyoco_server::model::clock;
use pyoco_server::model::run::{Delivery, RunStatus};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::runs::main_flow;

/// Long before `ack_wait` (30 s) and long after the gateway may act.
const SOON: Duration = Duration::from_secs(12);

/// A worker, played by hand.
struct Worker<'a> {
    cluster: &'a Cluster,
    bus: &'a Bus,
    inbox: PullInbox,
}

impl Worker<'_> {
    fn on(cluster: &Cluster) -> Worker<'_> {
        cluster.bus.queue().ensure_consumer("default").unwrap();
        let inbox = cluster.bus.queue().pull_inbox(&["default".to_owned()]);
        Worker { cluster, bus: &cluster.bus, inbox }
    }

    /// The next delivery within `patience`.
    fn next(&mut self, patience: Duration) -> Option<Delivered> {
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            // Right after an outage there may be nobody to ask yet.
            if self.inbox.outstanding(0) == 0 && self.inbox.ask(0, 10, true).is_err() {
                self.bus.wait_connected(left);
                continue;
            }
            let Ok(arrival) = self.inbox.arrivals().recv_timeout(left) else { return None };
            if let PullEvent::Delivered { message, .. } = self.inbox.take(arrival) {
                return Some(message);
            }
        }
        None
    }

    /// Begins a delivered run in the name of a worker.
    fn begin(&self, job: &Delivered, worker_id: &str) -> String {
        let fields: Value = serde_json::from_slice(&job.payload).unwrap();
        let run_id = fields["run_id"].as_str().unwrap().to_owned();
        self.cluster.put_run(&run_id, clock::now(), |run| {
            run.status = RunStatus::Running;
            run.worker_id = Some(worker_id.to_owned());
            run.attempt = Some(job.num_delivered);
            run.delivery = Some(Delivery::new(job.ack_subject().to_owned(), "first".into(), 1.0));
        });
        run_id
    }

    /// A sign of life of a run.
    fn renew(&self, run_id: &str) {
        let (mut snapshot, _) = self.cluster.snapshot(run_id);
        snapshot.heartbeat_at = Some(clock::now());
        self.cluster.put(run_id, &pyoco_server::model::json::to_wire(&snapshot).unwrap());
    }

    /// A sign of life of a worker.
    fn record(&self, worker_id: &str, instance_id: &str, state: &str) {
        let now = clock::now();
        let record =
            json!({"worker_id": worker_id, "instance_id": instance_id, "state": state, "last_seen_at": now});
        self.bus.workers().put(worker_id, record.to_string().as_bytes()).unwrap();
    }
}

fn run_of(job: &Delivered) -> String {
    let fields: Value = serde_json::from_slice(&job.payload).unwrap();
    fields["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn only_jobs_of_workers_that_are_gone_come_back() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "1")]);
    let mut worker = Worker::on(&cluster);
    let names = ["silent", "restarted", "stopped", "renewing", "recorded"];
    // All are delivered before the first begins: from then on its silence counts.
    let jobs = names.map(|name| {
        cluster.submit(&main_flow());
        let job = worker.next(SOON).expect("no delivery");
        assert_eq!(job.num_delivered, 1);
        (name, job)
    });
    let mut names_of: HashMap<String, &str> = HashMap::new();
    let mut begun_at: HashMap<&str, Instant> = HashMap::new();
    for (name, job) in &jobs {
        begun_at.insert(name, Instant::now());
        names_of.insert(worker.begin(job, name), name);
    }
    let run_named = |wanted: &str| {
        names_of.iter().find(|(_, name)| **name == wanted).map(|(run, _)| run.clone()).unwrap()
    };
    let (renewing, recorded) = (run_named("renewing"), run_named("recorded"));
    worker.record("stopped", "first", "STOPPED_GRACEFUL");

    let begun = Instant::now();
    let mut back: Vec<&str> = Vec::new();
    while begun.elapsed() < SOON {
        worker.renew(&renewing);
        worker.record("recorded", "first", "RUNNING");
        // A worker that came up again under the same id does not have the old one's runs.
        worker.record("restarted", "second", "RUNNING");
        if let Some(job) = worker.next(Duration::from_millis(500)) {
            assert!(job.num_delivered == 2, "delivered {} times", job.num_delivered);
            let name = names_of[&run_of(&job)];
            let silent = begun_at[name].elapsed();
            assert!(silent > Duration::from_secs(4), "{name} too early: {silent:?}");
            back.push(name);
            job.ack().unwrap();
        }
    }
    back.sort_unstable();
    assert_eq!(back, ["restarted", "silent", "stopped"]);
    // Those that were alive are rescued in their turn once they fall silent.
    for _ in 0..2 {
        let job = worker.next(SOON).expect("a run that fell silent was not rescued");
        let name = names_of[&run_of(&job)];
        assert!(name == "renewing" && run_of(&job) == renewing || run_of(&job) == recorded, "{name}");
        job.ack().unwrap();
    }
}

/// While NATS is away everybody is silent; that says nothing about a worker.
#[test]
fn an_outage_is_no_sign_of_a_dead_worker() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "1")]);
    cluster.submit(&main_flow());
    {
        let mut worker = Worker::on(&cluster);
        let job = worker.next(SOON).expect("no delivery");
        worker.begin(&job, "w");
        worker.record("w", "first", "RUNNING");
    }
    cluster.nats.stop();
    std::thread::sleep(Duration::from_secs(6));
    cluster.nats.restart();
    assert!(cluster.bus.wait_connected(SOON));
    let mut worker = Worker::on(&cluster);
    let back = Instant::now();
    while back.elapsed() < Duration::from_secs(4) {
        worker.record("w", "first", "RUNNING");
        let job = worker.next(Duration::from_millis(500));
        assert!(job.is_none(), "taken from a live worker {:?} after the outage", back.elapsed());
    }
}
