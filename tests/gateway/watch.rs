//! `GET /runs/{id}/watch`: what a watcher of a run is told, and when.

use std::time::{Duration, Instant};

use pyoco_server::model::clock;
use pyoco_server::model::run::{Delivery, RunStatus};
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::events::Events;
use crate::support::runs::{completed, document, main_flow};
use crate::support::wait::{PATIENCE, eventually};

/// A heartbeat on a busy machine.
const LATE_HEARTBEAT: Duration = Duration::from_secs(7);

fn watch(cluster: &Cluster, query: &str) -> Events {
    cluster.events(&format!("/runs/r/watch?{query}"))
}

/// Puts the run `r` and waits until the gateway has it.
fn put_known(cluster: &Cluster, updated_at: f64) -> u64 {
    let revision = cluster.put_run("r", updated_at, |_| {});
    cluster.wait_count(1);
    revision
}

#[test]
fn the_present_snapshot_comes_first_and_each_change_after_it() {
    let cluster = Cluster::with_gateway();
    let revision = cluster.put_run("r", 1.0, |run| {
        run.status = RunStatus::Running;
        run.tasks.insert("té".into(), "RUNNING".into());
        run.task_records.insert("té".into(), json!({"state": "RUNNING"}));
        run.delivery = Some(Delivery::new("$JS.ACK.x".into(), "i".into(), 60.0));
    });
    let mut stream = watch(&cluster, "");
    let first = stream.event();
    assert_eq!((first.name.as_str(), first.id), ("snapshot", Some(revision)));
    assert_eq!(stream.retry.as_deref(), Some("2000"));
    for line in
        ["content-type: text/event-stream", "cache-control: no-cache\r\n", "x-accel-buffering: no\r\n"]
    {
        assert!(stream.head.contains(line), "{}", stream.head);
    }
    let data = first.data.as_object().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["run_id", "snapshot", "ts"]);
    assert!((data["ts"].as_f64().unwrap() - clock::now()).abs() < 60.0);
    assert_eq!(data["snapshot"]["tasks"], json!({"té": "RUNNING"}));
    for field in ["delivery", "task_records", "task_records_truncated"] {
        assert!(data["snapshot"].get(field).is_none(), "{field}");
    }
    let mut with_records = watch(&cluster, "include=records");
    assert_eq!(with_records.event().data["snapshot"]["task_records"]["té"]["state"], "RUNNING");

    let revision = cluster.put_run("r", 2.0, completed);
    for stream in [&mut stream, &mut with_records] {
        let second = stream.named("snapshot");
        assert_eq!(second.id, Some(revision));
        assert_eq!(second.data["snapshot"]["status"], "COMPLETED");
    }
    // What the gateway itself writes is told, too.
    let run_id = cluster.submit(&main_flow());
    let mut stream = cluster.events(&format!("/runs/{run_id}/watch"));
    assert_eq!(stream.event().data["snapshot"]["status"], "PENDING");
    cluster.post_nothing(&format!("/runs/{run_id}/cancel"));
    assert_eq!(stream.named("snapshot").data["snapshot"]["status"], "CANCELLING");
    assert_eq!(stream.named("snapshot").data["snapshot"]["status"], "CANCELLED");
}

#[test]
fn an_event_comes_within_milliseconds_of_the_write() {
    let cluster = Cluster::with_gateway();
    cluster.put_run("r", 0.5, |_| {});
    let mut stream = watch(&cluster, "");
    stream.event();
    // The best of some rounds, since a busy machine stalls whole seconds.
    let median = (0..5).map(|round| {
        let mut latencies: Vec<Duration> = (1..=20)
            .map(|n| {
                let begun = Instant::now();
                let revision = cluster.put_run("r", f64::from(round * 100 + n), |_| {});
                stream.until(|event| event.id == Some(revision)).at - begun
            })
            .collect();
        latencies.sort();
        latencies[10]
    });
    let best = median.min().unwrap();
    assert!(best < Duration::from_millis(20), "half of the events took more than {best:?}");
}

