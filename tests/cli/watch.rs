//! `pyoco-client watch`, `workers` and `metrics` with peers that misbehave; what a gateway says is
//! tried with a gateway.

use std::time::{Duration, Instant};

use crate::peer::{Peer, client, reply};
use crate::support::port::PortLease;

fn stream(events: &str) -> String {
    format!("HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}")
}

fn snapshot(id: &str, status: &str) -> String {
    let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
    format!(
        "event: snapshot\n{id}data: {{\"run_id\":\"r\",\"snapshot\":{{\"run_id\":\"r\",\"status\":\"{status}\"}},\"ts\":1.5}}\n\n"
    )
}

const WATCH: [&str; 3] = ["watch", "r", "--until-terminal"];

#[test]
fn a_broken_stream_is_taken_up_where_it_was() {
    let heartbeat = "event: heartbeat\ndata: {\"run_id\":\"r\",\"ts\":2.5}\n\n";
    let peer = Peer::start(&[
        stream(&format!("retry: 2000\n\n{}{heartbeat}", snapshot("5", "RUNNING"))),
        "HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        // Cut off in the middle of an event, which then counts for nothing.
        stream("event: snapshot\nid: 6\ndata: {\"run_"),
        stream(&snapshot("7", "COMPLETED")),
    ]);
    let ended = peer.client(&WATCH);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        ended.stdout,
        "{\"event\":\"snapshot\",\"data\":{\"run_id\":\"r\",\"snapshot\":{\"run_id\":\"r\",\"status\":\"RUNNING\"},\"ts\":1.5},\"id\":\"5\"}\n\
         {\"event\":\"heartbeat\",\"data\":{\"run_id\":\"r\",\"ts\":2.5}}\n\
         {\"event\":\"snapshot\",\"data\":{\"run_id\":\"r\",\"snapshot\":{\"run_id\":\"r\",\"status\":\"COMPLETED\"},\"ts\":1.5},\"id\":\"7\"}\n"
    );
    let mut requests = peer.requests();
    // A stream that ended without a word makes the client look at the run itself.
    requests.retain(|request| request.contains("/watch"));
    assert_eq!(requests.len(), 4);
    assert!(!requests[0].contains("last-event-id"), "{}", requests[0]);
    for request in &requests[1..] {
        assert!(request.contains("\r\nlast-event-id: 5\r\n"), "{request}");
        assert!(request.starts_with("get /runs/r/watch?timeout_sec=30&until_terminal=true http"));
    }
}

#[test]
fn a_gateway_without_ids_tells_nothing_twice() {
    let peer = Peer::start(&[
        stream(&snapshot("", "RUNNING")),
        stream(&format!("{}{}", snapshot("", "RUNNING"), snapshot("", "FAILED"))),
    ]);
    let ended = peer.client(&[&WATCH[..], &["--output", "status", "--exit-status"]].concat());
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_eq!(ended.stdout, "1.5\tsnapshot\tRUNNING\tr\n1.5\tsnapshot\tFAILED\tr\n");
}

#[test]
fn the_exit_code_tells_the_end_when_asked_to() {
    for (status, plain, told) in [("COMPLETED", 0, 0), ("FAILED", 0, 3), ("CANCELLED", 0, 4)] {
        let peer = Peer::start(&[stream(&snapshot("1", status))]);
        assert_eq!(peer.client(&WATCH).code, Some(plain), "{status}");
        let ended = peer.client(&[&WATCH[..], &["--exit-status"]].concat());
        assert_eq!(ended.code, Some(told), "{status}");
    }
}

