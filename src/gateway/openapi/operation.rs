//! One operation of the document: what a handler takes and answers, in a chain of short calls.

use serde_json::{Map, Value, json};

use super::failures;
use super::shape::reference;
use crate::gateway::api::route::Access;

/// What follows from the router's table (access, failures of any request) is added by [`Operation::to_json`].
pub(super) struct Operation {
    pub method: &'static str,
    /// As in the table, with names between the braces.
    pub path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
    failures: &'static [u16],
}

/// An operation that answers 200 with nothing yet.
pub(super) fn operation(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
) -> Operation {
    Operation {
        method,
        path,
        id,
        tag,
        summary: "",
        description: "",
        parameters: Vec::new(),
        body: None,
        answers: Map::new(),
        failures: &[],
    }
}

impl Operation {
    pub fn says(mut self, summary: &'static str, description: &'static str) -> Self {
        (self.summary, self.description) = (summary, description);
        self
    }

    pub fn segment(mut self, name: &str, about: &str) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": about,
            "schema": {"type": "string", "minLength": 1},
        }));
        self
    }

    /// A parameter of the query; its description is taken from its schema.
    pub fn query(mut self, name: &str, mut schema: Value) -> Self {
        let about = schema.as_object_mut().and_then(|fields| fields.shift_remove("description"));
        self.parameters.push(json!({"name": name, "in": "query", "description": about, "schema": schema}));
        self
    }

    pub fn header(mut self, name: &str) -> Self {
        self.parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
        self
    }

    pub fn takes(mut self, required: bool, content: Value) -> Self {
        self.body = Some(json!({"required": required, "content": content}));
        self
    }

    pub fn answers(mut self, status: u16, about: &str, content: Value) -> Self {
        let mut answer = json!({"description": about, "headers": failures::headers_of(status)});
        if !content.is_null() {
            answer["content"] = content;
        }
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// One more header of an answer that has been described.
    pub fn with_header(mut self, status: u16, name: &str, header: Value) -> Self {
        self.answers[&status.to_string()]["headers"][name] = header;
        self
    }

    /// The 200 that has been described has an `ETag`, and 304 may come in its place.
    pub fn may_be_kept(self) -> Self {
        let etag = || json!({"$ref": "#/components/headers/ETag"});
        self.header("IfNoneMatch")
            .answers(304, "It is still the one that the client has.", Value::Null)
            .with_header(200, "ETag", etag())
            .with_header(304, "ETag", etag())
    }

    pub fn fails(mut self, statuses: &'static [u16]) -> Self {
        self.failures = statuses;
        self
    }

    pub fn to_json(&self, access: Access, keys_required: bool) -> Value {
        let security = match (access, keys_required) {
            (Access::Public, _) => json!([]),
            (Access::Protected(_), true) => json!([{"apiKey": []}, {"bearer": []}]),
            (Access::Protected(_), false) => json!([{"apiKey": []}, {"bearer": []}, {}]),
        };
        let mut parameters = self.parameters.clone();
        parameters.push(json!({"$ref": "#/components/parameters/RequestId"}));
        let mut responses = self.answers.clone();
        let guarded: &[u16] = if access != Access::Public { failures::OF_KEYS } else { &[] };
        let mut statuses = [failures::EVERYWHERE, guarded, self.failures].concat();
        statuses.sort_unstable();
        for status in statuses {
            let answer = json!({"$ref": format!("#/components/responses/{}", failures::name(status))});
            // What an operation says itself comes first.
            responses.entry(status.to_string()).or_insert(answer);
        }
        let mut fields = Map::new();
        fields.insert("operationId".into(), self.id.into());
        fields.insert("tags".into(), json!([self.tag]));
        fields.insert("summary".into(), self.summary.into());
        if !self.description.is_empty() {
            fields.insert("description".into(), self.description.into());
        }
        fields.insert("security".into(), security);
        fields.insert("parameters".into(), parameters.into());
        if let Some(body) = &self.body {
            fields.insert("requestBody".into(), body.clone());
        }
        fields.insert("responses".into(), responses.into());
        Value::Object(fields)
    }
}

pub(super) fn json_of(schema: &str, example: Value) -> Value {
    json!({"application/json": {"schema": reference(schema), "example": example}})
}

/// OpenAPI 3.1 has no words for streams; tools that know them read the schema as that of one event.
pub(super) fn stream_of(events: &[(&str, &str)], example: &str) -> Value {
    let event = |(name, schema): &(&str, &str)| {
        json!({
            "title": format!("{schema}Event"),
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": {"const": name},
                "id": {"type": "string"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": reference(schema),
                },
            },
        })
    };
    let events: Vec<Value> = events.iter().map(event).collect();
    json!({"text/event-stream": {"schema": {"oneOf": events}, "example": example}})
}
