//! Operations and shapes of workers.

use serde_json::{Value, json};

use super::operation::{Operation, json_of, operation};
use super::shape::{bounded, count, described, flag, list_of, object, or_null, reference, text, time, word};
use crate::model::limits::WORKERS_LIMIT;
use crate::model::wheel::SyncResult;
use crate::model::worker::WorkerState;

const TAG: &str = "workers";

pub(super) fn operations() -> Vec<Operation> {
    let mut include_hidden = flag("Hidden workers, too");
    include_hidden["default"] = false.into();
    let mut scope = word("Workers that are `RUNNING`, `IDLE` or `UNAVAILABLE`, or all", &["active", "all"]);
    scope["default"] = "active".into();
    let in_state = described("Only workers in this state", reference("WorkerState"));
    let records = list_of("The one that was heard of last comes first.", reference("Worker"));
    vec![
        operation("GET", "/workers", "listWorkers", TAG)
            .says("Who executes runs", "`state` is the derived one.")
            .query("scope", scope)
            .query("state", in_state)
            .query("include_hidden", include_hidden)
            .query("limit", bounded("At most so many", WORKERS_LIMIT))
            .answers(200, "Records.", json!({"application/json": {"schema": records}}))
            .fails(&[422]),
        operation("PATCH", "/workers/{worker_id}", "updateWorker", TAG)
            .says("Take a worker out of lists, or put it back", "It goes on working all the same.")
            .segment("worker_id", "The worker")
            .takes(true, json_of("WorkerPatch", json!({"hidden": true})))
            .answers(200, "As it is now.", json_of("WorkerPatched", patched_example()))
            .fails(&[404, 422]),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let hidden = || flag("Left out of lists; it belongs to the operator");
    vec![
        ("Worker", worker()),
        (
            "WorkerState",
            word(
                "State of a worker. `DISCONNECTED`: it was silent for too long. `UNAVAILABLE`: it takes no jobs.",
                &states(),
            ),
        ),
        ("WorkerPython", python()),
        ("WheelSync", wheel_sync()),
        ("WorkerPatch", object("What an operator can change.", &["hidden"], json!({"hidden": hidden()}))),
        (
            "WorkerPatched",
            object(
                "What was changed.",
                &["worker_id", "hidden", "updated_at"],
                json!({
                    "worker_id": text("The worker"),
                    "hidden": hidden(),
                    "updated_at": time("Now"),
                }),
            ),
        ),
    ]
}

fn states() -> Vec<&'static str> {
    WorkerState::ALL.into_iter().map(WorkerState::as_str).collect()
}

fn worker() -> Value {
    object(
        "A worker's record. Workers of other versions may leave out what is not required, and add more.",
        &["worker_id", "instance_id", "state", "hidden", "tags", "last_seen_at", "current_run_ids"],
        json!({
            "worker_id": text("Unique among workers that live"),
            "instance_id": text("Unique per start"),
            "state": reference("WorkerState"),
            "hidden": flag("Left out of lists; it belongs to the operator"),
            "tags": list_of("The tags that it serves", json!({"type": "string"})),
            "last_seen_at": or_null(time("Its last sign of life")),
            "last_heartbeat_at": or_null(time("The same under an older name")),
            "heartbeat_at": or_null(time("The same under the oldest name")),
            "current_run_id": or_null(text("One of the runs that it executes")),
            "current_run_ids": list_of("All of them", json!({"type": "string"})),
            "last_run_id": or_null(text("The run that ended last")),
            "last_run_status": or_null(reference("RunStatus")),
            "last_run_started_at": or_null(time("When that run began")),
            "last_run_finished_at": or_null(time("When it ended")),
            "stopped_at": or_null(time("When the worker stopped")),
            "stop_reason": or_null(text("`graceful_shutdown`")),
            "updated_at": or_null(time("Last write")),
            "unavailable_reason": text("Why it takes no jobs; only while that is so"),
            "unavailable_since": time("Since when"),
            "wheel_sync": or_null(reference("WheelSync")),
            "concurrency": count("How many runs it executes at once"),
            "version": text("Version of the program"),
            "hostname": text("Where it runs"),
            "pid": count("Its process there"),
            "python": reference("WorkerPython"),
        }),
    )
}

fn python() -> Value {
    let states = ["not_started", "ready", "died", "failed"];
    object(
        "How its Python does.",
        &["state"],
        json!({
            "state": word("`ready` once a flow has needed it", &states),
            "python": or_null(text("Version of the interpreter")),
            "pyoco": or_null(text("Version of Pyoco")),
            "pid": or_null(count("The process that runs are forked from")),
            "starts": count("How often it was started"),
            "last_error": or_null(text("Why it could not be started")),
        }),
    )
}

fn wheel_sync() -> Value {
    let wheels = |about: &str, fields: &[&str]| {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        list_of(about, json!({"type": "object", "properties": fields}))
    };
    let names = |about: &str| list_of(about, json!({"type": "string"}));
    object(
        "What was done last; lists hold at most 50.",
        &["enabled", "last_result"],
        json!({
            "enabled": flag("Wheels are fetched"),
            "last_result": word("How it went", &SyncResult::ALL.map(SyncResult::as_str)),
            "generation": or_null(text("The id of the wheels that new runs get")),
            "last_attempt_at": or_null(time("When it was tried")),
            "last_success_at": or_null(time("When it went well")),
            "last_synced_at": or_null(time("When new runs got other wheels")),
            "last_error": or_null(text("Why it did not go well")),
            "selected_count": count("Wheels that are meant for it and fit"),
            "updated_count": count("Brought by the last attempt"),
            "removed_count": count("Taken away by it"),
            "skipped_incompatible_count": count("Meant for it and of no use"),
            "selected_wheels": names("Wheels that are meant for it and fit"),
            "updated_wheels": names("Brought by the last attempt"),
            "removed_wheels": names("Taken away by it"),
            "skipped_incompatible": wheels(
                "Meant for it and of no use, with the reason",
                &["wheel_name", "package_name", "package_version", "reason"],
            ),
            "installed_wheels": wheels(
                "What new runs get",
                &["wheel_name", "package_name", "package_version", "installed_at", "nuid"],
            ),
        }),
    )
}

fn patched_example() -> Value {
    json!({"worker_id": "cpu-1", "hidden": true, "updated_at": 1_795_187_473.52})
}
