//! `GET /openapi.json`: the document, and real answers beside it.

use pyoco_server::model::clock;
use serde_json::{Value, json};

use crate::described::Described;
use crate::support::cluster::{Cluster, Worker, with_flags};
use crate::support::events::Event;
use crate::support::forms::form;
use crate::support::http;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, noise};
use crate::workers::python_record;

const RUN: &str = "/runs/{run_id}";
const TASKS: &str = "/runs/{run_id}/tasks";
const CANCEL: &str = "/runs/{run_id}/cancel";
const WATCH: &str = "/runs/{run_id}/watch";
const WORKER: &str = "/workers/{worker_id}";
const WHEEL: &str = "/wheels/{name}";
const HISTORY: &str = "/wheels/history";
const YAML: &[u8] = b"version: 1\nflow: {graph: a, defaults: {k: yes}}\ntasks: {a: {use: builtin/echo, inputs: {x: $ctx.params.k}}}\n";

#[test]
fn the_document_is_public_whole_and_kept() {
    let environment = [("PYOCO_HTTP_API_KEY_HEADER", "X-Pyoco-Key")];
    let cluster = Cluster::with_gateway_env(&environment);
    let first = cluster.get("/openapi.json");
    assert_eq!(first.status, 200);
    assert_eq!(first.header("content-type"), Some("application/json"));
    let document = first.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["components"]["securitySchemes"]["apiKey"]["name"], "X-Pyoco-Key");
    let etag = first.header("etag").unwrap();
    let headers = [("If-None-Match", etag)];
    let second = cluster.request("GET", "/openapi.json", &headers, b"");
    assert_eq!((second.status, second.header("etag")), (304, Some(etag)));
    // A length would be that of the whole document.
    assert_eq!((second.header("content-length"), second.body.len()), (None, 0));
}

#[test]
fn real_answers_are_as_they_are_described() {
    let cluster = Cluster::with_gateway();
    let described = Described::by(&cluster);
    let record = python_record("python", "IDLE", clock::now()).to_string();
    let revision = cluster.bus.workers().put("python", record.as_bytes()).unwrap();
    let mut feed = cluster.events("/events");
    let mut changes = vec![feed.named("state")];
    let run_id = submits(&cluster, &described);
    let _worker = worker(&cluster);
    cluster.wait_status(&run_id, "COMPLETED");
    shows(&described, &run_id);
    lists(&described);
    cancels(&cluster, &described);
    watches(&cluster, &described, &run_id);
    workers(&described);
    wheels(&described);
    service(&described);
    failures(&cluster, &described, &run_id);
    cluster.bus.workers().delete("python", revision).unwrap();
    cluster.bus.runs().delete(&run_id, cluster.snapshot(&run_id).1).unwrap();
    let gone = |changes: &[Event]| {
        ["run_removed", "worker_removed", "heartbeat"]
            .iter()
            .all(|name| changes.iter().any(|event| event.name == *name))
    };
    while !gone(&changes) {
        changes.push(feed.event());
    }
    described.hold_events("/events", &changes);
    described.assert_all_seen();
}

#[test]
fn answers_without_nats_are_as_they_are_described() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    let described = Described::by(&cluster);
    cluster.nats.kill();
    cluster.wait_answer("/readyz", 503);
    described.get(503, "/readyz", "/readyz");
    described.get(503, "/runs", "/runs");
    described.get(503, RUN, "/runs/r");
    described.get(503, "/workers", "/workers");
    described.get(200, "/metrics", "/metrics");
    described.json(503, "POST", ("/runs", "/runs"), r#"{"flow_name":"main"}"#);
    described.get(503, "/wheels", "/wheels");
    described.get(503, HISTORY, HISTORY);
    described.get(503, WHEEL, "/wheels/tools-1.0-py3-none-any.whl");
    described.call(503, "DELETE", WHEEL, "/wheels/tools-1.0-py3-none-any.whl", &[], b"");
    upload(&described, 503, &tools("1.0"), &[]);
    let headers = [("Accept", "application/problem+json")];
    described.call(503, "GET", "/runs", "/runs", &headers, b"");
}

