//! Two workers on one run: the one that was thought dead finds out, and leaves no trace.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::flows;
use crate::support::cluster::{Cluster, Worker, with_flags};
use crate::support::jetstream;
use crate::support::wait::{PATIENCE, eventually};

/// Short to wait for, and eight times as long as a busy machine may delay a sign of life.
const SHORT: [(&str, &str); 2] =
    [("PYOCO_CONSUMER_ACK_WAIT_SEC", "4"), ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "0.5")];

/// Waits until a task runs: before that a worker that stood still makes sure of its claim.
fn wait_executed(cluster: &Cluster, run_id: &str) {
    eventually(PATIENCE, "a task runs", || {
        (cluster.stored(run_id)?["tasks"]["nap"] == "RUNNING").then_some(())
    });
}

/// Freezes the first worker over a run, lets the second one take it, wakes the first.
fn take_away(cluster: &Cluster, yaml: &str) -> (String, Worker, Worker) {
    let first = cluster.start_worker("first", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", yaml);
    wait_executed(cluster, &run_id);
    first.signal(Signal::STOP);
    let second = cluster.start_worker("second", with_flags(&["--concurrency", "1"]));
    eventually(PATIENCE, "the second worker has the run", || {
        (cluster.stored(&run_id)?["worker_id"] == "second").then_some(())
    });
    first.signal(Signal::CONT);
    (run_id, first, second)
}

#[test]
fn a_worker_that_wakes_up_during_the_other_ones_attempt_leaves_the_run() {
    let cluster = Cluster::new().quick().envs(&SHORT).start();
    let (run_id, mut first, _second) = take_away(&cluster, &flows::sleep(12.0));
    let line = first.wait_for_line(PATIENCE, "that it has lost the run", |line| {
        line.contains("lost the run") && line.contains(&run_id)
    });
    assert!(line.contains("second"), "it says to whom: {line}");
    // Its slot is free for other work at once.
    let next = cluster.queue_yaml("default", flows::ECHO);
    assert_eq!(cluster.wait_stored(&next, "COMPLETED")["worker_id"], "first");
    let history = cluster.settled(&run_id, "COMPLETED");
    let last = history.last();
    assert_eq!((&last["worker_id"], &last["attempt"]), (&json!("second"), &json!(2)));
    let after_claim = history.0.iter().skip_while(|(_, document)| document["worker_id"] != "second");
    for (revision, document) in after_claim {
        assert_eq!(document["worker_id"], "second", "the loser has written revision {revision}");
    }
    assert!(cluster.dlq().is_empty());
}

#[test]
fn a_worker_that_wakes_up_after_the_end_leaves_the_terminal_snapshot_alone() {
    let cluster = Cluster::new().quick().envs(&SHORT).start();
    let first = cluster.start_worker("first", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(6.0));
    wait_executed(&cluster, &run_id);
    first.signal(Signal::STOP);
    let _second = cluster.start_worker("second", with_flags(&["--concurrency", "1"]));
    let before = cluster.wait_stored(&run_id, "COMPLETED");
    assert_eq!(before["worker_id"], "second");
    // Awake, its own task is over too: it wants to store its own end, and may not.
    let mut first = first;
    first.signal(Signal::CONT);
    first.wait_for_line(PATIENCE, "that it is not its run", |line| {
        line.contains(&run_id) && (line.contains("lost the run") || line.contains("not ours"))
    });
    let next = cluster.queue_yaml("default", flows::ECHO);
    cluster.settled(&next, "COMPLETED");
    assert!(first.stop(Duration::from_secs(10)).success());
    let history = cluster.settled(&run_id, "COMPLETED");
    assert_eq!(*history.last(), before);
}

/// Jobs of a tag that NATS has delivered and that are not settled.
fn in_hand(cluster: &Cluster, tag: &str) -> Value {
    let call = format!("CONSUMER.INFO.PYOCO_WORK.pyoco_workers_{tag}");
    jetstream::call(&cluster.nats, &call, &Value::Null)["num_ack_pending"].clone()
}

/// Two jobs lie in the socket of a worker that stands still, and it has a slot for one of them.
#[test]
fn a_job_that_has_waited_in_a_frozen_worker_is_not_taken_from_the_next_one() {
    let cluster = Cluster::new().quick().envs(&SHORT).start();
    let first = cluster.start_worker("first", with_flags(&["--tags", "a,b", "--concurrency", "1"]));
    // A pull that ends in the same moment takes no job.
    let runs = eventually(PATIENCE, "both jobs are with the first worker", || {
        cluster.settled(&cluster.queue_yaml("b", flows::ECHO), "COMPLETED");
        std::thread::sleep(Duration::from_millis(200));
        first.signal(Signal::STOP);
        let runs = ["a", "b"].map(|tag| cluster.queue_yaml(tag, &flows::sleep(8.0)));
        std::thread::sleep(Duration::from_millis(200));
        let are_taken = ["a", "b"].iter().all(|tag| in_hand(&cluster, tag) == 1);
        if !are_taken {
            first.signal(Signal::CONT);
            runs.iter().for_each(|run_id| drop(cluster.settled(run_id, "COMPLETED")));
        }
        are_taken.then_some(runs)
    });
    let _second = cluster.start_worker("second", with_flags(&["--tags", "a,b", "--concurrency", "4"]));
    for run_id in &runs {
        assert_eq!(cluster.wait_stored(run_id, "RUNNING")["worker_id"], "second");
    }
    first.signal(Signal::CONT);
    for run_id in &runs {
        let history = cluster.settled(run_id, "COMPLETED");
        let last = history.last();
        assert_eq!((&last["worker_id"], &last["attempt"]), (&json!("second"), &json!(2)), "{last}");
        assert!(last.get("lost_attempts").is_none(), "{last}");
    }
    cluster.wait_queue_empty();
}
