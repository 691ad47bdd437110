//! `POST /runs/yaml`: a run that brings its `flow.yaml` along.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::submit::{self, Submission};
use crate::gateway::api::context::Context;
use crate::gateway::api::error::{ApiError, WORKFLOW_TOO_LARGE};
use crate::gateway::api::schema::Problem;
use crate::http::Reply;
use crate::http::form::{self, Part};
use crate::model::error::Code;
use crate::model::limits::{MAX_FLOW_NAME_BYTES, MAX_MULTIPART_PARTS};
use crate::model::run::too_many_tasks;
use crate::model::{name, workflow};

/// A run by document. `params` are the document's `flow.defaults`.
pub fn run(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let settings = &cx.parts.settings;
    let content_type = cx.request.header("Content-Type").unwrap_or_default();
    let body = cx.request.body();
    let fields = if form::is_form(Some(content_type)) {
        form::parse(content_type, body)?
    } else if form::is_older_form(content_type) {
        // It cannot carry a file, but what it does carry need not be asked for again.
        let fields = form_urlencoded::parse(body).into_owned().take(MAX_MULTIPART_PARTS);
        let field =
            |(name, value): (String, String)| Part { name, filename: None, content: value.into_bytes() };
        fields.map(field).collect()
    } else {
        Vec::new()
    };
    let (submission, tasks) = read(&fields, settings.max_workflow_bytes, &settings.default_tag)?;
    let limit = cx.parts.bus.max_payload(tasks.snapshot_bytes) / 2;
    if tasks.snapshot_bytes > limit {
        let reason = format!("{}; they would take half of it", too_many_tasks(tasks.count));
        return Err(unacceptable("invalid workflow yaml", reason));
    }
    submit::submit(cx, submission)
}

/// The tasks that a document names: how many, and what their names and statuses take in a snapshot.
struct Tasks {
    count: usize,
    snapshot_bytes: usize,
}

impl Tasks {
    fn of(workflow: &workflow::Workflow) -> Tasks {
        // `"name":"CANCELLED",`
        const FRAME_BYTES: usize = 16;
        let bytes = workflow.tasks.iter().map(|task| task.name.len() + FRAME_BYTES).sum();
        Tasks { count: workflow.tasks.len(), snapshot_bytes: bytes }
    }
}

fn read(fields: &[Part], limit: u64, default_tag: &str) -> Result<(Submission, Tasks), ApiError> {
    // Of a repeated field the last counts.
    let find = |name: &str| fields.iter().rev().find(|part| part.name == name);
    let field = |name: &str| find(name).map(|part| String::from_utf8_lossy(&part.content));
    let flow_name = field("flow_name").filter(|text| !text.is_empty());
    let workflow = find("workflow");
    let mut problems = Vec::new();
    match workflow {
        None => problems.push(Problem::missing(loc("workflow"), Value::Null)),
        Some(part) if part.filename.is_none() => {
            let input = String::from_utf8_lossy(&part.content).into_owned();
            let msg = "Value error, Expected UploadFile, received: <class 'str'>";
            let problem = Problem::new("value_error", loc("workflow"), msg, input.into());
            problems.push(problem.with_ctx(json!({"error": {}})));
        }
        Some(_) => {}
    }
    if flow_name.is_none() {
        problems.push(Problem::missing(loc("flow_name"), Value::Null));
    }
    let (Some(workflow), Some(flow_name), true) = (workflow, flow_name, problems.is_empty()) else {
        return Err(ApiError::Schema(problems));
    };
    let flow_name = flow_name.trim();
    if flow_name.is_empty() || flow_name.len() > MAX_FLOW_NAME_BYTES {
        let reason = format!("it must have 1 to {MAX_FLOW_NAME_BYTES} characters");
        return Err(unacceptable("missing flow_name", reason));
    }
    let tag = match field("tag") {
        Some(tag) if !tag.trim().is_empty() => tag.trim().to_owned(),
        _ => default_tag.to_owned(),
    };
    if !name::is_tag(&tag) {
        return Err(unacceptable("invalid tag", format!("it must match {}", name::TAG_PATTERN)));
    }
    if workflow.content.len() as u64 > limit {
        return Err(too_large());
    }
    let parsed =
        workflow::Workflow::parse(&workflow.content).map_err(|refusal| ApiError::InvalidWorkflow {
            reason: refusal.reason().to_owned(),
            place: refusal.detail().map(str::to_owned),
        })?;
    let text = std::str::from_utf8(&workflow.content)
        .map_err(|_| unacceptable("invalid workflow yaml", "invalid_utf8".to_owned()))?;
    let tasks = Tasks::of(&parsed);
    let submission = Submission {
        flow_name: flow_name.to_owned(),
        params: parsed.defaults,
        tags: vec![tag.clone()],
        tag,
        workflow: Some(submit::Workflow { text: text.to_owned(), sha256: hex_sha256(text) }),
    };
    Ok((submission, tasks))
}

