//! Paths, methods and headers: 307, 404, 405, problem+json, X-Request-ID.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::runs::main_flow;

#[test]
fn a_trailing_slash_is_redirected_with_its_query() {
    let cluster = Cluster::with_gateway();
    let address = cluster.address;
    for (method, path, target) in [
        ("GET", "/runs/", "/runs"),
        ("GET", "/runs/?limit=3&x=a%20b", "/runs?limit=3&x=a%20b"),
        ("GET", "/runs/nope/", "/runs/nope"),
        ("GET", "/runs/a%20b/tasks/", "/runs/a%20b/tasks"),
        ("POST", "/runs/", "/runs"),
        ("DELETE", "/health/", "/health"),
    ] {
        let answer = http::request(address, method, path, &[], b"");
        assert_eq!(answer.status, 307, "{method} {path}: {}", answer.text());
        // Relative: behind TLS the gateway does not know how its client reaches it.
        assert_eq!(answer.header("location"), Some(target), "{method} {path}");
        assert_eq!(answer.body, b"");
    }
}

#[test]
fn unknown_paths_are_404_and_known_ones_name_their_methods() {
    let cluster = Cluster::with_gateway();
    for path in ["/nope", "/static", "//", "/runs/a/b", "//runs", "/runs//tasks", "/nope/", "/RUNS"] {
        let answer = cluster.get(path);
        assert_eq!((answer.status, answer.json()), (404, json!({"detail": "Not Found"})), "{path}");
    }
    for (method, path, allow) in [
        ("DELETE", "/runs", "GET, POST"),
        ("PUT", "/runs/r", "GET"),
        ("GET", "/runs/r/cancel", "POST"),
        ("POST", "/runs/r/tasks", "GET"),
        ("POST", "/health", "GET"),
        ("PATCH", "/readyz", "GET"),
        // The id `yaml` is a path of its own for one method only.
        ("DELETE", "/runs/yaml", "POST, GET"),
    ] {
        let answer = cluster.request(method, path, &[], b"");
        let shown = (answer.status, answer.json());
        assert_eq!(shown, (405, json!({"detail": "Method Not Allowed"})), "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    assert_eq!(cluster.get("/runs/yaml").json()["detail"], "run not found");
}

#[test]
fn problem_json_is_given_to_those_who_ask_for_it() {
    let cluster = Cluster::with_gateway();
    let ask = |method: &str, path: &str, body: &[u8]| -> (u16, Value) {
        let headers = [("Accept", "application/problem+json, */*"), ("Content-Type", "application/json")];
        let answer = cluster.request(method, path, &headers, body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        (answer.status, answer.json())
    };
    let (status, body) = ask("GET", "/runs/nope", b"");
    assert_eq!((status, &body["status"], &body["title"]), (404, &json!(404), &json!("Not Found")));
    assert_eq!((&body["type"], &body["detail"]), (&json!("about:blank"), &json!("run not found")));
    assert_eq!(body["err_id"], "ERR-PYOCO-0005");
    let (status, body) = ask("POST", "/runs", b"{}");
    assert_eq!((status, &body["title"]), (422, &json!("Unprocessable Content")));
    assert!(body["detail"].is_string(), "RFC 9457 wants a text: {body}");
    assert_eq!(body["errors"][0]["loc"], json!(["body", "flow_name"]));
    let (status, body) = ask("DELETE", "/runs", b"");
    assert_eq!((status, &body["title"]), (405, &json!("Method Not Allowed")));
    // Everybody else gets FastAPI's shape.
    for accept in ["*/*", "application/json", ""] {
        let answer = cluster.request("GET", "/runs/nope", &[("Accept", accept)], b"");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{accept}");
        assert!(answer.json().get("title").is_none(), "{accept}");
    }
    // A good answer is what it is.
    let headers = [("Accept", "application/problem+json")];
    let answer = cluster.request("GET", "/runs", &headers, b"");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn every_answer_has_a_request_id_and_takes_over_the_clients() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_LOG_LEVEL", "debug")]);
    let ask = |path: &str, id: &str| cluster.request("GET", path, &[("X-Request-ID", id)], b"");
    for path in ["/health", "/runs", "/runs/nope", "/nope", "/runs/", "/runs?limit=0"] {
        assert_eq!(ask(path, "trace-7.a").header("x-request-id"), Some("trace-7.a"), "{path}");
        let made = cluster.get(path);
        let made = made.header("x-request-id").expect(path);
        assert!(made.len() >= 16 && made != cluster.get(path).header("x-request-id").unwrap(), "{made}");
        assert_eq!(cluster.get(path).header("x-content-type-options"), Some("nosniff"));
    }
    for odd in ["a b", &"x".repeat(200), "\"", "a;b{}"] {
        let answer = ask("/health", odd);
        assert_eq!(answer.status, 200);
        let echoed = answer.header("x-request-id").unwrap_or_default().to_owned();
        let tame = echoed.len() <= 128 && echoed.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        assert!(tame && !echoed.is_empty(), "{odd:?} came back as {echoed:?}");
    }
    let process = &mut cluster.gateways[0].process;
    process.wait_for_line(crate::support::wait::PATIENCE, "the request id", |line| {
        line.contains("\"request_id\":\"trace-7.a\"") && line.contains("/runs/nope")
    });
}

#[test]
fn head_and_keep_alive_work_as_http_says() {
    let cluster = Cluster::with_gateway();
    cluster.submit(&main_flow());
    let mut connection = http::Connection::open(cluster.address);
    for n in 0..50 {
        let path = ["/health", "/runs", "/nope", "/runs?limit=0"][n % 4];
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.send(request.as_bytes()).unwrap();
        let answer = connection.receive().unwrap();
        assert_eq!(answer.status, [200, 200, 404, 422][n % 4]);
        answer.json();
    }
}
