//! Operations and shapes of runs: submit, show, list, cancel.

use serde_json::{Value, json};

use super::operation::{Operation, json_of, operation};
use super::shape::{
    bounded, count, described, flag, list_of, map_of, object, or_null, reference, text, time, usual_word,
    word,
};
use crate::model::limits::{LIST_LIMIT, MAX_FLOW_NAME_BYTES, MAX_NAME_BYTES, MAX_RUN_TAGS};
use crate::model::name::TAG_PATTERN;
use crate::model::run::RunStatus;

const TAG: &str = "runs";
const RUN_ID: &str = "884949f7-f0e5-4c92-9390-9fa9343fdb25";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        list(),
        operation("POST", "/runs", "submitRun", TAG)
            .says("Submit a run by the name of its flow", "200 only when snapshot and job are both stored.")
            .header("IdempotencyKey")
            .takes(true, json_of("RunSubmit", submit_example()))
            .answers(200, "Stored and queued.", json_of("RunAccepted", accepted_example()))
            .fails(&[422]),
        operation("POST", "/runs/yaml", "submitRunYaml", TAG)
            .says("Submit a run that brings its flow.yaml along", "Its `params` are the document's `flow.defaults`.")
            .header("IdempotencyKey")
            .takes(true, json!({"multipart/form-data": {
                "schema": reference("RunSubmitYaml"),
                "encoding": {"workflow": {"contentType": "application/yaml, text/yaml, application/octet-stream"}},
                "example": submit_yaml_example(),
            }}))
            .answers(200, "Stored and queued.", json_of("RunAccepted", accepted_example()))
            .fails(&[422]),
        operation("GET", "/runs/{run_id}", "getRun", TAG)
            .says("A run's snapshot", "With what is known of its worker.")
            .segment("run_id", "The run")
            .query("include", include_records())
            .answers(200, "The newest one.", json_of("RunDetails", run_example()))
            .fails(&[404]),
        operation("GET", "/runs/{run_id}/tasks", "getRunTasks", TAG)
            .says("A run's tasks and records alone", "")
            .segment("run_id", "The run")
            .answers(200, "The newest ones.", json!({"application/json": {"schema": reference("RunTasks")}}))
            .fails(&[404]),
        operation("POST", "/runs/{run_id}/cancel", "cancelRun", TAG)
            .says("Ask a run to end", "A run that has ended or is `CANCELLING` already is returned unchanged.")
            .segment("run_id", "The run")
            .takes(false, json_of("RunCancel", json!({"reason": "wrong input"})))
            .answers(200, "Its snapshot, now `CANCELLING`.", json!({"application/json": {"schema": reference("Run")}}))
            .fails(&[404, 422]),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("RunSubmit", submit()),
        ("RunSubmitYaml", submit_yaml()),
        ("RunAccepted", accepted()),
        ("RunCancel", cancel()),
        ("RunStatus", status()),
        ("TaskStatus", word("Status of a task.", &TASK_STATUSES)),
        ("Run", run()),
        ("RunDetails", details()),
        ("RunTasks", tasks()),
        ("TaskStates", map_of("Task name → status; always complete.", reference("TaskStatus"))),
        ("TaskRecords", map_of("Task name → record.", reference("TaskRecord"))),
        ("TaskRecord", record()),
        ("RunSummary", summary()),
        ("RunPage", page()),
    ]
}

const TASK_STATUSES: [&str; 5] = ["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"];

/// `include` of a route that shows records on demand.
pub(super) fn include_records() -> Value {
    include("With `task_records`", &["records", "full", "all"])
}

fn include(about: &str, words: &[&str]) -> Value {
    let mut each = usual_word("", words);
    each.as_object_mut().map(|fields| fields.shift_remove("description"));
    list_of(about, each)
}

fn list() -> Operation {
    let items = |name: &str| json!({"type": "array", "items": reference(name)});
    // A snapshot would pass for a summary: what is more comes first, for clients that try in order.
    let answer = json!({"anyOf": [items("Run"), items("RunSummary"), reference("RunPage")]});
    let any_status = json!({"anyOf": [reference("RunStatus"), {"type": "string"}]});
    let mut cursor = text("`next_cursor` of the page before; empty for the first page");
    cursor["maxLength"] = 1024.into();
    operation("GET", "/runs", "listRuns", TAG)
        .says(
            "The newest runs",
            "A plain list; with `updated_after`, `cursor` or `workflow_yaml_sha256` a page with a cursor.",
        )
        .query("status", described("Only runs of this status; an unknown word matches nothing", any_status))
        .query("flow", text("Only runs of this flow"))
        .query("tag", text("Only runs of this tag"))
        .query("limit", bounded("At most so many", LIST_LIMIT))
        .query("include", include("Whole snapshots in place of summaries", &["full", "all"]))
        .query("updated_after", time("Only runs that were written after this time"))
        .query("workflow_yaml_sha256", text("Only runs of this document"))
        .query("cursor", cursor)
        .answers(
            200,
            "Newest `updated_at` first, then `run_id` descending.",
            json!({"application/json": {"schema": answer}}),
        )
        .fails(&[422])
}

