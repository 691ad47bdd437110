//! The JSON of every answer, as files that a review sees change.
//!
//! `PYOCO_UPDATE_GOLDEN=1 cargo test --test gateway golden` writes the files anew.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use pyoco_server::model::run::{Delivery, RunStatus, TaskRecord, TaskStatus};
use serde_json::{Map, Value, json};

use crate::support::cluster::Cluster;
use crate::support::forms::form;
use crate::support::http::Response;
use crate::support::jetstream;
use crate::support::runs::main_flow;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, noise};

/// Headers that belong to a shape; the rest differs per request or is HTTP's own.
const HEADERS: [&str; 4] = ["content-type", "allow", "retry-after", "location"];
/// Later than any time that a test makes up, earlier than any real one.
const REAL_TIMES: f64 = 1_500_000_000.0;

/// Replaces what differs from run to run; the same id gets the same name in one file.
#[derive(Default)]
struct Normalizer {
    ids: HashMap<String, String>,
}

impl Normalizer {
    fn value(&mut self, name: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.clone(), self.value(key, value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(|item| self.value(name, item)).collect(),
            // It depends on how well the archive was made smaller.
            Value::Number(size) if ["size", "size_bytes"].contains(&name) && *size != 0.into() => {
                json!("<bytes>")
            }
            Value::Number(number) if number.as_f64().is_some_and(|at| at > REAL_TIMES) => {
                json!("<time>")
            }
            Value::String(text) => Value::String(self.text(name, text)),
            other => other.clone(),
        }
    }

