//! A run and its message that have lost each other are found by the gateway, whatever was lost on the way.

use std::time::{Duration, Instant};

use pyoco_server::bus::{Delivered, PullEvent, PullInbox};
use pyoco_server::model::clock;
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

/// Nobody tells the gateway or any worker that the deliveries of a job are used up.
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
    let mut inbox = cluster.bus.queue().pull_inbox(&["default".to_owned()]);
    for _ in 0..2 {
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
    eventually(PATIENCE, "the old message is gone", || (cluster.queued() == 1).then_some(()));
}

/// The gateway died between the two steps of a submit; a job of the same tag waits all the time.
#[test]
fn a_run_without_a_job_ends_beside_one_that_waits() {
    let cluster = Cluster::with_gateway();
    let waiting = cluster.submit(&main_flow());
    cluster.put_run("orphan", clock::now(), |_| {});
    let ended = cluster.wait_stored_within(Duration::from_secs(100), "orphan", "FAILED");
    assert!(ended["error"].as_str().unwrap().starts_with("job_lost"), "{ended}");
    assert_eq!(cluster.stored(&waiting).unwrap()["status"], "PENDING");
    assert_eq!(cluster.queued(), 1);
}
