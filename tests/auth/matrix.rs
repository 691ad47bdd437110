//! Every route × every kind of caller, out of the router's own table.

use std::net::SocketAddr;

use pyoco_server::gateway::api::route::{Access, BodyKind, Lasts, ROUTES, Route};
use pyoco_server::model::key::{Permission, Role};
use pyoco_server::model::worker::WorkerRecord;
use serde_json::{Value, json};

use crate::submit;
use crate::support::cluster::Cluster;
use crate::support::forms::form;
use crate::support::http::{Connection, Response};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::WheelFile;

/// Sends what a route takes, and reads the answer; of a stream only its head.
fn call(address: SocketAddr, route: &Route, id: &str, key: Option<&str>) -> Response {
    let path = route.path.replace("{}", id);
    let (content_type, body) = match (route.body, route.path) {
        (BodyKind::WorkflowForm, _) => {
            form(&[("workflow", Some("f"), b"flow: {graph: a}"), ("flow_name", None, b"m")])
        }
        (BodyKind::WheelForm, _) => form(&[("wheel", Some(&passing().file_name()), &passing().build())]),
        (BodyKind::Json, "/runs") => {
            ("application/json".into(), br#"{"flow_name":"m","params":{}}"#.to_vec())
        }
        (BodyKind::Json, "/workers/{}") => ("application/json".into(), br#"{"hidden":false}"#.to_vec()),
        (BodyKind::Json, _) => ("application/json".into(), b"{}".to_vec()),
    };
    let body = if route.method == "GET" { Vec::new() } else { body };
    let mut head = format!("{} {path} HTTP/1.1\r\nHost: x\r\n", route.method);
    if route.method != "GET" {
        head += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    }
    if let Some(key) = key {
        head += &format!("X-API-Key: {key}\r\n");
    }
    let mut connection = Connection::open(address);
    connection.send(&[head.as_bytes(), b"\r\n", &body].concat()).unwrap();
    if route.lasts != Lasts::Watch {
        return connection.receive().unwrap();
    }
    let head = connection.take_until(b"\r\n\r\n").unwrap();
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|l| l.lines().next()?.parse().ok());
    let body = length.map_or_else(Vec::new, |length| connection.take(length).unwrap());
    Response { status, headers: Vec::new(), body }
}

fn verdict(answer: &Response) -> (u16, Value) {
    let detail = match answer.status {
        200 => Value::Null,
        _ => answer.json()["detail"].clone(),
    };
    (answer.status, detail)
}

fn needs(route: &Route) -> Option<Permission> {
    match route.access {
        Access::Public => None,
        Access::Protected(needs) => Some(needs),
    }
}

/// The wheel that is always there.
fn kept() -> WheelFile {
    WheelFile::new("kept", "1.0")
}

/// The wheel that comes and goes.
fn passing() -> WheelFile {
    WheelFile::new("passing", "1.0")
}

/// The id that a route wants, of something that is there.
fn id(route: &Route, run_id: &str) -> String {
    match (route.method, route.path) {
        (_, "/workers/{}") => "w1".to_owned(),
        ("GET", "/wheels/{}") => kept().file_name(),
        (_, "/wheels/{}") => passing().file_name(),
        _ => run_id.to_owned(),
    }
}

/// Uploads the wheel that is always there.
fn keep(cluster: &Cluster, key: &str) {
    let answer = cluster.as_key(key).upload(&kept(), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Whether `call` sends what the route takes.
fn is_known(route: &Route) -> bool {
    let known = ["/runs", "/workers", "/wheels", "/events", "/metrics"];
    known.iter().any(|path| route.path.starts_with(path))
}

#[test]
fn every_route_asks_for_a_key_and_says_what_is_wrong_with_it() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let owner = cluster.key_text("t", "operator");
    let run_id = submit(&cluster.as_key(&owner));
    keep(&cluster, &owner);
    let expiring = cluster.admin().key(&["create", "--tenant", "t", "--role", "admin", "--expires-in", "1s"]);
    let revoked = cluster.key("t", "admin");
    cluster.admin().revoke(&revoked);
    let (expired, revoked) = (expiring.text(), revoked.text());
    cluster.as_key(&revoked).wait_answer("/runs", 403);
    cluster.as_key(&expired).wait_answer("/runs", 403);

    let wrong = format!("{}x", &owner[..owner.len() - 1]);
    let unknown = format!("pyoco_{}.{}", "0".repeat(24), "s".repeat(43));
    let long = format!("pyoco_{}.{}", "0".repeat(24), "s".repeat(4_000));
    let mut seen = 0;
    for route in ROUTES {
        let id = id(route, &run_id);
        let of = |key: Option<&str>| verdict(&call(cluster.address, route, &id, key));
        let name = format!("{} {}", route.method, route.path);
        if needs(route).is_none() {
            for key in [None, Some("nonsense"), Some(&*revoked), Some(&*wrong)] {
                assert!(!matches!(of(key).0, 401 | 403), "{name} is for anybody");
            }
            continue;
        }
        seen += 1;
        assert_eq!(of(None), (401, json!("api key required")), "{name}");
        assert_eq!(of(Some("")), (401, json!("api key required")), "{name}");
        for key in ["nonsense", "pyoco_", "pyoco_x.y", &long, &unknown, &wrong, &revoked, &expired] {
            assert_eq!(of(Some(key)), (403, json!("invalid api key")), "{name}: {key}");
        }
    }
    assert!(seen > 9, "the table has lost its protected routes");
    // Nothing of all that has come through.
    let runs = cluster.as_key(&owner).get("/runs").json();
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs}");
    assert_eq!(runs[0]["status"], "PENDING", "{runs}");
    let wheels = cluster.as_key(&owner).get("/wheels").json();
    assert_eq!(wheels.as_array().unwrap().len(), 1, "{wheels}");
    assert_eq!(wheels[0]["name"], kept().file_name(), "{wheels}");
}

#[test]
fn each_role_may_what_the_table_says_and_no_more() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let mut record: WorkerRecord = serde_json::from_value(json!({"worker_id": "w1"})).unwrap();
    record.last_seen_at = Some(pyoco_server::model::clock::now());
    cluster.bus.workers().put("w1", &serde_json::to_vec(&record).unwrap()).unwrap();
    let keys = Role::ALL.map(|role| cluster.key_text("t", role.as_str()));
    let run_id = submit(&cluster.as_key(&keys[0]));
    keep(&cluster, &keys[0]);
    eventually(PATIENCE, "the worker in the list", || {
        let workers = cluster.as_key(&keys[0]).get("/workers").json();
        (workers[0]["worker_id"] == "w1").then_some(())
    });
    for (role, key) in Role::ALL.into_iter().zip(&keys) {
        for route in ROUTES {
            let answer = call(cluster.address, route, &id(route, &run_id), Some(key));
            let name = format!("{} {} as {}", route.method, route.path, role.as_str());
            match needs(route).filter(|needs| !role.may(*needs)) {
                // A route that this test does not know the shape of may find fault with it.
                None if is_known(route) => {
                    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                }
                None => assert!(
                    answer.status < 500 && !matches!(answer.status, 401 | 403 | 429),
                    "{name}: {}",
                    answer.text()
                ),
                Some(needs) => {
                    let told = format!("role {} may not {}", role.as_str(), needs.deed());
                    assert_eq!(verdict(&answer), (403, json!(told)), "{name}");
                    assert_eq!(answer.json()["role"], role.as_str(), "{name}");
                    let hint = answer.json()["hint"].as_str().unwrap().to_owned();
                    assert!(hint.contains("admin, operator"), "{name}: {hint}");
                }
            }
        }
    }
}