fn statuses() -> Vec<&'static str> {
    RunStatus::ALL.into_iter().map(RunStatus::as_str).collect()
}

fn status() -> Value {
    word("Status of a run; nothing changes after COMPLETED, FAILED and CANCELLED.", &statuses())
}

fn submit() -> Value {
    let mut flow_name = text("Name of the flow; the upper bound counts bytes");
    flow_name["minLength"] = 1.into();
    flow_name["maxLength"] = MAX_FLOW_NAME_BYTES.into();
    let mut params = map_of("Parameters of the run", json!(true));
    params["default"] = json!({});
    let mut tags = list_of("Free labels; `[tag]` when empty", json!({"type": "string"}));
    tags["maxItems"] = MAX_RUN_TAGS.into();
    tags["default"] = json!([]);
    object(
        "A run by the name of its flow.",
        &["flow_name"],
        json!({"flow_name": flow_name, "params": params, "tag": or_null(tag()), "tags": tags}),
    )
}

fn tag() -> Value {
    let mut tag = text("Routing key; the gateway's default when missing");
    tag["pattern"] = TAG_PATTERN.into();
    tag["maxLength"] = MAX_NAME_BYTES.into();
    tag
}

fn submit_yaml() -> Value {
    let mut flow_name = text("A name for the flow");
    flow_name["minLength"] = 1.into();
    flow_name["maxLength"] = MAX_FLOW_NAME_BYTES.into();
    let workflow = json!({"type": "string", "format": "binary", "description": "The flow.yaml, as a file"});
    object(
        "A run by document.",
        &["workflow", "flow_name"],
        json!({"workflow": workflow, "flow_name": flow_name, "tag": tag()}),
    )
}

fn accepted() -> Value {
    object(
        "A run that will be executed.",
        &["run_id", "status"],
        json!({
            "run_id": text("Names it from now on"),
            "status": reference("RunStatus"),
        }),
    )
}

fn cancel() -> Value {
    object("Why.", &[], json!({"reason": or_null(text("Cut at 1024 bytes"))}))
}

fn common() -> Value {
    json!({
        "run_id": text("UUIDv4"),
        "flow_name": text("Name of the flow"),
        "tag": text("Routing key"),
        "tags": list_of("Free labels", json!({"type": "string"})),
        "tenant_id": or_null(text("Owner, when keys are in use")),
        "api_key_id": or_null(text("The key that submitted it")),
        "status": reference("RunStatus"),
        "updated_at": or_null(time("Last write")),
        "heartbeat_at": or_null(time("Last sign of life of whoever owns the run")),
        "worker_id": or_null(text("Who executes or executed it")),
        "error": or_null(text("Why it failed")),
        "start_time": or_null(time("When a worker began")),
        "end_time": or_null(time("When it ended")),
        "cancel_requested_at": or_null(time("First cancel request")),
        "submitted_at": or_null(time("When the gateway took it")),
        "attempt": or_null(count("Which delivery of the job this is, from 1")),
    })
}

fn summary() -> Value {
    object(
        "A run in lists.",
        &[
            "run_id",
            "flow_name",
            "tag",
            "tags",
            "tenant_id",
            "api_key_id",
            "status",
            "updated_at",
            "heartbeat_at",
            "worker_id",
            "error",
            "start_time",
            "end_time",
            "cancel_requested_at",
        ],
        common(),
    )
}