/// A worker as a user starts it.
fn worker(cluster: &Cluster) -> Worker {
    cluster.spawn_worker("w", with_flags(&["--tags", "default"]))
}

/// Submits of each kind; the run that a worker can complete.
fn submits(cluster: &Cluster, described: &Described) -> String {
    let body = r#"{"flow_name":"main","params":{"x":[1]},"tag":"parked","tags":["a"]}"#;
    described.json(200, "POST", ("/runs", "/runs"), body);
    let parts = [("workflow", Some("flow.yaml"), YAML), ("flow_name", None, &b"main"[..])];
    let (content_type, body) = form(&parts);
    let headers = [("Content-Type", &*content_type), ("Idempotency-Key", "k")];
    let answer = described.call(200, "POST", "/runs/yaml", "/runs/yaml", &headers, &body);
    cluster.wait_count(2);
    answer.json()["run_id"].as_str().unwrap().to_owned()
}

fn shows(described: &Described, run_id: &str) {
    let shown = described.get(200, RUN, &format!("/runs/{run_id}")).json();
    assert_eq!(shown["worker_alive"], true, "{shown}");
    let shown = described.get(200, RUN, &format!("/runs/{run_id}?include=records")).json();
    assert_eq!(shown["task_records"]["a"]["output"], json!({"x": true}), "{shown}");
    described.get(200, TASKS, &format!("/runs/{run_id}/tasks"));
}

fn lists(described: &Described) {
    let nothing = "status=NONE";
    for query in ["", "include=full", "limit=1&cursor=", "updated_after=0&include=all", nothing] {
        let list = described.get(200, "/runs", &format!("/runs?{query}")).json();
        let items = list.get("items").unwrap_or(&list).as_array().unwrap();
        assert_eq!(items.is_empty(), query == nothing, "{query}");
    }
}

