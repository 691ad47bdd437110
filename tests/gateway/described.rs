//! Holds answers to what the gateway's own OpenAPI document says of them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pyoco_server::gateway::api::route::ROUTES;
use serde_json::{Value, json};

use crate::support::events::Event;
use crate::support::http::{Client, Response};

/// The document of a gateway, and what has been held to it.
pub struct Described {
    gateway: Client,
    /// As it was served.
    pub document: Value,
    /// Its components, with objects that may have no field beside those that are written there.
    strict: Value,
    /// Operations that have answered with 200, as lines of the router's table.
    seen: RefCell<BTreeSet<String>>,
}

impl Described {
    /// Asks the gateway for it.
    pub fn by(gateway: &Client) -> Described {
        let document = gateway.get("/openapi.json").json();
        let mut strict = document["components"].clone();
        close(&mut strict["schemas"]);
        Described { gateway: gateway.clone(), document, strict, seen: RefCell::default() }
    }

    /// GET of `path`, which is one of `template`'s paths and must be answered with `status`.
    pub fn get(&self, status: u16, template: &str, path: &str) -> Response {
        self.call(status, "GET", template, path, &[], b"")
    }

    /// The same with a JSON body.
    pub fn json(&self, status: u16, method: &str, paths: (&str, &str), body: &str) -> Response {
        let headers = [("Content-Type", "application/json")];
        self.call(status, method, paths.0, paths.1, &headers, body.as_bytes())
    }

    pub fn call(
        &self,
        status: u16,
        method: &str,
        template: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let answer = self.gateway.request(method, path, headers, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        self.hold(method, template, &answer);
        answer
    }

    /// Holds an answer to its operation: status, headers, content type, shape.
    pub fn hold(&self, method: &str, template: &str, answer: &Response) {
        let what = format!("{method} {template} {}", answer.status);
        let described = self.answer(method, template, answer.status);
        for (name, header) in described["headers"].as_object().unwrap() {
            let header = self.resolved(header);
            let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
            assert!(is_there || header["required"] != true, "{what}: no {name}");
        }
        let Some(contents) = described["content"].as_object() else {
            assert!(answer.body.is_empty(), "{what}: {}", answer.text());
            return;
        };
        let content_type = answer.header("content-type").unwrap_or_default();
        let content =
            contents.get(content_type).unwrap_or_else(|| panic!("{what}: {content_type} is not described"));
        if content_type.ends_with("json") {
            self.hold_to(&content["schema"], &answer.json(), &what);
        }
        if answer.status == 200 {
            self.note(method, template);
        }
    }

    /// Holds the events of a stream to its operation; each one by its name.
    pub fn hold_events(&self, template: &str, events: &[Event]) {
        let described = self.answer("GET", template, 200);
        let kinds = &described["content"]["text/event-stream"]["schema"]["oneOf"];
        for event in events {
            let what = format!("{template}: event {}", event.name);
            let kind = kinds.as_array().unwrap().iter();
            let kind = kind
                .map(|kind| &kind["properties"])
                .find(|kind| kind["event"]["const"] == *event.name)
                .unwrap_or_else(|| panic!("{what} is not described"));
            self.hold_to(&kind["data"]["contentSchema"], &event.data, &what);
        }
        self.note("GET", template);
    }

    /// Holds an error that came before there was a route, and so has no operation.
    pub fn hold_error(&self, answer: &Response) {
        let schema = json!({"$ref": "#/components/schemas/Error"});
        self.hold_to(&schema, &answer.json(), &answer.status.to_string());
    }

    /// That no operation was left out.
    pub fn assert_all_seen(&self) {
        let all: BTreeSet<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        assert_eq!(*self.seen.borrow(), all, "operations of which a real answer was looked at");
    }

    fn note(&self, method: &str, template: &str) {
        let bare = |segment| if str::starts_with(segment, '{') { "{}" } else { segment };
        let path = template.split('/').map(bare).collect::<Vec<_>>().join("/");
        self.seen.borrow_mut().insert(format!("{method} {path}"));
    }

    fn answer(&self, method: &str, template: &str, status: u16) -> &Value {
        let operation = &self.document["paths"][template][method.to_ascii_lowercase()];
        let answer = operation["responses"].get(status.to_string());
        self.resolved(answer.unwrap_or_else(|| panic!("{method} {template} {status}: unknown")))
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        self.document.pointer(&reference[1..]).expect("a reference leads somewhere")
    }

    fn hold_to(&self, schema: &Value, value: &Value, what: &str) {
        let mut schema = schema.clone();
        close(&mut schema);
        schema["components"] = self.strict.clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(value)
            .map(|fault| format!("{} at {}", fault, fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{what}: {faults:#?}\n{value:#}");
    }
}

/// Makes every object refuse fields that are not described, so that a new field is noticed.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