#[test]
fn only_what_is_new_enough_is_told_and_the_time_ends_the_stream() {
    let cluster = Cluster::with_gateway();
    put_known(&cluster, 10.0);
    let begun = Instant::now();
    assert_eq!(watch(&cluster, "since=10.5&timeout_sec=1").rest().len(), 0);
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(watch(&cluster, "since=10&timeout_sec=1").rest().len(), 1);
    let mut stream = watch(&cluster, "since=11");
    cluster.put_run("r", 10.7, |_| {});
    let revision = cluster.put_run("r", 11.0, |_| {});
    assert_eq!(stream.named("snapshot").id, Some(revision));
}

#[test]
fn a_stream_ends_with_the_run_only_when_asked_to() {
    let cluster = Cluster::with_gateway();
    put_known(&cluster, 1.0);
    let mut until_terminal = watch(&cluster, "until_terminal=true");
    let mut going_on = watch(&cluster, "timeout_sec=3");
    until_terminal.event();
    going_on.event();
    cluster.put_run("r", 2.0, completed);
    let events = until_terminal.rest();
    assert_eq!(events.last().unwrap().data["snapshot"]["status"], "COMPLETED");
    let begun = Instant::now();
    assert_eq!(going_on.named("snapshot").data["snapshot"]["status"], "COMPLETED");
    assert_eq!(going_on.rest().len(), 0);
    assert!(begun.elapsed() > Duration::from_millis(500), "it has ended early");
    // A run that has ended before is told once.
    assert_eq!(watch(&cluster, "until_terminal=1").rest().len(), 1);
}

#[test]
fn a_client_that_comes_back_is_not_told_twice() {
    let cluster = Cluster::with_gateway();
    let revision = put_known(&cluster, 1.0);
    let path = "/runs/r/watch?timeout_sec=1";
    let resume = |id: &str| cluster.events_after(path, &format!("Last-Event-ID: {id}\r\n")).rest().len();
    assert_eq!(resume(&revision.to_string()), 0);
    // Another version, also one of a bucket that is gone, and what is no id at all.
    for id in [(revision - 1).to_string(), "999999".into(), "x".into(), String::new()] {
        assert_eq!(resume(&id), 1, "{id:?}");
    }
    // The end of a run that was told already.
    let revision = cluster.put_run("r", 2.0, completed);
    cluster.wait_status("r", "COMPLETED");
    let begun = Instant::now();
    let path = "/runs/r/watch?until_terminal=true";
    let header = format!("Last-Event-ID: {revision}\r\n");
    assert_eq!(cluster.events_after(path, &header).rest().len(), 0);
    assert!(begun.elapsed() < LATE_HEARTBEAT);
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let cluster = Cluster::with_gateway();
    put_known(&cluster, 1.0);
    for (path, status, text) in [
        ("/runs/nope/watch", 404, "run not found"),
        ("/runs/a%20b/watch", 404, "run not found"),
        ("/runs/r/watch?timeout_sec=0", 422, "greater_than_equal"),
        ("/runs/r/watch?timeout_sec=601", 422, "less_than_equal"),
        ("/runs/r/watch?timeout_sec=1.5", 422, "int_parsing"),
        ("/runs/r/watch?since=abc", 422, "float_parsing"),
        ("/runs/r/watch?until_terminal=maybe", 422, "bool_parsing"),
    ] {
        let answer = cluster.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(text), "{path}: {}", answer.text());
    }
    assert_eq!(cluster.post_nothing("/runs/r/watch").status, 405);
}