fn cancels(cluster: &Cluster, described: &Described) {
    let run_id = cluster.submit(&json!({"flow_name": "main", "tag": "parked"}));
    let path = format!("/runs/{run_id}/cancel");
    described.json(200, "POST", (CANCEL, &path), r#"{"reason":"wrong input"}"#);
    described.call(200, "POST", CANCEL, &path, &[], b"");
}

fn watches(cluster: &Cluster, described: &Described, run_id: &str) {
    let path = format!("/runs/{run_id}/watch?include=full&until_terminal=true");
    let events = cluster.events(&path).rest();
    assert_eq!(events.len(), 1);
    described.hold_events(WATCH, &events);
    let mut quiet = cluster.events(&format!("/runs/{run_id}/watch?timeout_sec=10"));
    let events = [quiet.event(), quiet.named("heartbeat")];
    described.hold_events(WATCH, &events);
}

fn workers(described: &Described) {
    let list = described.get(200, "/workers", "/workers?scope=all&limit=10").json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    described.json(200, "PATCH", (WORKER, "/workers/w"), r#"{"hidden":true}"#);
}

fn tools(version: &str) -> WheelFile {
    WheelFile::new("tools", version)
}

/// Uploads a wheel with these fields before it.
fn upload(described: &Described, status: u16, wheel: &WheelFile, fields: &[(&str, &str)]) {
    let (name, bytes) = (wheel.file_name(), wheel.build());
    let mut parts: Vec<(&str, Option<&str>, &[u8])> =
        fields.iter().map(|(field, text)| (*field, None, text.as_bytes())).collect();
    parts.push(("wheel", Some(&name), &bytes));
    upload_form(described, status, &parts);
}

/// The same with any parts; also with an answer by RFC 9457, unless it is taken.
fn upload_form(described: &Described, status: u16, parts: &[(&str, Option<&str>, &[u8])]) {
    let (content_type, body) = form(parts);
    let headers = [("Content-Type", &*content_type), ("Accept", "application/problem+json")];
    described.call(status, "POST", "/wheels", "/wheels", &headers[..1], &body);
    if status != 200 {
        described.call(status, "POST", "/wheels", "/wheels", &headers, &body);
    }
}

fn wheels(described: &Described) {
    described.get(200, "/wheels", "/wheels");
    described.get(200, HISTORY, HISTORY);
    upload(described, 200, &tools("1.0"), &[("tags", "cpu,linux"), ("replace", "false")]);
    upload(described, 200, &tools("1.1"), &[]);
    let list = described.get(200, "/wheels", "/wheels").json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    let path = format!("/wheels/{}", tools("1.1").file_name());
    described.get(200, WHEEL, &path);
    described.call(200, "DELETE", WHEEL, &path, &[("User-Agent", "a test")], b"");
    let events = described.get(200, HISTORY, &format!("{HISTORY}?limit=500&action=")).json();
    assert_eq!(events.as_array().map(Vec::len), Some(3), "{events}");
    let named = format!("{HISTORY}?wheel_name={}&action=upload", tools("1.0").file_name());
    described.get(200, HISTORY, &named);

    let problem = [("Accept", "application/problem+json")];
    for method in ["GET", "DELETE"] {
        described.call(404, method, WHEEL, &path, &[], b"");
        described.call(404, method, WHEEL, "/wheels/x", &problem, b"");
    }
    for query in ["limit=0", "limit=x&action=y", "wheel_name=x", "action=look"] {
        described.get(422, HISTORY, &format!("{HISTORY}?{query}"));
        described.call(422, "GET", HISTORY, &format!("{HISTORY}?{query}"), &problem, b"");
    }
    for (version, replace) in [("1.0", "true"), ("1.0", "false"), ("0.9", "true")] {
        upload(described, 409, &tools(version), &[("replace", replace)]);
    }
    upload(described, 422, &tools("1.2"), &[("tags", "a.b")]);
    upload(described, 422, &tools("1.2"), &[("replace", "maybe")]);
    upload(described, 422, &tools("1.2.x"), &[]);
    upload_form(described, 422, &[("wheel", Some("tools.zip"), b"")]);
    upload_form(described, 422, &[("wheel", Some("tools-1.2-py3-none-any.whl"), b"no archive")]);
    upload_form(described, 422, &[("wheel", None, b"text")]);
    upload_form(described, 422, &[("tags", None, b"a")]);
    described.call(422, "POST", "/wheels", "/wheels", &[], b"");
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    described.call(400, "POST", "/wheels", "/wheels", &headers, b"--x\r\n");
}

#[test]
fn answers_of_a_full_registry_are_as_they_are_described() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WHEEL_MAX_BYTES", "300000")]);
    let described = Described::by(&cluster);
    let wheel = |name: &str, bytes| WheelFile::new(name, "1.0").file("noise", noise(bytes));
    upload(&described, 413, &wheel("large", 301_000), &[]);
    upload(&described, 413, &wheel("larger", 400_000), &[]);
    upload(&described, 200, &wheel("one", 200_000), &[]);
    upload(&described, 507, &wheel("two", 200_000), &[]);
}

#[test]
fn an_upload_of_no_known_length_or_coding_is_answered_as_described() {
    let cluster = Cluster::with_gateway();
    let described = Described::by(&cluster);
    for (coding, status) in [("chunked", 422), ("gzip", 501)] {
        let mut connection = http::Connection::open(cluster.address);
        let head =
            format!("POST /wheels HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        connection.send(head.as_bytes()).unwrap();
        let answer = connection.receive().unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        described.hold("POST", "/wheels", &answer);
    }
}

fn service(described: &Described) {
    for path in ["/health", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json"] {
        described.get(200, path, path);
    }
    described.get(200, "/", "/?lang=ja");
    for name in ["main.js", "style.css", "icon.svg"] {
        described.get(200, "/static/{name}", &format!("/static/{name}"));
    }
    described.get(404, "/static/{name}", "/static/none");
    let etag = described.get(200, "/openapi.json", "/openapi.json");
    let headers = [("If-None-Match", etag.header("etag").unwrap())];
    described.call(304, "GET", "/openapi.json", "/openapi.json", &headers, b"");
}

fn failures(cluster: &Cluster, described: &Described, run_id: &str) {
    let problem = [("Accept", "application/problem+json")];
    for (template, path) in
        [(RUN, "/runs/none"), (TASKS, "/runs/none/tasks"), (WATCH, "/runs/none/watch"), (RUN, "/runs/a..b")]
    {
        described.get(404, template, path);
        described.call(404, "GET", template, path, &problem, b"");
    }
    described.json(404, "POST", (CANCEL, "/runs/none/cancel"), "{}");
    described.json(404, "PATCH", (WORKER, "/workers/none"), r#"{"hidden":true}"#);
    for (template, path) in [
        ("/runs", "/runs?limit=0&updated_after=x".to_owned()),
        ("/runs", "/runs?cursor=x".to_owned()),
        ("/workers", "/workers?limit=501".to_owned()),
        ("/workers", "/workers?state=asleep".to_owned()),
        (WATCH, format!("/runs/{run_id}/watch?timeout_sec=0")),
    ] {
        described.get(422, template, &path);
        described.call(422, "GET", template, &path, &problem, b"");
    }
    let submit = |status, body: &str| {
        described.json(status, "POST", ("/runs", "/runs"), body);
    };
    submit(422, "{}");
    submit(422, "{");
    submit(422, r#"{"flow_name":5,"params":[],"tag":"a.b","tags":[1]}"#);
    submit(413, &format!(r#"{{"flow_name":"main","params":{{"x":"{}"}}}}"#, "x".repeat(1 << 20)));
    let json = [("Content-Type", "application/json")];
    described.call(400, "POST", "/runs", "/runs", &json, b"\"\xff\"");
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    described.call(400, "POST", "/runs/yaml", "/runs/yaml", &headers, b"");
    described.call(422, "POST", "/runs/yaml", "/runs/yaml", &[], b"");
    for document in [&b"flows: {}"[..], b"flow: {", b"flow: {graph: 1}"] {
        let parts = [("workflow", Some("f"), document), ("flow_name", None, &b"main"[..])];
        let (content_type, body) = form(&parts);
        let headers = [("Content-Type", &*content_type)];
        described.call(422, "POST", "/runs/yaml", "/runs/yaml", &headers, &body);
    }
    described.get(431, "/runs", &format!("/runs?x={}", "x".repeat(20_000)));
    described.call(417, "GET", "/runs", "/runs", &[("Expect", "a miracle")], b"");
    for (method, path, status) in [("GET", "/none", 404), ("DELETE", "/runs", 405)] {
        let answer = cluster.request(method, path, &[], b"");
        assert_eq!(answer.status, status);
        described.hold_error(&answer);
    }
}

#[test]
fn a_field_that_is_not_described_is_noticed() {
    let cluster = Cluster::with_gateway();
    let described = Described::by(&cluster);
    let mut document = json!({"run_id": "r", "flow_name": "f", "tag": "t", "tags": [], "status": "PENDING",
        "params": {}, "tasks": {}, "updated_at": 1.0});
    let put = |document: &Value| {
        cluster.put("r", document.to_string().as_bytes());
        eventually(PATIENCE, "the gateway to show it", || {
            let shown = cluster.get("/runs/r");
            (shown.status == 200 && shown.json() == *document).then_some(())
        });
    };
    put(&document);
    described.get(200, RUN, "/runs/r");
    document["new_field"] = 1.into();
    put(&document);
    let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        described.get(200, RUN, "/runs/r");
    }));
    assert!(held.is_err(), "a new field went unnoticed");
}
