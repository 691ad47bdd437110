//! Snapshots of other writers: Python's numbers, unknown fields, missing fields, garbage.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::runs::{ids, main_flow};
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn what_python_writes_is_read_shown_and_kept() {
    let cluster = Cluster::with_gateway();
    cluster.put(
        "py",
        br#"{"run_id": "py", "flow_name": "main", "tag": "default", "tags": ["default"],
            "status": "RUNNING", "params": {"x": NaN, "y": [Infinity, -Infinity], "s": "\ud83d\ude00 \ud800"},
            "tasks": {"t": "RUNNING"}, "task_records": {"t": {"state": "RUNNING", "output": NaN, "later": 1}},
            "start_time": 1.5, "heartbeat_at": 2.5, "updated_at": 2.5, "error": null, "worker_id": "w",
            "brand_new": {"a": [1, {"b": null}]}}"#,
    );
    let shown = cluster.wait_status("py", "RUNNING");
    let params = json!({"x": null, "y": [null, null], "s": "\u{1f600} \u{fffd}"});
    assert_eq!(shown["params"], params);
    assert_eq!(shown["brand_new"], json!({"a": [1, {"b": null}]}));
    // The list hears of it from the watch, maybe a moment later.
    cluster.wait_count(1);
    assert_eq!(ids(&cluster.get("/runs").json()), ["py"]);
    let full = cluster.get("/runs?include=full").json();
    assert_eq!(full[0]["params"], params);
    let tasks = cluster.get("/runs/py/tasks").json();
    assert_eq!(tasks["task_records"]["t"], json!({"state": "RUNNING", "output": null, "later": 1}));

    let cancelled = cluster.post_nothing("/runs/py/cancel");
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    let (snapshot, _) = cluster.snapshot("py");
    assert_eq!(snapshot.extra["brand_new"], json!({"a": [1, {"b": null}]}));
    assert_eq!(snapshot.task_records["t"]["later"], 1);
    let stored = cluster.newest("py").unwrap().value;
    let text = String::from_utf8(stored).unwrap();
    assert!(!text.contains("NaN") && !text.contains("Infinity"), "we never write them: {text}");
}

#[test]
fn a_snapshot_with_nothing_but_a_status_is_a_run() {
    let cluster = Cluster::with_gateway();
    cluster.put("bare", br#"{"run_id":"bare","status":"PENDING"}"#);
    let shown = cluster.wait_status("bare", "PENDING");
    assert_eq!(shown["run_id"], "bare");
    // The run itself is read from the bucket; the list hears of it from the watch.
    let listed = || cluster.get("/runs").json().as_array().unwrap().first().cloned();
    let row = eventually(PATIENCE, "it is listed", listed);
    assert_eq!((&row["updated_at"], &row["tags"], &row["error"]), (&Value::Null, &json!([]), &Value::Null));
    let tasks = cluster.get("/runs/bare/tasks").json();
    assert_eq!((&tasks["tasks"], &tasks["task_records"]), (&json!({}), &json!({})));
    assert_eq!(cluster.post_nothing("/runs/bare/cancel").json()["status"], "CANCELLING");
    cluster.wait_status("bare", "CANCELLED");
}

#[test]
fn fields_that_are_null_are_like_fields_that_are_missing() {
    let cluster = Cluster::with_gateway();
    cluster.put(
        "nulls",
        br#"{"run_id":"nulls","flow_name":null,"tag":null,"tags":null,"status":"PENDING","params":null,
            "tasks":null,"task_records":null,"task_records_truncated":null,"updated_at":null,"delivery":null}"#,
    );
    cluster.wait_status("nulls", "PENDING");
    cluster.wait_count(1);
    assert_eq!(cluster.get("/runs/nulls/tasks").status, 200);
    let answer = cluster.post_nothing("/runs/nulls/cancel");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn garbage_spoils_nothing_but_itself() {
    let cluster = Cluster::with_gateway();
    let garbage: [(&str, &[u8]); 9] = [
        ("g0", b""),
        ("g1", b"\xff\xfe\x00"),
        ("g2", b"{"),
        ("g3", b"[1]"),
        ("g4", b"null"),
        ("g5", br#"{"run_id":"g5"}"#),
        ("g6", br#"{"run_id":"g6","status":"DANCING"}"#),
        ("g7", br#"{"run_id":7,"status":"PENDING"}"#),
        ("g8", br#"{"run_id":"g8","status":"PENDING","updated_at":"soon"}"#),
    ];
    for (key, document) in garbage {
        cluster.put(key, document);
    }
    cluster.put_run("good", 1.0, |_| {});
    cluster.wait_status("good", "PENDING");
    for (key, _) in garbage {
        for answer in [
            cluster.get(&format!("/runs/{key}")),
            cluster.get(&format!("/runs/{key}?include=full")),
            cluster.get(&format!("/runs/{key}/tasks")),
            cluster.post_nothing(&format!("/runs/{key}/cancel")),
        ] {
            assert!([200, 500].contains(&answer.status), "{key}: {} {}", answer.status, answer.text());
            if answer.status == 500 {
                assert_eq!(answer.json()["detail"], "Internal Server Error", "{key}");
            }
        }
    }
    for query in ["", "?include=full", "?cursor=", "?include=full&cursor=&limit=1"] {
        let list = cluster.get(&format!("/runs{query}"));
        assert_eq!(list.status, 200, "{query}: {}", list.text());
        assert!(ids(&list.json()).contains(&"good".to_owned()), "{query}");
    }
    // A writer that makes its document good again has its run back.
    cluster.put_run("g2", 2.0, |_| {});
    eventually(PATIENCE, "the repaired run", || {
        ids(&cluster.get("/runs").json()).contains(&"g2".to_owned()).then_some(())
    });
    // And one that spoils a good one loses only that.
    cluster.put("good", b"{");
    eventually(PATIENCE, "the spoilt run to go", || {
        (!ids(&cluster.get("/runs").json()).contains(&"good".to_owned())).then_some(())
    });
    cluster.submit(&main_flow());
}

/// The document says one name and its key another: the key is what can be asked for.
#[test]
fn a_run_is_found_under_its_key() {
    let cluster = Cluster::with_gateway();
    cluster.put_run("other", 1.0, |_| {});
    cluster.put("key", br#"{"run_id":"other","status":"PENDING","updated_at":1.0}"#);
    cluster.put_run("last", 2.0, |_| {});
    cluster.wait_status("last", "PENDING");
    assert_eq!(cluster.get("/runs/key").status, 200);
    for path in ["/runs", "/runs?include=full", "/runs?cursor="] {
        let answer = cluster.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    // Taking one away must not take the other out of the list.
    let revision = cluster.newest("key").unwrap().revision;
    cluster.bus.runs().delete("key", revision).unwrap();
    cluster.wait_answer("/runs/key", 404);
    assert_eq!(ids(&cluster.get("/runs").json()), ["last", "other"]);
}