#[test]
fn silence_is_filled_with_heartbeats() {
    let cluster = Cluster::with_gateway();
    put_known(&cluster, 1.0);
    let mut stream = watch(&cluster, "timeout_sec=30");
    let mut last = stream.event().at;
    for _ in 0..2 {
        let heartbeat = stream.event();
        assert_eq!((heartbeat.name.as_str(), heartbeat.id), ("heartbeat", None));
        assert_eq!(heartbeat.data["run_id"], "r");
        assert!(heartbeat.data["ts"].is_f64());
        let silence = heartbeat.at - last;
        // A little less than 5 s: the Python client gives up after 5 s of silence.
        assert!(silence > Duration::from_secs(4) && silence < LATE_HEARTBEAT, "{silence:?}");
        last = heartbeat.at;
    }
}

#[test]
fn a_deleted_run_ends_its_streams() {
    let cluster = Cluster::with_gateway();
    let revision = put_known(&cluster, 1.0);
    let mut stream = watch(&cluster, "");
    stream.event();
    cluster.bus.runs().delete("r", revision).unwrap();
    assert!(stream.rest().iter().all(|event| event.name == "heartbeat"));
    assert_eq!(cluster.get("/runs/r/watch").status, 404);
}

#[test]
fn a_stream_outlives_nats() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    put_known(&cluster, 1.0);
    let mut stream = watch(&cluster, "timeout_sec=600");
    stream.event();
    cluster.nats.stop();
    for _ in 0..2 {
        assert_eq!(stream.event().name, "heartbeat");
    }
    let refused = cluster.get("/runs/r/watch");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    cluster.nats.restart();
    let bus = cluster.connect();
    let revision = bus.runs().put("r", &document("r", 2.0, completed)).unwrap();
    assert_eq!(stream.named("snapshot").id, Some(revision));
    // And goes on as before.
    let revision = bus.runs().put("r", &document("r", 3.0, completed)).unwrap();
    assert_eq!(stream.named("snapshot").id, Some(revision));
}

/// Whoever may write to NATS can store what he likes.
#[test]
fn strange_snapshots_end_nothing() {
    let cluster = Cluster::with_gateway();
    put_known(&cluster, 1.0);
    let mut stream = watch(&cluster, "");
    stream.event();
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let documents = [
        r#"{"run_id":"r","status":"RUNNING","params":{"x":NaN,"y":"a\u2028b"}}"#.to_owned(),
        "{\n  \"run_id\": \"r\",\n  \"status\": \"RUNNING\"\n}".to_owned(),
        format!(r#"{{"run_id":"r","status":"RUNNING","params":{{"x":{}}}}}"#, deep(124)),
    ];
    for text in &documents {
        let revision = cluster.put("r", text.as_bytes());
        let told = stream.named("snapshot");
        assert_eq!((told.id, &told.data["snapshot"]["status"]), (Some(revision), &json!("RUNNING")));
    }
    // Too deep for anybody: nobody is told, and nothing ends.
    cluster.put("r", format!(r#"{{"run_id":"r","status":"RUNNING","x":{}}}"#, deep(5_000)).as_bytes());
    cluster.put("r", b"not json");
    let mut list = cluster.events("/events");
    eventually(PATIENCE, "the run to be left out", || (cluster.get("/runs").text() == "[]").then_some(()));
    let revision = cluster.put_run("r", 9.0, completed);
    assert_eq!(list.named("run").data["run_id"], "r");
    assert_eq!(stream.until(|event| event.id == Some(revision)).name, "snapshot");
    assert_eq!(cluster.get("/health").status, 200);
}

#[test]
fn all_watchers_of_a_run_are_told() {
    let cluster = Cluster::with_gateway();
    put_known(&cluster, 1.0);
    let mut streams: Vec<Events> = (0..40).map(|_| watch(&cluster, "")).collect();
    streams.iter_mut().for_each(|stream| drop(stream.event()));
    let revision = cluster.put_run("r", 2.0, completed);
    for stream in &mut streams {
        assert_eq!(stream.named("snapshot").id, Some(revision));
    }
    drop(streams);
    eventually(PATIENCE, "all streams to end", || {
        cluster.get("/metrics").text().contains("\npyoco_sse_clients 0\n").then_some(())
    });
}
