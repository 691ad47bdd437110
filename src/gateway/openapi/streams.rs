//! Streams of events and the shapes of their data.

use serde_json::{Value, json};

use super::operation::{Operation, operation, stream_of};
use super::runs::include_records;
use super::shape::{bounded, count, flag, object, reference, text, time};
use crate::model::limits::WATCH_TIMEOUT_SEC;

const TAG: &str = "streams";

pub(super) fn operations() -> Vec<Operation> {
    let mut until_terminal = flag("The stream ends after the terminal snapshot");
    until_terminal["default"] = false.into();
    vec![
        operation("GET", "/runs/{run_id}/watch", "watchRun", TAG)
            .says(
                "A run as it changes",
                "The present snapshot comes at once, then each newer one, and a heartbeat in silence.",
            )
            .segment("run_id", "The run")
            .query("include", include_records())
            .query("since", time("Only snapshots that were written at or after this time"))
            .query("timeout_sec", bounded("How long the stream lasts, in seconds", WATCH_TIMEOUT_SEC))
            .query("until_terminal", until_terminal)
            .header("LastEventId")
            .answers(200, "Events; the `id` of a snapshot is its revision.", stream_of(
                &[("snapshot", "WatchSnapshot"), ("heartbeat", "WatchHeartbeat")],
                "retry: 2000\n\nevent: snapshot\nid: 17\ndata: {\"run_id\":\"884949f7-f0e5-4c92-9390-9fa9343fdb25\",\"snapshot\":{\"status\":\"RUNNING\"},\"ts\":1795187473.52}\n\n",
            ))
            .with_header(200, "Cache-Control", no_cache())
            .fails(&[404, 422]),
        operation("GET", "/events", "watchEvents", TAG)
            .says(
                "All changes of runs and workers",
                "Lasts until the client leaves. Load the lists after each first `state` and each `reset`, and put the changes on top.",
            )
            .answers(200, "Events.", stream_of(
                &[
                    ("state", "FeedState"),
                    ("run", "RunSummary"),
                    ("run_removed", "RunRemoved"),
                    ("worker", "Worker"),
                    ("worker_removed", "WorkerRemoved"),
                    ("reset", "FeedReset"),
                    ("heartbeat", "FeedHeartbeat"),
                ],
                "retry: 2000\n\nevent: state\ndata: {\"live\":true,\"ts\":1795187473.52}\n\n",
            ))
            .with_header(200, "Cache-Control", no_cache()),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let run_id = || text("The run");
    let now = || time("When it was sent");
    vec![
        (
            "WatchSnapshot",
            object(
                "Data of `snapshot`.",
                &["run_id", "snapshot", "ts"],
                json!({"run_id": run_id(), "snapshot": reference("Run"), "ts": now()}),
            ),
        ),
        (
            "WatchHeartbeat",
            object("Data of `heartbeat`.", &["run_id", "ts"], json!({"run_id": run_id(), "ts": now()})),
        ),
        (
            "FeedState",
            object(
                "Data of `state`.",
                &["live", "ts"],
                json!({"live": flag("The gateway's view of NATS is current"), "ts": now()}),
            ),
        ),
        (
            "FeedReset",
            object(
                "Data of `reset`: load the lists again.",
                &["lost", "ts"],
                json!({"lost": count("Changes that were not told"), "ts": now()}),
            ),
        ),
        ("FeedHeartbeat", object("Data of `heartbeat`.", &["ts"], json!({"ts": now()}))),
        ("RunRemoved", object("Data of `run_removed`.", &["run_id"], json!({"run_id": run_id()}))),
        (
            "WorkerRemoved",
            object("Data of `worker_removed`.", &["worker_id"], json!({"worker_id": text("The worker")})),
        ),
    ]
}

fn no_cache() -> Value {
    json!({"description": "`no-cache`", "schema": {"type": "string"}})
}