fn hex_sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn too_large() -> ApiError {
    ApiError::Bound(&WORKFLOW_TOO_LARGE)
}

fn unacceptable(detail: &'static str, reason: String) -> ApiError {
    ApiError::Unacceptable { detail, code: Code::BadInput, reason }
}

fn loc(field: &str) -> Vec<Value> {
    vec!["body".into(), field.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, filename: Option<&str>, content: &[u8]) -> Part {
        Part { name: name.into(), filename: filename.map(str::to_owned), content: content.to_vec() }
    }

    fn status_and_text(parts: &[Part]) -> (u16, String) {
        let Err(error) = read(parts, 100, "default") else { panic!("accepted") };
        let text = match &error {
            ApiError::Schema(p) => p.iter().map(|p| p.kind).collect::<Vec<_>>().join(","),
            ApiError::Unacceptable { detail, reason, .. } => format!("{detail}: {reason}"),
            ApiError::InvalidWorkflow { reason, .. } => format!("{error}: {reason}"),
            other => other.to_string(),
        };
        (error.status(), text)
    }

    #[test]
    fn a_good_form_becomes_a_run_with_the_documents_defaults() {
        let yaml = b"flow: {graph: a, defaults: {k: yes}}";
        let parts = [
            part("workflow", Some("f.yaml"), yaml),
            part("flow_name", None, b" main "),
            part("tag", None, b"gpu"),
        ];
        let (read, tasks) = read(&parts, 100, "default").unwrap();
        assert_eq!(tasks.count, 0);
        assert_eq!((read.flow_name.as_str(), read.tag.as_str()), ("main", "gpu"));
        assert_eq!(read.params["k"], true);
        assert_eq!(read.workflow.unwrap().sha256.len(), 64);
    }

    #[test]
    fn every_refusal_has_the_contracts_words() {
        let yaml = part("workflow", Some("f"), b"flow: {graph: a}");
        let name = part("flow_name", None, b"main");
        for (parts, status, text) in [
            (vec![], 422, "missing,missing"),
            (vec![part("workflow", None, b"x"), part("flow_name", None, b"m")], 422, "value_error"),
        ] {
            assert_eq!(status_and_text(&parts), (status, text.to_owned()));
        }
        let (status, text) = status_and_text(&[yaml, part("flow_name", None, b"  ")]);
        assert!(status == 422 && text.starts_with("missing flow_name"), "{text}");
        let (_, text) = status_and_text(&[
            part("workflow", Some("f"), b"flow: {graph: a}"),
            part("flow_name", None, b"m"),
            part("tag", None, b"a.b"),
        ]);
        assert!(text.starts_with("invalid tag"), "{text}");
        let big = vec![b'#'; 101];
        let parts = [part("workflow", Some("f"), &big), part("flow_name", None, b"m")];
        assert_eq!(status_and_text(&parts), (413, "workflow too large".to_owned()));
        let parts = [part("workflow", Some("f"), b"flows: {}"), name];
        assert_eq!(status_and_text(&parts), (422, "invalid workflow yaml: unsupported_key_flows".to_owned()));
    }
}
