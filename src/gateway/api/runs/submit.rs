//! `POST /runs`: stores the snapshot and queues the job, or neither.

use std::time::Instant;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::bus::{self, Entry, Operation};
use crate::delivery::reconcile::QUEUED_WITHIN;
use crate::gateway::api::context::{Context, Parts};
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::{self, Problem};
use crate::gateway::chores::Doubtful;
use crate::http::error::BODY_TOO_LARGE;
use crate::http::{Reply, Request};
use crate::model::error::Code;
use crate::model::job::Job;
use crate::model::limits::{MAX_FLOW_NAME_BYTES, MAX_NAME_BYTES, MAX_RUN_TAGS, snapshot_room};
use crate::model::run::{RunSnapshot, RunStatus};
use crate::model::{clock, json as wire, name};

/// How often a run that others change at the same time is looked at again.
const MAX_CONFLICTS: usize = 32;
const STOOD_STILL: &str = "the gateway stood still while it queued the job; submit the run again";
const BEING_UNDONE: &str = "another request with this idempotency key is being undone";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Submission {
    pub flow_name: String,
    pub params: Map<String, Value>,
    pub tag: String,
    pub tags: Vec<String>,
    pub workflow: Option<Workflow>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workflow {
    pub text: String,
    pub sha256: String,
}

pub fn run(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let body = schema::json_body(cx.request.header("Content-Type"), cx.request.body())?;
    let fields = schema::object(body)?;
    let submission = read(fields, &parts.settings.default_tag).map_err(ApiError::Schema)?;
    submit(cx, submission)
}

/// Stores and queues; answers only when both are certain.
pub(super) fn submit(cx: &mut Context<'_>, submission: Submission) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    // While NATS is away nothing is begun that would have to be undone.
    if !parts.bus.state().connected {
        return Err(bus::Error::Disconnected.into());
    }
    // Others would execute the run, and write what became of it where nobody here looks.
    if let Some(reason) = parts.ownership.refusal() {
        return Err(ApiError::NatsUnavailable(reason));
    }
    let key = idempotency_key(cx.request)?;
    let run_id = match &key {
        Some(key) => run_id_of(cx.caller.tenant_id(), key),
        None => Uuid::new_v4().to_string(),
    };
    cx.object = Some(run_id.clone());
    let now = clock::now();
    let mut snapshot = snapshot(&submission, run_id.clone(), now);
    snapshot.tenant_id = cx.caller.tenant_id().map(str::to_owned);
    snapshot.api_key_id = cx.caller.key_id().map(str::to_owned);
    let internal = |e: serde_json::Error| ApiError::Internal(e.to_string());
    let document = wire::to_wire(&snapshot).map_err(internal)?;
    let job = wire::to_wire(&job(submission, &snapshot)).map_err(internal)?;
    let size = document.len().max(job.len());
    let limit = parts.bus.max_payload(size);
    if size > limit - snapshot_room(limit) {
        return Err(ApiError::Bound(&BODY_TOO_LARGE));
    }
    let deadline = Instant::now() + parts.bus.request_timeout().min(QUEUED_WITHIN);
    let began = clock::since_boot();
    let mut turns = 0..MAX_CONFLICTS;
    let revision = loop {
        let error = match parts.runs.create(&run_id, &document) {
            Ok(revision) => break revision,
            Err(bus::Error::Conflict(_)) => match repeated(parts, &snapshot, &job, deadline)? {
                Some(reply) => return Ok(reply),
                // Undone or changed in this moment: look again.
                None if turns.next().is_some() && Instant::now() < deadline => continue,
                None => return Err(ApiError::NatsUnavailable(BEING_UNDONE.into())),
            },
            Err(e) => e,
        };
        if error.is_outcome_unknown() {
            parts.undo.later(Doubtful { run_id, submitted_at: now });
        }
        return Err(error.into());
    };
    match parts.queue.submit(&snapshot.tag, &run_id, &job, deadline) {
        Ok(_) if clock::elapsed(began) < QUEUED_WITHIN => {}
        Ok(_) => {
            parts.undo.now_or_later(Doubtful { run_id, submitted_at: now });
            return Err(ApiError::NatsUnavailable(STOOD_STILL.into()));
        }
        Err(e) => {
            let doubtful = Doubtful { run_id, submitted_at: now };
            // A server that has refused answers the undo as quickly; one that is silent has used up
            // the time of this request already.
            match e.is_outcome_unknown() {
                true => parts.undo.later(doubtful),
                false => parts.undo.now_or_later(doubtful),
            }
            return Err(e.into());
        }
    }
    parts.metrics.runs.submitted(&snapshot.tag);
    parts.index.wrote(Entry::put(&run_id, document, revision));
    log::info!(run_id = run_id.as_str(), flow_name = snapshot.flow_name.as_str(),
        tag = snapshot.tag.as_str(), request_id = cx.request.request_id(); "run submitted");
    Ok(accepted(&run_id, RunStatus::Pending))
}

/// The same request gives the same run. `None` when that has gone or changed: look at everything again.
fn repeated(
    parts: &Parts,
    wanted: &RunSnapshot,
    job: &[u8],
    deadline: Instant,
) -> Result<Option<Reply>, ApiError> {
    let entry = parts.runs.newest(&wanted.run_id)?;
    let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
        return Ok(None);
    };
    let mut there: RunSnapshot =
        wire::from_wire(&entry.value).map_err(|e| ApiError::Internal(e.to_string()))?;
    let same = (&there.tag, &there.params, &there.workflow_yaml_sha256)
        == (&wanted.tag, &wanted.params, &wanted.workflow_yaml_sha256);
    // A worker may have written the flow's canonical name over the one that was asked for.
    let renamed = there.status == RunStatus::Pending && there.flow_name != wanted.flow_name;
    if !same || renamed {
        return Err(ApiError::Unacceptable {
            detail: "idempotency key reused with another request",
            code: Code::BadInput,
            reason: format!("it belongs to run {}", there.run_id),
        });
    }
    if there.status == RunStatus::Pending {
        // The first request may have died between its two steps; the message id makes a second
        // publish harmless.
        parts.queue.submit(&there.tag, &there.run_id, job, deadline)?;
        // It may also have been answered 503, and be about to be undone. The undo leaves a snapshot
        // alone that another submit has signed; only then is the run certain to stay.
        there.submitted_at = wanted.submitted_at;
        let document = wire::to_wire(&there).map_err(|e| ApiError::Internal(e.to_string()))?;
        match parts.runs.update(&there.run_id, &document, entry.revision) {
            Ok(revision) => parts.index.wrote(Entry::put(&there.run_id, document, revision)),
            Err(bus::Error::Conflict(_)) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(accepted(&there.run_id, there.status)))
}

fn accepted(run_id: &str, status: RunStatus) -> Reply {
    let body = json!({"run_id": run_id, "status": status});
    Reply::json(200, body.to_string().into_bytes())
}

fn snapshot(submission: &Submission, run_id: String, now: f64) -> RunSnapshot {
    let Submission { flow_name, params, tag, tags, workflow } = submission.clone();
    let mut snapshot = RunSnapshot::pending(run_id, flow_name, tag, now);
    snapshot.tags = tags;
    snapshot.params = params;
    snapshot.workflow_yaml_bytes = workflow.as_ref().map(|w| w.text.len() as u64);
    snapshot.workflow_yaml_sha256 = workflow.map(|w| w.sha256);
    snapshot
}

fn job(submission: Submission, snapshot: &RunSnapshot) -> Job {
    Job {
        run_id: snapshot.run_id.clone(),
        flow_name: submission.flow_name,
        tag: submission.tag,
        tags: submission.tags,
        tenant_id: snapshot.tenant_id.clone(),
        api_key_id: snapshot.api_key_id.clone(),
        params: submission.params,
        submitted_at: snapshot.submitted_at,
        workflow_yaml_sha256: snapshot.workflow_yaml_sha256.clone(),
        workflow_yaml_bytes: snapshot.workflow_yaml_bytes,
        workflow_yaml: submission.workflow.map(|w| w.text),
        requeued_at_revision: None,
        lost_attempts: None,
    }
}

fn idempotency_key(request: &Request) -> Result<Option<String>, ApiError> {
    let Some(key) = request.header("Idempotency-Key").map(str::trim).filter(|k| !k.is_empty()) else {
        return Ok(None);
    };
    if key.len() > MAX_NAME_BYTES {
        return Err(ApiError::Unacceptable {
            detail: "invalid idempotency key",
            code: Code::BadInput,
            reason: format!("it is longer than {MAX_NAME_BYTES} bytes"),
        });
    }
    Ok(Some(key.to_owned()))
}

/// A run id that is the same for the same tenant and key, and a UUIDv4 by its form.
fn run_id_of(tenant: Option<&str>, key: &str) -> String {
    // No tenant has a zero byte in its name, so no two of them share a run.
    let tenant = tenant.unwrap_or_default().as_bytes();
    let hash = Sha256::digest([b"pyoco run\0", tenant, b"\0", key.as_bytes()].concat());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Reads the fields in the order in which FastAPI names their problems.
fn read(mut fields: Map<String, Value>, default_tag: &str) -> Result<Submission, Vec<Problem>> {
    let mut problems = Vec::new();
    let whole = Value::Object(fields.clone());
    let flow_name = match fields.shift_remove("flow_name") {
        None => {
            problems.push(Problem::missing(loc("flow_name"), whole));
            String::new()
        }
        Some(value) => flow_name(value, &mut problems),
    };
    let params = match fields.shift_remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(other) => {
            let msg = "Input should be a valid dictionary";
            problems.push(Problem::new("dict_type", loc("params"), msg, other));
            Map::new()
        }
    };
    let tag = match fields.shift_remove("tag") {
        None | Some(Value::Null) => default_tag.to_owned(),
        Some(Value::String(tag)) if name::is_tag(&tag) => tag,
        Some(Value::String(tag)) => {
            problems.push(bad_tag(tag));
            String::new()
        }
        Some(other) => {
            problems.push(not_a_string(loc("tag"), other));
            String::new()
        }
    };
    let tags = tags(fields.shift_remove("tags"), &tag, &mut problems);
    if problems.is_empty() {
        Ok(Submission { flow_name, params, tag, tags, workflow: None })
    } else {
        Err(problems)
    }
}

fn flow_name(value: Value, problems: &mut Vec<Problem>) -> String {
    let Value::String(text) = value else {
        problems.push(not_a_string(loc("flow_name"), value));
        return String::new();
    };
    if text.is_empty() {
        let msg = "String should have at least 1 character";
        let problem = Problem::new("string_too_short", loc("flow_name"), msg, "".into());
        problems.push(problem.with_ctx(json!({"min_length": 1})));
    } else if text.len() > MAX_FLOW_NAME_BYTES {
        let msg = format!("String should have at most {MAX_FLOW_NAME_BYTES} characters");
        let problem = Problem::new("string_too_long", loc("flow_name"), msg, text.clone().into());
        problems.push(problem.with_ctx(json!({"max_length": MAX_FLOW_NAME_BYTES})));
    }
    text
}

fn tags(value: Option<Value>, tag: &str, problems: &mut Vec<Problem>) -> Vec<String> {
    let items = match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            let msg = "Input should be a valid list";
            problems.push(Problem::new("list_type", loc("tags"), msg, other));
            return Vec::new();
        }
    };
    if items.len() > MAX_RUN_TAGS {
        let actual = items.len();
        let msg = format!("List should have at most {MAX_RUN_TAGS} items after validation, not {actual}");
        let problem = Problem::new("too_long", loc("tags"), msg, Value::Null);
        let ctx = json!({"field_type": "List", "max_length": MAX_RUN_TAGS, "actual_length": actual});
        problems.push(problem.with_ctx(ctx));
        return Vec::new();
    }
    let mut tags = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Value::String(text) => tags.push(text),
            other => problems.push(not_a_string(vec!["body".into(), "tags".into(), index.into()], other)),
        }
    }
    if tags.is_empty() { vec![tag.to_owned()] } else { tags }
}

