//! Consumers that refuse pulls: a worker obeys what can be obeyed and says what cannot.

use serde_json::{Value, json};

use crate::flows;
use crate::support::cluster::{Cluster, with_flags};
use crate::support::jetstream;
use crate::support::wait::PATIENCE;

fn make_consumer(cluster: &Cluster, tag: &str, extra: &Value) {
    cluster.bus.ensure_resources().unwrap();
    let mut config = json!({"durable_name": format!("pyoco_workers_{tag}"), "ack_policy": "explicit",
        "filter_subject": format!("pyoco.work.{tag}"), "ack_wait": 30_000_000_000u64, "max_deliver": 20});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let body = json!({"stream_name": "PYOCO_WORK", "config": config});
    let call = format!("CONSUMER.DURABLE.CREATE.PYOCO_WORK.pyoco_workers_{tag}");
    jetstream::call(&cluster.nats, &call, &body);
}

#[test]
fn a_worker_of_a_push_based_consumer_ends_with_words() {
    let cluster = Cluster::new().quick().start();
    make_consumer(&cluster, "default", &json!({"deliver_subject": "elsewhere"}));
    let mut worker = cluster.spawn_worker("w", with_flags(&["--tags", "default,other"]));
    let status = worker.process.wait(PATIENCE);
    let stderr = worker.process.stderr();
    assert_eq!(status.code(), Some(1), "{stderr}");
    for word in ["pyoco_workers_default", "push based", "elsewhere", "can never take a job"] {
        assert!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    assert_eq!(cluster.record("w").map(|record| record["state"].clone()), Some("STOPPED_GRACEFUL".into()));
}

#[test]
fn limits_of_a_consumer_are_obeyed() {
    let limits = json!({"max_batch": 1, "max_expires": 500_000_000, "max_bytes": 1});
    for tags in ["default", "default,other"] {
        let cluster = Cluster::new().quick().start();
        make_consumer(&cluster, "default", &limits);
        let flags = with_flags(&["--tags", tags, "--concurrency", "4"]);
        let worker = cluster.start_worker("w", flags);
        for _ in 0..2 {
            let runs: Vec<String> = (0..6).map(|_| cluster.queue_yaml("default", flows::ECHO)).collect();
            runs.iter().for_each(|run_id| drop(cluster.wait_stored(run_id, "COMPLETED")));
        }
        let stderr = worker.process.stderr();
        assert!(!stderr.contains("ends pulls at once"), "{stderr}");
    }
}
