//! A run and its message that have lost each other are found by the gateway, whatever was lost on the way.

use std::time::{Duration, Instant};

use pyoco_server::bus::{Delivered, PullEvent, PullInbox};
use pyoco_server::model::clock;
use pyoco_server::model::run::RunStatus;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::runs::main_flow;
use crate::support::wait::{PATIENCE, eventually};

/// Two looks of the gateway, and what comes after.
const FOUND: Duration = Duration::from_secs(60);

/// The next delivery; `None` when none comes within `patience`.
fn next(inbox: &mut PullInbox, patience: Duration) -> Option<Delivered> {
    let until = Instant::now() + patience;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if inbox.outstanding(0) == 0 {
            inbox.ask(0, 1, true).unwrap();
        }
        let Ok(arrival) = inbox.arrivals().recv_timeout(left) else { return None };
        if let PullEvent::Delivered { message, .. } = inbox.take(arrival) {
            return Some(message);
        }
    }
    None
}

/// Publishes any bytes to the work queue.
fn publish(cluster: &Cluster, id: &str, payload: &[u8]) -> u64 {
    cluster.bus.queue().publish("default", id, payload, Instant::now() + PATIENCE).unwrap().seq
}

/// Nobody tells the gateway or any worker that the deliveries of a job are used up. What is no job and lies
/// beside it is taken out.
#[test]
fn a_job_that_nats_delivers_no_more_is_published_anew() {
    let env = [("PYOCO_CONSUMER_MAX_DELIVER", "2"), ("PYOCO_CONSUMER_ACK_WAIT_SEC", "1")];
    let cluster = Cluster::with_gateway_env(&env);
    // Like the gateway's, so that the consumer is as it asks for.
    cluster.bus.queue().ensure().unwrap();
    let consumer = json!({"stream_name": "PYOCO_WORK", "config": {
        "durable_name": "pyoco_workers_default", "filter_subject": "pyoco.work.default",
        "ack_policy": "explicit", "ack_wait": 1_000_000_000u64, "max_deliver": 2,
    }});
    jetstream::call(&cluster.nats, "CONSUMER.DURABLE.CREATE.PYOCO_WORK.pyoco_workers_default", &consumer);
    let stuck = cluster.submit(&main_flow());
    publish(&cluster, "no-job", b"not json");
    let mut inbox = cluster.bus.queue().pull_inbox(&["default".to_owned()]);
    for _ in 0..4 {
        next(&mut inbox, PATIENCE).unwrap().nak(Duration::ZERO).unwrap();
    }
    jetstream::try_call(&cluster.nats, "STREAM.DELETE.PYOCO_ADVISORY", &Value::Null);
    assert!(next(&mut inbox, Duration::from_secs(3)).is_none(), "its deliveries are not used up");
    // Another one waits meanwhile, and is delivered before.
    let other = cluster.submit(&main_flow());
    let delivered = next(&mut inbox, PATIENCE).unwrap();
    assert!(String::from_utf8_lossy(&delivered.payload).contains(&other));
    delivered.ack().unwrap();
    let anew = next(&mut inbox, FOUND).expect("the job was not published anew");
    let job: Value = serde_json::from_slice(&anew.payload).unwrap();
    assert_eq!((&job["run_id"], anew.num_delivered), (&json!(stuck), 1), "{job}");
    let run = eventually(PATIENCE, "the new message is named", || {
        cluster.stored(&stuck).filter(|run| run["job_seq"] == anew.stream_seq)
    });
    assert_eq!(run["status"], "PENDING", "{run}");
    assert!(run.get("lost_attempts").is_none(), "{run}");
    let entry = &cluster.wait_dlq(1)[0];
    assert_eq!((&entry["reason"], &entry["payload"]), (&json!("invalid_job"), &json!("not json")), "{entry}");
    assert_eq!(entry["subject"], "pyoco.work.default", "{entry}");
    eventually(PATIENCE, "the old messages are gone", || (cluster.queued() == 1).then_some(()));
}

/// The gateway died between the two steps of a submit. Jobs of the same tag wait all the time, and the
/// message of a run that has ended lies among them.
#[test]
fn a_run_without_a_job_ends_beside_those_that_wait() {
    let cluster = Cluster::with_gateway();
    let waiting = cluster.submit(&main_flow());
    let removed = cluster.submit(&main_flow());
    cluster.put_run("ended", clock::now(), |run| run.finish(RunStatus::Completed, None, clock::now()));
    publish(&cluster, "ended", br#"{"run_id":"ended","flow_name":"main"}"#);
    cluster.put_run("orphan", clock::now(), |_| {});
    // Restored from a backup that is older than the last message of the run: its snapshot names that one.
    let restored = cluster.put_run("restored", clock::now(), |run| run.job_seq = Some(9_999));
    publish(&cluster, "restored", br#"{"run_id":"restored","flow_name":"main"}"#);
    let silent_since = Instant::now();
    let seq = jetstream::all(&cluster.nats, "PYOCO_WORK", "pyoco.work.default")[1].seq;
    jetstream::call(&cluster.nats, "STREAM.MSG.DELETE.PYOCO_WORK", &json!({"seq": seq}));
    for lost in ["orphan", &removed] {
        let ended = cluster.wait_stored_within(Duration::from_secs(100), lost, "FAILED");
        assert!(ended["error"].as_str().unwrap().starts_with("job_lost"), "{ended}");
    }
    let took = silent_since.elapsed();
    assert!((Duration::from_secs(55)..Duration::from_secs(90)).contains(&took), "{took:?}");
    for there in [waiting.as_str(), "restored"] {
        assert_eq!(cluster.stored(there).unwrap()["status"], "PENDING");
    }
    assert_eq!(cluster.bus.runs().get("restored").unwrap().unwrap().revision, restored);
    assert_eq!(cluster.queued(), 3);
}