fn bad_tag(tag: String) -> Problem {
    let msg = format!("String should match pattern '{}'", name::TAG_PATTERN);
    Problem::new("string_pattern_mismatch", loc("tag"), msg, tag.into())
        .with_ctx(json!({"pattern": name::TAG_PATTERN}))
}

fn not_a_string(loc: Vec<Value>, input: Value) -> Problem {
    Problem::new("string_type", loc, "Input should be a valid string", input)
}

fn loc(field: &str) -> Vec<Value> {
    vec!["body".into(), field.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_is_the_same_run_and_looks_like_a_uuid_v4() {
        let id = run_id_of(None, "k");
        assert_eq!(id, run_id_of(None, "k"));
        assert_ne!(id, run_id_of(None, "l"));
        assert_ne!(id, run_id_of(Some("t"), "k"));
        assert_ne!(run_id_of(Some("t"), "k"), run_id_of(Some("u"), "k"));
        assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 4);
    }

    #[test]
    fn every_problem_is_named_in_order() {
        let Value::Object(fields) = json!({"flow_name": 5, "params": [], "tag": 7, "tags": "x"}) else {
            panic!()
        };
        let kinds: Vec<_> = read(fields, "default").unwrap_err().iter().map(|p| p.kind).collect();
        assert_eq!(kinds, ["string_type", "dict_type", "string_type", "list_type"]);
        let Value::Object(fields) = json!({"flow_name": "m"}) else { panic!() };
        let read = read(fields, "default").unwrap();
        assert_eq!((read.tag.as_str(), read.tags.as_slice()), ("default", &["default".into()][..]));
    }
}
