//! `POST /runs` reads bodies as FastAPI does: every malformed one gets its status and its words.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http;
use crate::support::nats::NatsOptions;
use crate::support::runs::{accepted, ids};

const JSON: Option<&str> = Some("application/json");
const OBJECT: &str = "Input should be a valid dictionary or object to extract fields from";
const TAG: &str = "String should match pattern '^[A-Za-z0-9_-]+$'";

fn post(cluster: &Cluster, content_type: Option<&str>, body: &[u8]) -> http::Response {
    let headers: Vec<_> = content_type.map(|value| ("Content-Type", value)).into_iter().collect();
    cluster.request("POST", "/runs", &headers, body)
}

/// `type`, `loc` and `msg` of each problem.
fn problems(answer: &http::Response) -> Value {
    let answer = answer.json();
    assert_eq!((&answer["err_id"], &answer["msg_id"]), (&json!("ERR-PYOCO-0002"), &json!("MSG-PYOCO-0002")));
    assert!(answer["hint"].is_string());
    let list = answer["detail"].as_array().unwrap_or_else(|| panic!("{answer}"));
    list.iter().map(|p| json!([p["type"], p["loc"], p["msg"]])).collect()
}

fn at(kind: &str, field: &str, msg: &str) -> Value {
    json!([kind, ["body", field], msg])
}

#[test]
fn every_malformed_body_is_told_what_is_wrong_with_it() {
    let cluster = Cluster::with_gateway();
    let text = "Input should be a valid string";
    let table: &[(&str, Option<&str>, &[u8], Value)] = &[
        ("no body", None, b"", json!([["missing", ["body"], "Field required"]])),
        ("empty body", JSON, b"", json!([["missing", ["body"], "Field required"]])),
        ("null", JSON, b"null", json!([["model_attributes_type", ["body"], OBJECT]])),
        ("a list", JSON, b"[1]", json!([["model_attributes_type", ["body"], OBJECT]])),
        ("a string", JSON, b"\"x\"", json!([["model_attributes_type", ["body"], OBJECT]])),
        (
            "plain text",
            Some("text/plain"),
            b"{\"flow_name\":\"m\"}",
            json!([["model_attributes_type", ["body"], OBJECT]]),
        ),
        (
            "no content type",
            None,
            b"{\"flow_name\":\"m\"}",
            json!([["model_attributes_type", ["body"], OBJECT]]),
        ),
        ("no flow_name", JSON, b"{}", json!([at("missing", "flow_name", "Field required")])),
        (
            "empty flow_name",
            JSON,
            b"{\"flow_name\":\"\"}",
            json!([at("string_too_short", "flow_name", "String should have at least 1 character")]),
        ),
        (
            "all of another type",
            JSON,
            br#"{"flow_name":5,"params":[],"tag":7,"tags":"x"}"#,
            json!([
                at("string_type", "flow_name", text),
                at("dict_type", "params", "Input should be a valid dictionary"),
                at("string_type", "tag", text),
                at("list_type", "tags", "Input should be a valid list"),
            ]),
        ),
        (
            "nulls",
            JSON,
            br#"{"flow_name":null,"params":null,"tag":null,"tags":null}"#,
            json!([
                at("string_type", "flow_name", text),
                at("dict_type", "params", "Input should be a valid dictionary"),
                at("list_type", "tags", "Input should be a valid list"),
            ]),
        ),
        (
            "tags that are no strings",
            JSON,
            br#"{"flow_name":"m","tags":[1,"b",null]}"#,
            json!([["string_type", ["body", "tags", 0], text], ["string_type", ["body", "tags", 2], text],]),
        ),
        (
            "a tag with a dot",
            JSON,
            br#"{"flow_name":"m","tag":"a.b"}"#,
            json!([at("string_pattern_mismatch", "tag", TAG)]),
        ),
        (
            "an empty tag",
            JSON,
            br#"{"flow_name":"m","tag":""}"#,
            json!([at("string_pattern_mismatch", "tag", TAG)]),
        ),
        (
            "a wildcard as tag",
            JSON,
            br#"{"flow_name":"m","tag":">"}"#,
            json!([at("string_pattern_mismatch", "tag", TAG)]),
        ),
        (
            "a tag with spaces",
            JSON,
            br#"{"flow_name":"m","tag":" a "}"#,
            json!([at("string_pattern_mismatch", "tag", TAG)]),
        ),
        (
            "a tag with a line feed",
            JSON,
            br#"{"flow_name":"m","tag":"a\n"}"#,
            json!([at("string_pattern_mismatch", "tag", TAG)]),
        ),
    ];
    for (what, content_type, body, expected) in table {
        let answer = post(&cluster, *content_type, body);
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        assert_eq!(&problems(&answer), expected, "{what}");
    }
    assert_eq!(cluster.get("/runs").json(), json!([]), "a refused submit has left something");
}

