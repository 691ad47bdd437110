//! Two workers on one run: the one that was thought dead finds out, and leaves no trace.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::flows;
use crate::lab::Lab;
use crate::support::wait::{PATIENCE, eventually};
use crate::workers::process;

/// Short to wait for, and eight times as long as a busy machine may delay a sign of life.
const SHORT: [(&str, &str); 2] =
    [("PYOCO_CONSUMER_ACK_WAIT_SEC", "4"), ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "0.5")];

/// Freezes the first worker over a run, lets the second one take it, wakes the first.
fn take_away(
    lab: &Lab,
    yaml: &str,
) -> (String, crate::support::process::Running, crate::support::process::Running) {
    let first = process(lab, "first", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", yaml);
    lab.wait_status(&run_id, "RUNNING");
    first.signal(Signal::STOP);
    let second = process(lab, "second", &["--concurrency", "1"]);
    eventually(PATIENCE, "the second worker has the run", || {
        (lab.snapshot(&run_id)?["worker_id"] == "second").then_some(())
    });
    first.signal(Signal::CONT);
    (run_id, first, second)
}

#[test]
fn a_worker_that_wakes_up_during_the_other_ones_attempt_leaves_the_run() {
    let lab = Lab::start(&SHORT);
    let (run_id, mut first, _second) = take_away(&lab, &flows::sleep(12.0));
    let line = first.wait_for_line(PATIENCE, "that it has lost the run", |line| {
        line.contains("lost the run") && line.contains(&run_id)
    });
    assert!(line.contains("second"), "it says to whom: {line}");
    // Its slot is free for other work at once.
    let next = lab.submit_yaml("default", flows::ECHO);
    assert_eq!(lab.wait_status(&next, "COMPLETED")["worker_id"], "first");
    let history = lab.ended(&run_id, "COMPLETED");
    let last = history.last();
    assert_eq!((&last["worker_id"], &last["attempt"]), (&json!("second"), &json!(2)));
    let after_claim =
        history.0.iter().skip_while(|(_, document)| document["worker_id"] != "second");
    for (revision, document) in after_claim {
        assert_eq!(document["worker_id"], "second", "the loser has written revision {revision}");
    }
    assert!(lab.dlq().is_empty());
}

#[test]
fn a_worker_that_wakes_up_after_the_end_leaves_the_terminal_snapshot_alone() {
    let lab = Lab::start(&SHORT);
    let first = process(&lab, "first", &["--concurrency", "1"]);
    let run_id = lab.submit_yaml("default", &flows::sleep(6.0));
    lab.wait_status(&run_id, "RUNNING");
    first.signal(Signal::STOP);
    let _second = process(&lab, "second", &["--concurrency", "1"]);
    let before = lab.wait_status(&run_id, "COMPLETED");
    assert_eq!(before["worker_id"], "second");
    // Awake, its own task is over too: it wants to store its own end, and may not.
    let mut first = first;
    first.signal(Signal::CONT);
    first.wait_for_line(PATIENCE, "that it is not its run", |line| {
        line.contains(&run_id) && (line.contains("lost the run") || line.contains("not ours"))
    });
    let next = lab.submit_yaml("default", flows::ECHO);
    lab.ended(&next, "COMPLETED");
    assert!(first.stop(Duration::from_secs(10)).success());
    let history = lab.ended(&run_id, "COMPLETED");
    assert_eq!(*history.last(), before);
}