fn run() -> Value {
    let own = json!({
        "params": map_of("Parameters of the run", json!(true)),
        "tasks": reference("TaskStates"),
        "task_records": reference("TaskRecords"),
        "task_records_truncated": flag("Records were left out for their size"),
        "task_logs_truncated": flag("What tasks have printed was left out for its size"),
        "params_truncated": flag("Parameters were left out for their size"),
        "workflow_yaml_sha256": or_null(text("Hash of the submitted flow.yaml, lower-case hex")),
        "workflow_yaml_bytes": or_null(count("Its size")),
        "cancel_requested_by": or_null(text("`api_key:<key_id>`")),
        "cancel_reason": or_null(text("What they said")),
        "wheel_generation": or_null(text("The set of wheels that its last attempt has had")),
        "wheels": list_of("The wheels of that set, 50 at most", json!({
            "type": "object",
            "required": ["wheel_name", "package_name", "package_version", "sha256"],
            "properties": {
                "wheel_name": text("Its file name"),
                "package_name": text("Normalised"),
                "package_version": text("Its version"),
                "sha256": text("Of its bytes, in hex"),
            },
        })),
    });
    object(
        "A run's snapshot. Workers of other versions may add fields.",
        &["run_id", "flow_name", "tag", "tags", "status", "params", "tasks", "updated_at"],
        together(common(), own),
    )
}

fn details() -> Value {
    let mut schema = run();
    let worker = json!({
        "worker_alive": flag("Its worker is `RUNNING` or `IDLE`"),
        "worker_state": or_null(reference("WorkerState")),
        "worker_heartbeat_at": or_null(time("When its worker was heard of last")),
        "worker_hidden": or_null(flag("Its worker is left out of lists")),
        "worker_tags": or_null(list_of("The tags that its worker serves", json!({"type": "string"}))),
    });
    schema["description"] = "A run's snapshot, and what is known of its worker.".into();
    schema["properties"] = together(schema["properties"].take(), worker);
    schema
}

fn together(mut one: Value, other: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (one.as_object_mut(), other) {
        fields.extend(more);
    }
    one
}

fn tasks() -> Value {
    object(
        "A run's tasks.",
        &["run_id", "flow_name", "status", "tasks", "task_records", "task_records_truncated"],
        json!({
            "run_id": text("The run"),
            "flow_name": text("Name of the flow"),
            "status": reference("RunStatus"),
            "tasks": reference("TaskStates"),
            "task_records": reference("TaskRecords"),
            "task_records_truncated": flag("Records were left out for their size"),
            "task_logs_truncated": flag("What tasks have printed was left out for its size"),
        }),
    )
}

fn record() -> Value {
    let logs = object(
        "The end of what it has printed; only of tasks that run in a process.",
        &["stdout", "stderr", "dropped_bytes"],
        json!({
            "stdout": text("Standard output"),
            "stderr": text("Standard error"),
            "dropped_bytes": count("What came before"),
        }),
    );
    object(
        "What is known of one task.",
        &["state"],
        json!({
            "state": reference("TaskStatus"),
            "started_at": or_null(time("When it began")),
            "ended_at": or_null(time("When it ended")),
            "duration_ms": {"type": ["number", "null"], "description": "Milliseconds between the two"},
            "error": or_null(text("The exception's text")),
            "traceback": or_null(text("Where it was raised")),
            "inputs": {"description": "Its inputs after expressions were resolved"},
            "output": {"description": "What it returned"},
            "artifacts": {"description": "What it declared to have produced"},
            "logs": logs,
        }),
    )
}

fn page() -> Value {
    let items = json!({"type": "array", "items": {"anyOf": [reference("Run"), reference("RunSummary")]}});
    object(
        "A page of runs.",
        &["items", "next_cursor"],
        json!({"items": items, "next_cursor": or_null(text("For the next page; null on the last one"))}),
    )
}

fn submit_example() -> Value {
    json!({"flow_name": "main", "params": {"x": 1}, "tag": "default", "tags": ["team-a"]})
}

fn submit_yaml_example() -> Value {
    let workflow = "version: 1\nflow:\n  graph: hello\ntasks:\n  hello:\n    use: builtin/echo\n";
    json!({"workflow": workflow, "flow_name": "hello", "tag": "default"})
}

fn accepted_example() -> Value {
    json!({"run_id": RUN_ID, "status": "PENDING"})
}

fn run_example() -> Value {
    json!({
        "run_id": RUN_ID, "flow_name": "main", "tag": "default", "tags": ["team-a"],
        "tenant_id": null, "api_key_id": null, "status": "RUNNING", "params": {"x": 1},
        "tasks": {"greet": "SUCCEEDED", "report": "RUNNING"}, "start_time": 1_795_187_473.4,
        "end_time": null, "heartbeat_at": 1_795_187_473.52, "updated_at": 1_795_187_473.52,
        "error": null, "worker_id": "cpu-1", "attempt": 1, "submitted_at": 1_795_187_473.1,
        "worker_alive": true, "worker_state": "RUNNING",
        "worker_heartbeat_at": 1_795_187_472.9, "worker_hidden": false, "worker_tags": ["default"],
    })
}
