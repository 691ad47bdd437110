//! What clients and generators send that a browser does not.

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::http::Connection;
use crate::support::wheel::WheelFile;

#[test]
fn head_is_answered_where_a_file_is() {
    let cluster = Cluster::with_gateway();
    let wheel = WheelFile::new("tools", "1.0");
    assert_eq!(cluster.upload(&wheel, "cpu").status, 200);
    let download = format!("/wheels/{}", wheel.file_name());
    for path in ["/", "/?lang=ja", "/static/main.js", download.as_str()] {
        let whole = cluster.get(path);
        let head = cluster.request("HEAD", path, &[], b"");
        assert_eq!((whole.status, head.status, head.body.len()), (200, 200, 0), "{path}");
        for name in ["content-length", "content-type", "etag", "content-disposition"] {
            assert_eq!(head.header(name), whole.header(name), "{path} {name}");
        }
    }
    assert_eq!(cluster.request("HEAD", "/static/nope.js", &[], b"").status, 404);
    for path in ["/runs", "/health", "/metrics", "/wheels", "/openapi.json"] {
        let answer = cluster.request("HEAD", path, &[], b"");
        assert_eq!(answer.status, 405, "{path}");
        assert!(!answer.header("allow").unwrap().contains("HEAD"), "{path}");
    }
    let other = cluster.request("POST", "/", &[], b"");
    assert_eq!((other.status, other.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn a_chunked_submit_is_a_run() {
    let cluster = Cluster::with_gateway();
    let mut connection = Connection::open(cluster.address);
    let head = "POST /runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    let body = json!({"flow_name": "main"}).to_string();
    let (first, second) = body.split_at(7);
    let chunks = format!("{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    connection.send(format!("{head}{chunks}").as_bytes()).unwrap();
    let answer = connection.receive().unwrap();
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("PENDING")));
}

#[test]
fn a_target_may_name_the_host_and_headers_may_hold_any_bytes() {
    let cluster = Cluster::with_gateway();
    let mut connection = Connection::open(cluster.address);
    let head = format!(
        "GET http://{}/runs?limit=1 HTTP/1.1\r\nHost: x\r\nX-Forwarded-User: 山田\r\n\r\n",
        cluster.address
    );
    connection.send(head.as_bytes()).unwrap();
    let answer = connection.receive().unwrap();
    assert_eq!((answer.status, answer.json()), (200, json!([])));
}

#[test]
fn one_condition_has_one_answer_wherever_it_is_noticed() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WORKFLOW_YAML_MAX_BYTES", "1000")]);
    // A form a little too large is seen by its handler, a much larger one by its length.
    let answers = [2_000, 200_000].map(|size| {
        let document = vec![b'#'; size];
        let parts: [(&str, Option<&str>, &[u8]); 2] =
            [("workflow", Some("f.yaml"), &document), ("flow_name", None, b"main")];
        let (content_type, body) = crate::support::forms::form(&parts);
        cluster.request("POST", "/runs/yaml", &[("Content-Type", &content_type)], &body)
    });
    assert_eq!(answers[0].status, 413);
    assert_eq!(answers[0].json(), answers[1].json());
    assert_eq!(answers[0].json()["err_id"], "ERR-PYOCO-0016");
}