#[test]
fn the_place_and_the_reason_of_bad_json_are_those_of_python() {
    let cluster = Cluster::with_gateway();
    for (body, place, reason) in [
        ("{bad", 1, "Expecting property name enclosed in double quotes"),
        (r#"{"flow_name":"main"} x"#, 21, "Extra data"),
        (r#"{"é": 1} x"#, 9, "Extra data"),
        ("x", 0, "Expecting value"),
        (r#"{"a" 1}"#, 5, "Expecting ':' delimiter"),
        (r#"{"a":}"#, 5, "Expecting value"),
        (r#"{"a":1 "b":2}"#, 7, "Expecting ',' delimiter"),
        ("[1,2", 4, "Expecting ',' delimiter"),
        (r#"{"a":"b"#, 5, "Unterminated string starting at"),
        ("{\"a\":\"b\nc\"}", 7, "Invalid control character at"),
        (r#"{"a":"\x"}"#, 6, r"Invalid \escape"),
        (r#"{"a":"\u12"}"#, 7, r"Invalid \uXXXX escape"),
        ("nul", 0, "Expecting value"),
        ("  ", 2, "Expecting value"),
        ("-", 0, "Expecting value"),
    ] {
        let answer = post(&cluster, JSON, body.as_bytes());
        assert_eq!(answer.status, 422, "{body}: {}", answer.text());
        let problem = &answer.json()["detail"][0];
        assert_eq!(problem["type"], "json_invalid", "{body}");
        assert_eq!(problem["msg"], "JSON decode error", "{body}");
        assert_eq!(problem["loc"], json!(["body", place]), "{body}: {problem}");
        assert_eq!(problem["ctx"]["error"], reason, "{body}: {problem}");
        assert_eq!(problem["input"], json!({}), "{body}");
    }
}

#[test]
fn a_body_that_is_not_utf8_is_400_and_one_that_is_too_large_413() {
    let cluster = Cluster::with_gateway();
    let answer = post(&cluster, JSON, b"{\"flow_name\":\"\xff\"}");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["detail"], "There was an error parsing the body");
    let large = format!("{{\"flow_name\":\"m\",\"params\":{{\"x\":\"{}\"}}}}", "x".repeat(1_100_000));
    let answer = post(&cluster, JSON, large.as_bytes());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.json()["detail"], "request body too large");
    let names = vec!["x"; 65];
    let answer = cluster.post("/runs", &json!({"flow_name": "m", "tags": names}));
    assert_eq!((answer.status, &problems(&answer)[0][0]), (422, &json!("too_long")));
    let answer = cluster.post("/runs", &json!({"flow_name": "m".repeat(513)}));
    assert_eq!((answer.status, &problems(&answer)[0][0]), (422, &json!("string_too_long")));
}

#[test]
fn what_fastapi_takes_is_taken() {
    let cluster = Cluster::with_gateway();
    for content_type in ["application/json; charset=utf-8", "application/x+json", "APPLICATION/JSON"] {
        let answer = post(&cluster, Some(content_type), b" {\"flow_name\":\"m\", \"zzz\": 1}\r\n");
        assert_eq!(answer.status, 200, "{content_type}: {}", answer.text());
    }
    let run = |body: &[u8]| {
        let answer = post(&cluster, JSON, body);
        let run_id = accepted(&answer);
        cluster.get(&format!("/runs/{run_id}")).json()
    };
    // Free labels are free; only the routing tag is a subject token.
    let shown = run(br#"{"flow_name":"m","tag":"gpu","tags":["a.b",""," c "]}"#);
    assert_eq!((&shown["tag"], &shown["tags"]), (&json!("gpu"), &json!(["a.b", "", " c "])));
    let shown = run(br#"{"flow_name":"m","tag":null}"#);
    assert_eq!((&shown["tag"], &shown["tags"]), (&json!("default"), &json!(["default"])));
    // Python's JSON has more numbers than JSON; they are shown as null.
    let shown = run(br#"{"flow_name":"m","params":{"x":NaN,"y":[-Infinity,1e3],"z":1.0}}"#);
    assert_eq!(shown["params"], json!({"x": null, "y": [null, 1000.0], "z": 1.0}));
    assert_eq!(run(br#"{"flow_name":"m","flow_name":"n"}"#)["flow_name"], "n");
}

#[test]
fn a_document_too_large_for_nats_is_413_and_leaves_nothing() {
    let options = NatsOptions { max_payload: Some(65_536), ..Default::default() };
    let cluster = Cluster::new().nats(options).gateway().start();
    let body = json!({"flow_name": "m", "params": {"x": "x".repeat(70_000)}});
    let answer = cluster.post("/runs", &body);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(cluster.get("/runs").json(), json!([]));
    // Escaping makes characters longer on the wire than they are in the request.
    let body = json!({"flow_name": "m", "params": {"x": "é".repeat(20_000)}});
    let answer = cluster.post("/runs", &body);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(cluster.get("/runs").json(), json!([]));
}

#[test]
fn what_leaves_a_worker_no_room_to_end_the_run_is_413() {
    let cluster = Cluster::with_gateway();
    let with_params = |bytes: usize| {
        cluster.post("/runs", &json!({"flow_name": "main", "params": {"x": "x".repeat(bytes)}}))
    };
    assert_eq!(with_params(800_000).status, 200);
    let refused = with_params(930_000);
    assert_eq!(refused.status, 413, "{}", refused.text());
    assert_eq!(refused.json()["detail"], "request body too large");
    assert_eq!(ids(&cluster.get("/runs").json()).len(), 1);
    // Escaped for the wire, a character of three bytes takes six.
    let refused = cluster.post("/runs", &json!({"flow_name": "main", "params": {"x": "語".repeat(160_000)}}));
    assert_eq!(refused.status, 413, "{}", refused.text());
}
