//! Queries of `GET /runs` are read as FastAPI reads them.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::runs::{completed, ids};

/// Three runs: `c` newest.
fn cluster() -> Cluster {
    let cluster = Cluster::with_gateway();
    cluster.put_run("a", 1_000.5, completed);
    cluster.put_run("b", 2_000.5, |run| {
        run.flow_name = "other".into();
        run.tag = "gpu".into();
        run.tags = vec!["x".into()];
    });
    cluster.put_run("c", 3_000.5, |run| run.workflow_yaml_sha256 = Some("abc".into()));
    cluster.wait_count(3);
    cluster
}

#[test]
fn every_query_selects_what_it_says() {
    let cluster = cluster();
    let all = ["c", "b", "a"];
    let table: &[(&str, &[&str])] = &[
        ("", &all),
        ("?limit=1", &["c"]),
        ("?limit=1.0", &["c"]),
        ("?limit=%202", &["c", "b"]),
        ("?limit=+2", &["c", "b"]),
        ("?limit=%2B2", &["c", "b"]),
        ("?limit=3&limit=2", &["c", "b"]),
        ("?limit=200", &all),
        ("?status=PENDING", &["c", "b"]),
        ("?status=COMPLETED", &["a"]),
        ("?status=pending", &[]),
        ("?status=BAD", &[]),
        ("?status=", &all),
        ("?flow=main", &["c", "a"]),
        ("?flow=", &all),
        ("?tag=gpu", &["b"]),
        ("?tag=x", &[]),
        ("?tag=a.b", &[]),
        ("?tag=gpu&flow=main", &[]),
        ("?status=PENDING&flow=main", &["c"]),
        ("?workflow_yaml_sha256=", &all),
        ("?zzz=1", &all),
        ("?include=bad", &all),
        ("?include=", &all),
        ("?include=full&tag=gpu", &["b"]),
    ];
    for (query, expected) in table {
        let answer = cluster.get(&format!("/runs{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let answer = answer.json();
        assert!(answer.is_array(), "{query}: {answer}");
        assert_eq!(ids(&answer), *expected, "{query}");
    }
}

#[test]
fn three_parameters_ask_for_a_page() {
    let cluster = cluster();
    let all = ["c", "b", "a"];
    let table: &[(&str, &[&str])] = &[
        ("cursor=", &all),
        ("updated_after=-1", &all),
        ("updated_after=1000.5", &["c", "b"]),
        ("updated_after=+1.5e3", &["c", "b"]),
        ("updated_after=2999.9&flow=other", &[]),
        ("updated_after=inf", &[]),
        ("updated_after=nan", &[]),
        ("updated_after=-inf", &all),
        ("workflow_yaml_sha256=abc", &["c"]),
        ("workflow_yaml_sha256=zzz", &[]),
        ("cursor=&status=COMPLETED", &["a"]),
    ];
    for (query, expected) in table {
        let answer = cluster.get(&format!("/runs?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(ids(&answer), *expected, "{query}");
        assert_eq!(answer["next_cursor"], Value::Null, "{query}");
    }
}

#[test]
fn every_bad_query_is_422_with_its_words() {
    let cluster = cluster();
    let integer = "Input should be a valid integer, unable to parse string as an integer";
    let number = "Input should be a valid number, unable to parse string as a number";
    let low = "Input should be greater than or equal to 1";
    let high = "Input should be less than or equal to 200";
    for (query, kind, msg, input, ctx) in [
        ("limit=0", "greater_than_equal", low, "0", json!({"ge": 1})),
        ("limit=-5", "greater_than_equal", low, "-5", json!({"ge": 1})),
        ("limit=201", "less_than_equal", high, "201", json!({"le": 200})),
        ("limit=99999999999999999999", "less_than_equal", high, "99999999999999999999", json!({"le": 200})),
        ("limit=abc", "int_parsing", integer, "abc", Value::Null),
        ("limit=1.5", "int_parsing", integer, "1.5", Value::Null),
        ("limit=", "int_parsing", integer, "", Value::Null),
        ("limit=1&limit=x", "int_parsing", integer, "x", Value::Null),
        ("updated_after=abc", "float_parsing", number, "abc", Value::Null),
        ("updated_after=", "float_parsing", number, "", Value::Null),
    ] {
        let answer = cluster.get(&format!("/runs?{query}"));
        assert_eq!(answer.status, 422, "{query}: {}", answer.text());
        let answer = answer.json();
        let problem = &answer["detail"][0];
        let name = query.split('=').next().unwrap();
        assert_eq!(problem["type"], kind, "{query}");
        assert_eq!(problem["loc"], json!(["query", name]), "{query}");
        assert_eq!(problem["msg"], msg, "{query}");
        assert_eq!(problem["input"], input, "{query}");
        assert_eq!(problem.get("ctx").cloned().unwrap_or_default(), ctx, "{query}");
        assert_eq!(answer["err_id"], "ERR-PYOCO-0002");
    }
    let answer = cluster.get("/runs?limit=0&updated_after=x").json();
    assert_eq!(answer["detail"].as_array().unwrap().len(), 2, "both are named: {answer}");
}

#[test]
fn every_bad_cursor_is_422() {
    let cluster = cluster();
    let long = "A".repeat(5000);
    // Not base64url, not JSON, JSON of other shapes, a number out of range, too long.
    for cursor in
        ["zzz", "!!", "e30", "bnVsbA", "W10", "eyJ1IjoiYSIsInIiOiJiIn0", "eyJ1IjoxZTk5OSwiciI6ImIifQ", &long]
    {
        let answer = cluster.get(&format!("/runs?cursor={cursor}"));
        assert_eq!(answer.status, 422, "{cursor}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["detail"], "invalid list query", "{cursor}");
        assert_eq!(answer["err_id"], "ERR-PYOCO-0017");
        assert!(answer["reason"].as_str().unwrap().starts_with("cursor: "), "{answer}");
    }
}

#[test]
fn full_lists_hold_records_and_plain_ones_do_not() {
    let cluster = cluster();
    cluster.put_run("d", 4_000.5, |run| {
        run.task_records.insert("t".into(), json!({"state": "RUNNING"}));
    });
    cluster.wait_count(4);
    for include in ["full", "all"] {
        let list = cluster.get(&format!("/runs?include={include}&limit=1")).json();
        assert_eq!(list[0]["task_records"]["t"]["state"], "RUNNING");
        assert_eq!(list[0]["params"], json!({}));
        let page = cluster.get(&format!("/runs?include={include}&limit=1&cursor=")).json();
        assert_eq!(page["items"][0]["task_records"]["t"]["state"], "RUNNING");
        assert!(page["next_cursor"].is_string());
    }
    let list = cluster.get("/runs?limit=1").json();
    assert!(list[0].get("task_records").is_none() && list[0].get("params").is_none());
}

#[test]
fn what_tasks_print_is_shown_with_their_records_only() {
    let cluster = Cluster::with_gateway();
    cluster.put_run("r", 1_000.5, |run| {
        run.task_logs_truncated = true;
        run.task_records.insert("t".into(), json!({"state": "RUNNING", "logs": {"stdout": "hi"}}));
    });
    cluster.put_run("s", 2_000.5, completed);
    cluster.wait_count(2);
    let plain = cluster.get("/runs/r").json();
    assert!(plain.get("task_records").is_none() && plain.get("task_logs_truncated").is_none());
    for path in ["/runs/r?include=records", "/runs/r/tasks"] {
        let shown = cluster.get(path).json();
        assert_eq!(shown["task_records"]["t"]["logs"]["stdout"], "hi", "{path}");
        assert_eq!(shown["task_logs_truncated"], true, "{path}");
        let other = cluster.get(&path.replace("runs/r", "runs/s")).json();
        assert!(other.is_object() && other.get("task_logs_truncated").is_none(), "{other}");
    }
}
