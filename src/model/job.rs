//! The job message on `pyoco.work.<tag>`.

use serde::Serialize;
use serde_json::{Map, Value};

use super::run::RunSnapshot;
use super::{json, name};

/// The tag of a job that names none (`docs/contract.md#words`).
pub const DEFAULT_TAG: &str = "default";
const REQUEUED_AT: &str = "requeued_at_revision";
const LOST_ATTEMPTS: &str = "lost_attempts";

/// What a worker needs to execute a run (`docs/spec.md#job-message`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    pub run_id: String,
    pub flow_name: String,
    pub tag: String,
    pub tags: Vec<String>,
    pub tenant_id: Option<String>,
    pub api_key_id: Option<String>,
    pub params: Map<String, Value>,
    pub submitted_at: Option<f64>,
    /// The `flow.yaml` to execute; without it the worker resolves `flow_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_yaml: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_yaml_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_yaml_bytes: Option<u64>,
    /// Set in a job that was published anew: the revision of the snapshot on which that was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeued_at_revision: Option<u64>,
    /// Set in such a job: how many attempts the run had lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_attempts: Option<u64>,
}

/// Why a message is no job; the text goes into the DLQ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJob {
    #[error("job is not JSON: {0}")]
    NotJson(String),
    #[error("job is not a JSON object")]
    NotAnObject,
    #[error("job has no usable `{0}`")]
    Missing(&'static str),
    #[error("job has a `run_id` that cannot be a key")]
    BadRunId,
    #[error("job field `{0}` has the wrong type")]
    WrongType(&'static str),
}

impl Job {
    /// Reads a message; whatever is optional may be missing or null.
    pub fn parse(payload: &[u8]) -> Result<Job, InvalidJob> {
        let value: Value = json::from_wire(payload).map_err(|e| InvalidJob::NotJson(e.to_string()))?;
        let Value::Object(mut fields) = value else {
            return Err(InvalidJob::NotAnObject);
        };
        let run_id = required(&mut fields, "run_id")?;
        if !name::is_key(&run_id) {
            return Err(InvalidJob::BadRunId);
        }
        let flow_name = required(&mut fields, "flow_name")?;
        let tag = optional(&mut fields, "tag")?.unwrap_or_else(|| DEFAULT_TAG.to_owned());
        let tags = match fields.remove("tags") {
            None | Some(Value::Null) => vec![tag.clone()],
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(InvalidJob::WrongType("tags")),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(InvalidJob::WrongType("tags")),
        };
        let params = match fields.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(InvalidJob::WrongType("params")),
        };
        Ok(Job {
            run_id,
            flow_name,
            tag,
            tags,
            tenant_id: optional(&mut fields, "tenant_id")?,
            api_key_id: optional(&mut fields, "api_key_id")?,
            params,
            submitted_at: fields.get("submitted_at").and_then(Value::as_f64),
            workflow_yaml: optional(&mut fields, "workflow_yaml")?,
            workflow_yaml_sha256: optional(&mut fields, "workflow_yaml_sha256")?,
            workflow_yaml_bytes: fields.get("workflow_yaml_bytes").and_then(Value::as_u64),
            requeued_at_revision: fields.get(REQUEUED_AT).and_then(Value::as_u64),
            lost_attempts: fields.get(LOST_ATTEMPTS).and_then(Value::as_u64),
        })
    }

    /// The snapshot as the gateway has stored it before it queued the job.
    pub fn pending_snapshot(&self, now: f64) -> RunSnapshot {
        let mut snapshot =
            RunSnapshot::pending(self.run_id.clone(), self.flow_name.clone(), self.tag.clone(), now);
        snapshot.tags.clone_from(&self.tags);
        snapshot.params.clone_from(&self.params);
        snapshot.tenant_id.clone_from(&self.tenant_id);
        snapshot.api_key_id.clone_from(&self.api_key_id);
        snapshot.workflow_yaml_sha256.clone_from(&self.workflow_yaml_sha256);
        snapshot.workflow_yaml_bytes = self.workflow_yaml_bytes;
        snapshot.submitted_at = self.submitted_at;
        snapshot
    }
}

/// The same job, to be published anew as decided on `revision` of the snapshot, when the run had lost so many
/// attempts; unknown fields stay.
///
/// # Errors
/// When the payload is not a JSON object.
pub fn requeued(payload: &[u8], revision: u64, lost: u64) -> serde_json::Result<Vec<u8>> {
    let mut fields: Map<String, Value> = json::from_wire(payload)?;
    fields.insert(REQUEUED_AT.to_owned(), revision.into());
    if lost > 0 {
        fields.insert(LOST_ATTEMPTS.to_owned(), lost.into());
    }
    json::to_wire(&fields)
}

fn required(fields: &mut Map<String, Value>, key: &'static str) -> Result<String, InvalidJob> {
    match fields.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(InvalidJob::Missing(key)),
    }
}

fn optional(fields: &mut Map<String, Value>, key: &'static str) -> Result<Option<String>, InvalidJob> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
        Some(_) => Err(InvalidJob::WrongType(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_fields_are_required() {
        let job = Job::parse(br#"{"run_id":"r1","flow_name":"main"}"#).unwrap();
        assert_eq!((job.tag.as_str(), job.tags.len(), job.params.len()), ("default", 1, 0));
    }

    #[test]
    fn whatever_cannot_be_executed_is_refused() {
        for (text, why) in [
            ("", "JSON"),
            ("[1]", "object"),
            (r#"{"flow_name":"m"}"#, "run_id"),
            (r#"{"run_id":"r"}"#, "flow_name"),
            (r#"{"run_id":7,"flow_name":"m"}"#, "run_id"),
            (r#"{"run_id":"a b","flow_name":"m"}"#, "key"),
            (r#"{"run_id":"r","flow_name":"m","params":[]}"#, "params"),
            (r#"{"run_id":"r","flow_name":"m","tags":[1]}"#, "tags"),
        ] {
            let error = Job::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