#[test]
fn a_run_of_another_tenant_is_not_there() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let mine = cluster.key_text("t", "operator");
    let run_id = submit(&cluster.as_key(&mine));
    let admin = cluster.key_text("other", "admin");
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/runs/{}")) {
        let name = format!("{} {}", route.method, route.path);
        let hidden = call(cluster.address, route, &run_id, Some(&admin));
        let absent = call(cluster.address, route, "7c4d1b92-1f0e-4a57-9a0e-000000000000", Some(&admin));
        assert_eq!(verdict(&hidden), (404, json!("run not found")), "{name}");
        assert_eq!(hidden.body, absent.body, "{name}: the same words");
    }
    let run = cluster.as_key(&mine).get(&format!("/runs/{run_id}")).json();
    assert_eq!((&run["status"], &run["tenant_id"]), (&json!("PENDING"), &json!("t")));
}

#[test]
fn the_header_has_another_name_if_it_is_told_so() {
    let cluster =
        Cluster::new().with_keys().gateway().envs(&[("PYOCO_HTTP_API_KEY_HEADER", "X-Team-Key")]).start();
    let made = cluster.admin().create("t", "viewer");
    let text = made.text();
    let with = |headers: &[(&str, &str)]| cluster.request("GET", "/runs", headers, b"").status;
    eventually(PATIENCE, "the key to be known", || (with(&[("x-team-key", &text)]) == 200).then_some(()));
    let other = [("X-API-Key", text.as_str())];
    let answer = cluster.request("GET", "/runs", &other, b"");
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("ApiKey")));
    assert_eq!(answer.json()["err_id"], "ERR-PYOCO-0014");
    assert_eq!(with(&[("X-Team-Key", &text), ("X-Team-Key", &text)]), 403, "which one counts?");
}
