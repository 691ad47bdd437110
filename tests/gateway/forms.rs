//! `POST /runs/yaml`: forms of every shape, and every reason for which a document is refused.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::forms::form;
use crate::support::http;
use crate::support::runs::{accepted, ids};

const FILE: Option<&str> = Some("flow.yaml");
const FLOW: &[u8] = b"flow: {graph: a}";

fn missing(field: &str) -> Value {
    json!({"type": "missing", "loc": ["body", field], "msg": "Field required", "input": null})
}

fn detail(answer: &http::Response) -> (u16, Value) {
    (answer.status, answer.json()["detail"].clone())
}

#[test]
fn a_document_becomes_a_run_whose_params_are_its_defaults() {
    let cluster = Cluster::with_gateway();
    let yaml = b"version: 1\nflow:\n  graph: a >> b\n  defaults:\n    k: yes\n    o: 017\n    t: 12:30\n    \
        f: 1_000\n    d: 2020-01-01\n    q: 'yes'\ntasks:\n  a:\n    callable: m:f\n";
    let answer = cluster.post_form(
        "/runs/yaml",
        &[("workflow", FILE, yaml), ("flow_name", None, b" main "), ("tag", None, b" gpu ")],
    );
    let run_id = accepted(&answer);
    let shown = cluster.get(&format!("/runs/{run_id}")).json();
    assert_eq!(shown["flow_name"], "main");
    assert_eq!((&shown["tag"], &shown["tags"]), (&json!("gpu"), &json!(["gpu"])));
    assert_eq!(shown["workflow_yaml_bytes"], yaml.len());
    assert_eq!(shown["workflow_yaml_sha256"].as_str().unwrap().len(), 64);
    let params = &shown["params"];
    assert_eq!((&params["k"], &params["o"], &params["t"]), (&json!(true), &json!(15), &json!(750)));
    assert_eq!((&params["f"], &params["q"]), (&json!(1000), &json!("yes")));
    assert!(!shown.to_string().contains("a >> b"), "the document is shown: {shown}");
    let hash = shown["workflow_yaml_sha256"].as_str().unwrap();
    let found = cluster.get(&format!("/runs?workflow_yaml_sha256={hash}")).json();
    assert_eq!(ids(&found), [run_id]);
}

#[test]
fn every_form_that_is_not_right_is_told_what_is_missing() {
    let cluster = Cluster::with_gateway();
    let post = |parts: &[(&str, Option<&str>, &[u8])]| detail(&cluster.post_form("/runs/yaml", parts));
    let name = ("flow_name", None, &b"main"[..]);
    let flow = ("workflow", FILE, FLOW);
    assert_eq!(post(&[flow]), (422, json!([missing("flow_name")])));
    assert_eq!(post(&[flow, ("flow_name", None, b"")]), (422, json!([missing("flow_name")])));
    assert_eq!(post(&[flow, ("flow_name", None, b"  ")]), (422, json!("missing flow_name")));
    assert_eq!(post(&[name]), (422, json!([missing("workflow")])));
    let not_a_file = json!([{
        "type": "value_error",
        "loc": ["body", "workflow"],
        "msg": "Value error, Expected UploadFile, received: <class 'str'>",
        "input": "text",
        "ctx": {"error": {}},
    }]);
    assert_eq!(post(&[name, ("workflow", None, b"text")]), (422, not_a_file.clone()));
    for tag in ["a.b", "*", "a b", "é"] {
        let answer = post(&[flow, name, ("tag", None, tag.as_bytes())]);
        assert_eq!(answer, (422, json!("invalid tag")), "{tag}");
    }
    assert_eq!(post(&[flow, name, ("tag", None, b"  ")]).0, 200, "an empty tag is the default");
    let large = vec![b'#'; 262_145];
    assert_eq!(post(&[("workflow", FILE, &large), name]), (413, json!("workflow too large")));
    let larger = vec![b'#'; 600_000];
    assert_eq!(post(&[("workflow", FILE, &larger), name]).0, 413);

    let raw = |content_type: Option<&str>, body: &[u8]| {
        let headers: Vec<_> = content_type.map(|value| ("Content-Type", value)).into_iter().collect();
        detail(&cluster.request("POST", "/runs/yaml", &headers, body))
    };
    let both = (422, json!([missing("workflow"), missing("flow_name")]));
    assert_eq!(raw(None, b""), both);
    assert_eq!(raw(Some("application/json"), b"{\"flow_name\":\"main\"}"), both);
    assert_eq!(raw(Some("multipart/form-data"), b"x"), (400, json!("Missing boundary in multipart.")));
    assert_eq!(raw(Some("multipart/form-data; boundary=abc"), b"x"), (400, json!("Invalid multipart data.")));
    // A form without a file may come in the older encoding of forms.
    let older = Some("application/x-www-form-urlencoded");
    assert_eq!(raw(older, b"flow_name=main"), (422, json!([missing("workflow")])));
    assert_eq!(raw(older, b"flow_name=m+n&workflow=text"), (422, not_a_file));
    assert_eq!(raw(older, b""), both);
}