    fn text(&mut self, name: &str, text: &str) -> String {
        match name {
            "next_cursor" => return "<cursor>".to_owned(),
            "server" => return "<server and version>".to_owned(),
            // Nothing stays nothing.
            _ if text.is_empty() => return String::new(),
            "nuid" | "event_id" | "mtime" | "digest" | "sha256" | "sha256_b64" | "sha256_hex" | "host" => {
                return format!("<{name}>");
            }
            _ => {}
        }
        let words = text.split(' ').map(|word| {
            let id = word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4;
            if !id {
                return word.to_owned();
            }
            let next = format!("<run {}>", self.ids.len() + 1);
            self.ids.entry(word.to_owned()).or_insert(next).clone()
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Compares answers with their files, and lists all that differ at the end.
struct Album {
    folder: PathBuf,
    update: bool,
    seen: Vec<String>,
    differences: Vec<String>,
}

impl Album {
    fn open() -> Album {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/http");
        let update = std::env::var_os("PYOCO_UPDATE_GOLDEN").is_some();
        if update {
            fs::create_dir_all(&folder).unwrap();
        }
        Album { folder, update, seen: Vec::new(), differences: Vec::new() }
    }

    fn answer(&mut self, name: &str, cluster: &Cluster, answer: &Response) {
        let host = cluster.url();
        let headers: Map<String, Value> = HEADERS
            .iter()
            .filter_map(|header| Some((*header, answer.header(header)?.replace(&host, "<gateway>"))))
            .map(|(header, value)| (header.to_owned(), value.into()))
            .collect();
        let body = if answer.body.is_empty() { Value::Null } else { answer.json() };
        let body = Normalizer::default().value("", &body);
        self.document(name, &json!({"status": answer.status, "headers": headers, "body": body}));
    }

    fn stored(&mut self, name: &str, message: &jetstream::Stored) {
        let body = Normalizer::default().value("", &message.json());
        self.document(name, &body);
    }

    fn document(&mut self, name: &str, document: &Value) {
        let text = format!("{}\n", serde_json::to_string_pretty(document).unwrap());
        let path = self.folder.join(format!("{name}.json"));
        if self.update {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        if golden != text {
            self.differences.push(format!("--- {name}.json\n{golden}+++ now\n{text}"));
        }
        self.seen.push(format!("{name}.json"));
    }

    fn close(self) {
        assert!(
            self.differences.is_empty(),
            "answers have changed; PYOCO_UPDATE_GOLDEN=1 refreshes the files\n{}",
            self.differences.join("\n")
        );
        for entry in fs::read_dir(&self.folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(self.seen.contains(&name), "{name} belongs to no answer any more");
        }
    }
}

const FILE: Option<&str> = Some("flow.yaml");

#[test]
fn answers_are_as_in_the_golden_files() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_WHEEL_MAX_BYTES", "200000")]);
    let mut album = Album::open();
    good_answers(&cluster, &mut album);
    wheels(&cluster, &mut album);
    errors(&cluster, &mut album);
    unavailable(&mut cluster, &mut album);
    album.close();
}

fn good_answers(cluster: &Cluster, album: &mut Album) {
    album.answer("health", cluster, &cluster.get("/health"));
    album.answer("ready", cluster, &cluster.get("/readyz"));
    album.answer("list_empty", cluster, &cluster.get("/runs"));
    album.answer("page_empty", cluster, &cluster.get("/runs?cursor="));
    let submitted = cluster.post("/runs", &json!({"flow_name": "main", "params": {"é": [1, 1.5, null]}}));
    album.answer("submitted", cluster, &submitted);
    let run_id = submitted.json()["run_id"].as_str().unwrap().to_owned();
    let key = format!("$KV.pyoco_runs.{run_id}");
    album.stored("kv_pending", &jetstream::last(&cluster.nats, "KV_pyoco_runs", &key).unwrap());
    album.stored("job", &jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.default").unwrap());
    album.answer("run_pending", cluster, &cluster.get(&format!("/runs/{run_id}")));
    album.answer("tasks_pending", cluster, &cluster.get(&format!("/runs/{run_id}/tasks")));
    let cancelled = cluster.post(&format!("/runs/{run_id}/cancel"), &json!({"reason": "no need"}));
    album.answer("run_cancelling", cluster, &cancelled);
    cluster.wait_status(&run_id, "CANCELLED");
    album.answer("run_cancelled", cluster, &cluster.get(&format!("/runs/{run_id}")));

    let yaml = b"flow: {graph: a, defaults: {k: 1}}";
    let parts: &[(&str, Option<&str>, &[u8])] =
        &[("workflow", FILE, yaml), ("flow_name", None, b"main"), ("tag", None, b"gpu")];
    let submitted = cluster.post_form("/runs/yaml", parts);
    album.answer("submitted_yaml", cluster, &submitted);
    let run_id = submitted.json()["run_id"].as_str().unwrap().to_owned();
    album.answer("run_yaml", cluster, &cluster.get(&format!("/runs/{run_id}")));
    album.stored("job_yaml", &jetstream::last(&cluster.nats, "PYOCO_WORK", "pyoco.work.gpu").unwrap());

    let now = pyoco_server::model::clock::now();
    let worker = json!({"worker_id": "w", "instance_id": "i", "state": "RUNNING", "tags": ["default"], "last_seen_at": now});
    cluster.bus.workers().put("w", worker.to_string().as_bytes()).unwrap();
    cluster.put_run("running", now + 60.0, |run| {
        run.status = RunStatus::Running;
        run.worker_id = Some("w".into());
        run.attempt = Some(1);
        run.start_time = Some(now);
        run.tasks.insert("t".into(), "SUCCEEDED".into());
        let mut record = TaskRecord::new(TaskStatus::Succeeded);
        record.duration_ms = Some(12.5);
        record.output = json!({"rows": 3});
        run.task_records.insert("t".into(), serde_json::to_value(record).unwrap());
        run.delivery = Some(Delivery::new("$JS.ACK.x".into(), "i".into(), 60.0));
    });
    cluster.wait_status("running", "RUNNING");
    eventually(PATIENCE, "the worker to be known", || {
        (cluster.get("/runs/running").json()["worker_alive"] == true).then_some(())
    });
    album.answer("run_running", cluster, &cluster.get("/runs/running"));
    album.answer("run_running_records", cluster, &cluster.get("/runs/running?include=records"));
    album.answer("tasks_running", cluster, &cluster.get("/runs/running/tasks"));
    album.answer("list", cluster, &cluster.get("/runs"));
    album.answer("list_full", cluster, &cluster.get("/runs?include=full&status=RUNNING"));
    album.answer("page", cluster, &cluster.get("/runs?limit=2&cursor="));
    album.answer("workers", cluster, &cluster.get("/workers?scope=all"));
    album.answer("worker_hidden", cluster, &patch(cluster, "w"));
}

fn wheels(cluster: &Cluster, album: &mut Album) {
    let wheel = WheelFile::new("tools", "1.0");
    let (name, bytes) = (wheel.file_name(), wheel.build());
    let upload = |name: &str, bytes: &[u8], fields: &[(&str, &str)]| {
        let mut parts: Vec<(&str, Option<&str>, &[u8])> =
            fields.iter().map(|(field, text)| (*field, None, text.as_bytes())).collect();
        parts.push(("wheel", Some(name), bytes));
        let (content_type, body) = form(&parts);
        let headers = [("Content-Type", &*content_type), ("User-Agent", "tests")];
        cluster.request("POST", "/wheels", &headers, &body)
    };
    album.answer("wheel_uploaded", cluster, &upload(&name, &bytes, &[("tags", "cpu, linux,cpu")]));
    let subject = format!("$O.pyoco_wheels.M.{}", URL_SAFE.encode(&name));
    let stored = |subject: &str| jetstream::last(&cluster.nats, "OBJ_pyoco_wheels", subject).unwrap();
    album.stored("object_wheel", &stored(&subject));
    album.answer("wheels", cluster, &cluster.get("/wheels"));
    album.answer("409_wheel", cluster, &upload(&name, &bytes, &[]));
    album.answer("409_wheel_name", cluster, &upload(&name, &bytes, &[("replace", "0")]));
    let lower = upload("Tools-0.9-py3-none-any.whl", &bytes, &[]);
    album.answer("409_wheel_lower", cluster, &lower);
    album.answer("422_wheel_name", cluster, &upload("tools.zip", &bytes, &[]));
    album.answer("422_wheel_filename", cluster, &upload("tools-1.1.whl", &bytes, &[]));
    let next = "tools-1.1-py3-none-any.whl";
    album.answer("422_wheel_tags", cluster, &upload(next, &bytes, &[("tags", "a.b")]));
    album.answer("422_wheel_file", cluster, &upload(next, &bytes[1..], &[]));
    album.answer("422_wheel_flag", cluster, &upload(next, &bytes, &[("replace", "maybe")]));
    let (content_type, body) = form(&[("wheel", None, b"text")]);
    let headers = [("Content-Type", &*content_type)];
    let answer = cluster.request("POST", "/wheels", &headers, &body);
    album.answer("422_wheel_text", cluster, &answer);
    album.answer("422_wheel_missing", cluster, &cluster.post_nothing("/wheels"));
    let large = vec![0; 200_001];
    album.answer("413_wheel", cluster, &upload(next, &large, &[]));
    let one = WheelFile::new("one", "1.0").file("noise", noise(198_500)).build();
    album.answer("507_wheel", cluster, &upload("one-1.0-py3-none-any.whl", &one, &[]));
    let path = format!("/wheels/{name}");
    let headers = [("User-Agent", "tests")];
    let delete = || cluster.request("DELETE", &path, &headers, b"");
    album.answer("wheel_deleted", cluster, &delete());
    album.stored("object_wheel_deleted", &stored(&subject));
    album.answer("404_wheel", cluster, &delete());
    album.answer("wheel_history", cluster, &cluster.get("/wheels/history"));
    album.answer("422_wheel_history", cluster, &cluster.get("/wheels/history?limit=501&action=x"));
    album.answer("422_wheel_history_name", cluster, &cluster.get("/wheels/history?wheel_name=x"));
    album.answer("422_wheel_history_action", cluster, &cluster.get("/wheels/history?action=x"));
}

fn errors(cluster: &Cluster, album: &mut Album) {
    let json_type = [("Content-Type", "application/json")];
    let post = |body: &[u8]| cluster.request("POST", "/runs", &json_type, body);
    album.answer("307_trailing_slash", cluster, &cluster.get("/runs/?limit=1"));
    album.answer("400_not_utf8", cluster, &post(b"\xff"));
    let headers = [("Content-Type", "multipart/form-data")];
    let answer = cluster.request("POST", "/runs/yaml", &headers, b"x");
    album.answer("400_no_boundary", cluster, &answer);
    album.answer("404_path", cluster, &cluster.get("/nope"));
    album.answer("404_run", cluster, &cluster.get("/runs/nope"));
    let problem = [("Accept", "application/problem+json")];
    let answer = cluster.request("GET", "/runs/nope", &problem, b"");
    album.answer("404_run_problem", cluster, &answer);
    album.answer("404_worker", cluster, &patch(cluster, "nope"));
    album.answer("405", cluster, &cluster.delete("/runs"));
    album.answer("413_body", cluster, &post(&vec![b' '; 1_100_000]));
    let large = vec![b'#'; 262_145];
    let parts: &[(&str, Option<&str>, &[u8])] = &[("workflow", FILE, &large), ("flow_name", None, b"main")];
    album.answer("413_workflow", cluster, &cluster.post_form("/runs/yaml", parts));
    album.answer("422_json", cluster, &post(b"{bad"));
    album.answer("422_schema", cluster, &post(br#"{"params":[],"tag":"a.b"}"#));
    let problem = [("Accept", "application/problem+json"), json_type[0]];
    let answer = cluster.request("POST", "/runs", &problem, b"{}");
    album.answer("422_schema_problem", cluster, &answer);
    album.answer("422_query", cluster, &cluster.get("/runs?limit=0"));
    album.answer("422_workers", cluster, &cluster.get("/workers?state=BUSY"));
    album.answer("422_cursor", cluster, &cluster.get("/runs?cursor=zzz"));
    for (name, yaml, tag) in [
        ("422_workflow", &b"flow: {graph: a, x: 1}"[..], &b"t"[..]),
        ("422_workflow_place", b"a: [", b"t"),
        ("422_tag", b"flow: {graph: a}", b"a.b"),
    ] {
        let parts = [("workflow", FILE, yaml), ("flow_name", None, &b"m"[..]), ("tag", None, tag)];
        album.answer(name, cluster, &cluster.post_form("/runs/yaml", &parts));
    }
    let headers = [json_type[0], ("Idempotency-Key", "k")];
    for (body, name) in [(r#"{"flow_name":"m"}"#, None), (r#"{"flow_name":"n"}"#, Some("422_key"))] {
        let answer = cluster.request("POST", "/runs", &headers, body.as_bytes());
        if let Some(name) = name {
            album.answer(name, cluster, &answer);
        }
    }
}

fn unavailable(cluster: &mut Cluster, album: &mut Album) {
    cluster.nats.stop();
    eventually(PATIENCE, "the gateway to notice", || {
        let body = cluster.get("/readyz").json();
        let checks = &body["checks"];
        (checks["nats"]["status"] == "unavailable" && checks["run_index"]["status"] == "unavailable")
            .then_some(())
    });
    album.answer("503_ready", cluster, &cluster.get("/readyz"));
    album.answer("503_submit", cluster, &cluster.post("/runs", &main_flow()));
    album.answer("503_list", cluster, &cluster.get("/runs"));
}

fn patch(cluster: &Cluster, worker_id: &str) -> Response {
    cluster.send_json("PATCH", &format!("/workers/{worker_id}"), r#"{"hidden":true}"#)
}