#[test]
fn time_and_number_of_events_are_bounded() {
    let peer = Peer::start(&[stream(&format!("{}{}", snapshot("1", "PENDING"), snapshot("2", "RUNNING")))]);
    let ended = peer.client(&["watch", "r", "--max-events", "1"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1));
    let begun = Instant::now();
    let ended = peer.client(&["watch", "r", "--timeout-sec", "1"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let ended = peer.client(&[&WATCH[..], &["--timeout-sec", "1"]].concat());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("ERR-PYOCO-CANCEL: the wait timed out\n"), "{}", ended.stderr);
    let ended = peer.client(&[&WATCH[..], &["--timeout-sec", "1", "--exit-status"]].concat());
    assert_eq!(ended.code, Some(5));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn what_cannot_be_watched_ends_at_once() {
    let not_found = reply(404, r#"{"detail":"run not found","err_id":"ERR-PYOCO-0005"}"#);
    let busy = reply(503, r#"{"detail":"too many watchers","hint":"raise PYOCO_HTTP_MAX_WATCHERS"}"#);
    let garbage = stream("event: snapshot\ndata: not json\n\n");
    for (answer, parts) in [
        (not_found, ["HTTP 404 GET /runs/r/watch", "run not found"]),
        (busy, ["HTTP 503", "PYOCO_HTTP_MAX_WATCHERS"]),
        (garbage, ["cannot read the answer", "GET /runs/r/watch"]),
    ] {
        let begun = Instant::now();
        let ended = Peer::start(&[answer]).client(&WATCH);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(ended.stderr.starts_with("ERR-PYOCO-HTTP: the request failed\n"), "{}", ended.stderr);
        parts.iter().for_each(|part| assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let lease = PortLease::take();
    let server = format!("http://127.0.0.1:{}", lease.port());
    let ended = client(&[&["--server", &server], &WATCH[..]].concat());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("ERR-PYOCO-0001: cannot reach the gateway\n"), "{}", ended.stderr);
}

#[test]
fn bad_arguments_are_told_with_the_way_out() {
    let peer = Peer::start(&[reply(500, "")]);
    for arguments in [
        &["watch"][..],
        &["watch", ""],
        &["watch", "r", "--exit-status"],
        &["watch", "r", "--timeout-sec", "soon"],
        &["watch", "r", "--max-events", "-1"],
        &["watch", "r", "--output", "table"],
        &["workers", "--scope", "some"],
        &["workers", "--output", "yaml"],
        &["metrics", "extra"],
    ] {
        let ended = peer.client(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(ended.stderr.starts_with("ERR-PYOCO-0018: "), "{arguments:?}: {}", ended.stderr);
        let hint = format!("\n- hint: see `pyoco-client {} --help`\n", arguments[0]);
        assert!(ended.stderr.contains(&hint), "{arguments:?}: {}", ended.stderr);
    }
    assert!(peer.requests().is_empty());
}

#[test]
fn workers_and_metrics_are_shown_as_they_come() {
    let peer = Peer::start(&[reply(200, r#"[{"worker_id":"w","state":"IDLE","tags":["a"]}]"#)]);
    let ended =
        peer.client(&["workers", "--scope", "all", "--state", "IDLE", "--include-hidden", "--limit", "3"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "[{\"worker_id\":\"w\",\"state\":\"IDLE\",\"tags\":[\"a\"]}]\n")
    );
    let request = &peer.requests()[0];
    assert!(
        request.starts_with("get /workers?scope=all&state=idle&include_hidden=true&limit=3 http"),
        "{request}"
    );
    let ended = peer.client(&["workers", "--output", "table"]);
    assert_eq!(ended.stdout, "worker_id  state  tags  runs\nw          IDLE   a     0\n");
    let ended = peer.client(&["workers", "--output", "plugins"]);
    assert!(ended.stdout.starts_with("worker_id  state  tags  package  version  wheel_name\n"));
    let refused = reply(422, r#"{"detail":"invalid workers request","err_id":"ERR-PYOCO-0019","hint":"h"}"#);
    let ended = Peer::start(&[refused]).client(&["workers", "--state", "BUSY"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("(ERR-PYOCO-0019)"), "{}", ended.stderr);
    let ended = Peer::start(&[reply(200, "a 1\nb 2\n")]).client(&["metrics"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "a 1\nb 2\n"));
}