#[test]
fn every_refused_document_names_its_reason() {
    let cluster = Cluster::with_gateway();
    let table: &[(&[u8], &str)] = &[
        (b"\xff\xfe", "invalid_utf8"),
        (b"a: [", "invalid_yaml"),
        (b"a: 1\n---\nb: 2", "invalid_yaml"),
        (b"x: !!python/object:os.system 1", "invalid_yaml"),
        (b"", "invalid_yaml_root"),
        (b"[1]", "invalid_yaml_root"),
        (b"flows: {}\nflow: {graph: a}", "unsupported_key_flows"),
        (b"discovery: {}", "unsupported_key_discovery"),
        (b"zz: 1\nyy: 2\nflow: {graph: a}", "unknown_top_level_keys: ['yy', 'zz']"),
        (b"version: 1", "missing_flow"),
        (b"flow: 3", "invalid_flow"),
        (b"flow: {graph: a, x: 1}", "unknown_flow_keys: ['x']"),
        (b"flow: {}", "missing_flow_graph"),
        (b"flow: {graph: \"\"}", "missing_flow_graph"),
        (b"flow: {graph: 3}", "missing_flow_graph"),
        (b"flow: {graph: a, defaults: 3}", "invalid_flow_defaults"),
        (b"flow: {graph: a}\ntasks: 3", "invalid_tasks"),
        (b"flow: {graph: a}\ntasks: {3: {}}", "invalid_task_name"),
        (b"flow: {graph: a}\ntasks: {\"\": {}}", "invalid_task_name"),
        (b"flow: {graph: a}\ntasks: {a: 3}", "invalid_task_config: a"),
        (b"flow: {graph: a}\ntasks: {a: {x: 1, b: 3}}", "unknown_task_keys: a: ['b', 'x']"),
        (b"flow: {graph: a}\ntasks: {a: {callable: 3}}", "invalid_task_callable: a"),
        (b"flow: {graph: a}\ntasks: {a: {callable: nocolon}}", "invalid_task_callable: a"),
        (b"flow: {graph: a}\ntasks: {a: {inputs: 3}}", "invalid_task_inputs: a"),
        (b"flow: {graph: a}\ntasks: {a: {outputs: 3}}", "invalid_task_outputs: a"),
        (b"flow: {graph: a}\ntasks: {a: {outputs: [3]}}", "invalid_task_outputs: a"),
        (b"flow: {graph: a}\nruntime: 3", "invalid_runtime"),
        (b"flow: {graph: a}\nruntime: {x: 1}", "unknown_runtime_keys: ['x']"),
        (b"flow: {graph: a}\nruntime: {expose_env: 3}", "invalid_runtime_expose_env"),
        (b"flow: {graph: a}\nruntime: {expose_env: [3]}", "invalid_runtime_expose_env"),
        (b"version: x\nflow: {graph: a}", "invalid_version"),
        (b"version: null\nflow: {graph: a}", "invalid_version"),
    ];
    for (yaml, reason) in table {
        let answer =
            cluster.post_form("/runs/yaml", &[("workflow", FILE, yaml), ("flow_name", None, b"main")]);
        let what = String::from_utf8_lossy(yaml);
        assert_eq!(detail(&answer), (422, json!("invalid workflow yaml")), "{what}");
        let body = answer.json();
        assert_eq!(body["reason"], *reason, "{what}: {body}");
        assert_eq!(body["err_id"], "ERR-PYOCO-0002");
    }
    assert_eq!(cluster.get("/runs").json(), json!([]), "a refused document has left something");
}

