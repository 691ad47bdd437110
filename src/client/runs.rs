//! Requests about runs.

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::multipart;
use super::transport::Call;
use super::{Client, Error, segment};

/// A run to be submitted by the name of its flow.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// Name of the flow, which a worker that serves the tag has to know.
    pub flow_name: String,
    /// Parameters, put over the flow's defaults; tasks see them as `$ctx.params`.
    pub params: Map<String, Value>,
    /// Routing key; the server's default when `None`.
    pub tag: Option<String>,
    /// Free labels; `[tag]` when `None`.
    pub tags: Option<Vec<String>>,
    /// The same key and tenant give the same run, however often it is sent.
    pub idempotency_key: Option<String>,
}

/// How much of a run is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Without the records of tasks.
    Snapshot,
    /// With the records of tasks: their times, inputs, outputs, errors and logs.
    Records,
}

/// Filters of a list; `None` leaves one out.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only runs of this status, such as `PENDING` or `FAILED`.
    pub status: Option<String>,
    /// Only runs of the flow of this name.
    pub flow: Option<String>,
    /// Only runs that were submitted for this tag.
    pub tag: Option<String>,
    /// Whole snapshots instead of summaries.
    pub full: bool,
    /// Most items of a page; the server checks its bounds.
    pub limit: Option<i64>,
}

/// What only the paged list takes.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// Runs updated after this time, unix seconds.
    pub updated_after: Option<f64>,
    /// `next_cursor` of the page before; empty asks for the first page.
    pub cursor: Option<String>,
    /// Runs of one workflow document.
    pub workflow_yaml_sha256: Option<String>,
}

impl Client {
    /// Submits a run: `{"run_id","status"}`.
    pub fn submit(&self, submission: &Submission) -> Result<Value, Error> {
        let mut body = json!({"flow_name": submission.flow_name, "params": submission.params});
        if let Some(tag) = &submission.tag {
            body["tag"] = json!(tag);
        }
        if let Some(tags) = &submission.tags {
            body["tags"] = json!(tags);
        }
        let mut call = Call::new(Method::POST, "/runs").with_json(&body);
        call.headers.extend(key_header(submission.idempotency_key.as_ref()));
        self.json(&call)
    }

    /// Submits a `flow.yaml`: `{"run_id","status"}`. Without a tag the server takes its default.
    pub fn submit_yaml(
        &self,
        flow_name: &str,
        tag: Option<&str>,
        workflow: &[u8],
        idempotency_key: Option<&String>,
    ) -> Result<Value, Error> {
        let mut fields = vec![("flow_name", flow_name)];
        fields.extend(tag.map(|tag| ("tag", tag)));
        let form = multipart::around_file(&fields, "workflow", "flow.yaml");
        let mut call = Call::new(Method::POST, "/runs/yaml");
        call.body = Some((form.content_type, [&form.head, workflow, &form.tail].concat()));
        call.headers.extend(key_header(idempotency_key));
        self.json(&call)
    }

    /// The newest snapshot of a run, with as much as `include` says.
    pub fn get_run(&self, run_id: &str, include: Include) -> Result<Value, Error> {
        let records = (include == Include::Records).then_some("records");
        let call = Call::new(Method::GET, format!("/runs/{}", segment(run_id)));
        self.json(&call.with_query("include", records))
    }

    /// A run's tasks with their records.
    pub fn tasks(&self, run_id: &str) -> Result<Value, Error> {
        self.json(&Call::new(Method::GET, format!("/runs/{}/tasks", segment(run_id))))
    }

    /// The newest runs: a list.
    pub fn list(&self, query: &ListQuery) -> Result<Value, Error> {
        self.json(&list_call(query))
    }

    /// The newest runs by pages: `{"items","next_cursor"}`.
    pub fn list_vnext(&self, query: &ListQuery, page: &PageQuery) -> Result<Value, Error> {
        let call = list_call(query)
            // An empty cursor is what asks for this shape when nothing else does.
            .with_query("cursor", Some(page.cursor.as_deref().unwrap_or_default()))
            .with_query("updated_after", page.updated_after)
            .with_query("workflow_yaml_sha256", page.workflow_yaml_sha256.as_ref());
        self.json(&call)
    }

    /// Asks a run to end: its snapshot, now `CANCELLING`, or as it is when it has ended.
    pub fn cancel(&self, run_id: &str, reason: Option<&str>) -> Result<Value, Error> {
        let mut call = Call::new(Method::POST, format!("/runs/{}/cancel", segment(run_id)));
        if let Some(reason) = reason {
            call = call.with_json(&json!({"reason": reason}));
        }
        self.json(&call)
    }

    /// Whether the gateway is alive: `{"status":"ok"}`.
    pub fn health(&self) -> Result<Value, Error> {
        self.json(&Call::new(Method::GET, "/health"))
    }

    /// Whether the gateway is fit to serve: NATS connected, run index current.
    pub fn ready(&self) -> Result<Value, Error> {
        self.json(&Call::new(Method::GET, "/readyz"))
    }
}

fn key_header(key: Option<&String>) -> Option<(&'static str, String)> {
    key.map(|key| ("Idempotency-Key", key.clone()))
}

fn list_call(query: &ListQuery) -> Call {
    Call::new(Method::GET, "/runs")
        .with_query("status", query.status.as_ref())
        .with_query("flow", query.flow.as_ref())
        .with_query("tag", query.tag.as_ref())
        .with_query("include", query.full.then_some("full"))
        .with_query("limit", query.limit)
}