#[test]
fn documents_that_the_python_gateway_takes_are_taken() {
    let cluster = Cluster::with_gateway();
    let table: &[&[u8]] = &[
        b"version: 2\nflow: {graph: a}",
        b"version: true\nflow: {graph: a}",
        b"flow: {graph: a}\ntasks: {}",
        b"flow: {graph: \"a >> \"}",
        b"flow: {graph: a, defaults: null}\ntasks: null",
        b"flow: {graph: a, defaults: {1: 2}}",
        b"flow: {graph: a}\ntasks: {a: {}}",
        // Those that it answers with 500 or a closed connection.
        b"flow: {graph: a, defaults: {x: 2020-01-01}}",
        b"flow: {graph: a}\nflow: {graph: b}",
        b"flow: {graph: a, defaults: {b: !!binary aGk=, s: !!set {a}, n: .nan, i: .inf}}",
    ];
    for yaml in table {
        let answer =
            cluster.post_form("/runs/yaml", &[("workflow", FILE, yaml), ("flow_name", None, b"main")]);
        assert_eq!(answer.status, 200, "{}: {}", String::from_utf8_lossy(yaml), answer.text());
    }
    assert_eq!(cluster.get("/runs").json().as_array().unwrap().len(), table.len());
}

#[test]
fn a_form_of_another_page_is_refused_before_anything_is_done() {
    let cluster = Cluster::new().gateway().flags(&["--behind-proxy"]).start();
    let host = cluster.address.to_string();
    let (content_type, body) = form(&[("workflow", FILE, FLOW), ("flow_name", None, b"main")]);
    let wheel = form(&[("wheel", Some("a-1.0-py3-none-any.whl"), b"PK")]);
    let send = |path: &str, more: &[(&str, &str)]| {
        let (content_type, body) =
            if path == "/wheels" { (&wheel.0, &wheel.1) } else { (&content_type, &body) };
        let headers = [&[("Content-Type", content_type.as_str())], more].concat();
        cluster.request("POST", path, &headers, body)
    };
    let ours = format!("http://{host}");
    for path in ["/runs/yaml", "/wheels"] {
        for headers in [
            [("Origin", "https://evil.example")].as_slice(),
            &[("Origin", "null")],
            &[("Origin", ours.as_str()), ("Sec-Fetch-Site", "cross-site")],
            &[("Origin", "http://127.0.0.1:1"), ("Sec-Fetch-Site", "same-site")],
        ] {
            let answer = send(path, headers);
            let refused = (403, json!("forms of other pages are not taken"));
            assert_eq!(detail(&answer), refused, "{path} {headers:?}");
        }
        // The gateway's own page, also behind a trusted proxy that calls the gateway by another name.
        for headers in [
            [("Origin", ours.as_str())].as_slice(),
            &[("Origin", ours.as_str()), ("Sec-Fetch-Site", "same-origin")],
            &[("Origin", "https://front"), ("X-Forwarded-Host", "front")],
            &[("Origin", "https://front"), ("Idempotency-Key", "k")],
        ] {
            let status = if path == "/wheels" { 422 } else { 200 };
            assert_eq!(send(path, headers).status, status, "{path} {headers:?}");
        }
    }
    let runs = cluster.get("/runs").json();
    assert_eq!(runs.as_array().unwrap().len(), 4, "{runs}");
}

#[test]
fn a_page_is_not_ours_because_a_stranger_says_so() {
    let cluster = Cluster::with_gateway();
    let (content_type, body) = form(&[("workflow", FILE, FLOW), ("flow_name", None, b"main")]);
    let headers =
        [("Content-Type", content_type.as_str()), ("Origin", "https://front"), ("X-Forwarded-Host", "front")];
    assert_eq!(cluster.request("POST", "/runs/yaml", &headers, &body).status, 403);
}

#[test]
fn a_document_with_more_tasks_than_a_message_holds_is_refused() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKFLOW_YAML_MAX_BYTES", "2000000")]);
    let document = |tasks: usize| {
        let tasks: String = (0..tasks).map(|task| format!("  t{task}: {{}}\n")).collect();
        format!("flow: {graph}\ntasks:\n{tasks}", graph = "{graph: t0}")
    };
    let answer = cluster.post_yaml("default", "main", &document(40_000));
    let (status, why) = detail(&answer);
    assert_eq!((status, why), (422, json!("invalid workflow yaml")), "{}", answer.text());
    assert!(answer.text().contains("too_many_tasks: the names of 40000 tasks"), "{}", answer.text());
    accepted(&cluster.post_yaml("default", "main", &document(5_000)));
}
