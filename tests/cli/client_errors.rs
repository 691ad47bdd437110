//! What `pyoco-client` does when something is wrong: with its arguments, the network, the answer.
//!
//! The peers here are sockets that misbehave; what a gateway says is tried with a gateway.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pyoco_server::client::{Client, ClientSettings, Error, Include};

use crate::peer::{Peer, client, once, read_request, redirect, reply};
use crate::support::port::PortLease;
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::wait::PATIENCE;

fn asked(answers: &[String], arguments: &[&str]) -> Finished {
    Peer::start(answers).client(arguments)
}

#[track_caller]
fn assert_failed(ended: &Finished, first: &str, parts: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with(first), "{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in:\n{}", ended.stderr);
    }
    assert!(ended.stderr.contains("\n- hint: "), "{}", ended.stderr);
}

#[test]
fn bad_arguments_end_with_1_and_say_what_and_how() {
    let cases: [(&[&str], &[&str]); 12] = [
        (&[], &["requires a subcommand", "- usage: pyoco-client [OPTIONS] <COMMAND>"]),
        (&["bogus"], &["'bogus'", "see `pyoco-client --help`"]),
        (&["get"], &["<RUN_ID>", "- usage: pyoco-client get", "see `pyoco-client get --help`"]),
        (&["get", ""], &["RUN_ID", "- usage: pyoco-client get"]),
        (&["cancel"], &["--run-id", "- usage: pyoco-client cancel"]),
        (&["list", "--limit", "abc"], &["'abc'", "- usage: pyoco-client list"]),
        (&["list", "--output", "xml"], &["'xml'", "json, table", "- usage: "]),
        (&["list", "--limt", "3"], &["--limt", "--limit", "- usage: "]),
        (&["cancel", "--run-id", "x", "--timeout-sec", "nan"], &["number of seconds", "- usage: "]),
        (&["submit", "--params", "[1]"], &["no object", "- usage: pyoco-client submit"]),
        (&["submit", "--param", "x"], &["KEY=VALUE", "- usage: "]),
        (
            &["submit-yaml", "--workflow-file", "/nonexistent", "--flow-name", "f", "--tag", "t"],
            &["/nonexistent", "- usage: pyoco-client submit-yaml"],
        ),
    ];
    for (arguments, parts) in cases {
        let ended = client(arguments);
        assert_failed(&ended, "ERR-PYOCO-0018: ", parts);
        assert!(ended.stderr.contains("\n- reason: "), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

#[test]
fn a_server_without_a_scheme_is_a_bad_argument() {
    let ended = client(&["--server", "127.0.0.1:8000", "list"]);
    assert_failed(&ended, "ERR-PYOCO-0018: ", &["write http://127.0.0.1:8000"]);
}

#[test]
fn nobody_there_says_how_to_start_one() {
    let port = PortLease::take();
    let server = format!("http://127.0.0.1:{}", port.port());
    let parts = [server.as_str(), "pyoco-server up"];
    assert_failed(&client(&["--server", &server, "list"]), "ERR-PYOCO-0001: ", &parts);
    // A proxy of the environment is not asked for this machine; the flag wins over PYOCO_SERVER.
    let mut command = Binary::Client.command();
    command.env("HTTP_PROXY", "http://127.0.0.1:9").env("ALL_PROXY", "http://127.0.0.1:9");
    command.env("PYOCO_SERVER", &server).args(["get", "x"]);
    assert_failed(&run(&mut command, b"", PATIENCE), "ERR-PYOCO-0001: ", &parts);
    command.env("PYOCO_SERVER", "http://127.0.0.1:9").args(["--server", &server]);
    assert_failed(&run(&mut command, b"", PATIENCE), "ERR-PYOCO-0001: ", &parts);
}

#[test]
fn an_error_of_the_server_is_shown_with_its_hint() {
    let body = r#"{"detail":"nats unavailable: kv","err_id":"ERR-PYOCO-0003","hint":"start\u001b NATS"}"#;
    let ended = asked(&[reply(503, body)], &["list"]);
    let parts = ["HTTP 503 GET /runs", "nats unavailable: kv", "start  NATS (ERR-PYOCO-0003)"];
    assert_failed(&ended, "ERR-PYOCO-HTTP: ", &parts);
    let body = r#"{"detail":"workflow too large","err_id":"ERR-PYOCO-0016"}"#;
    let ended = asked(&[reply(413, body)], &["list"]);
    assert_failed(&ended, "ERR-PYOCO-HTTP: ", &["PYOCO_WORKFLOW_YAML_MAX_BYTES"]);
    let ended = asked(&[reply(500, "oops")], &["get", "a/b"]);
    assert_failed(&ended, "ERR-PYOCO-HTTP: ", &["HTTP 500 GET /runs/a%2Fb: oops"]);
}

#[test]
fn answers_that_are_none_are_named() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[1, 2".to_owned();
    for (answer, part) in [
        (reply(200, "hello"), "cannot read the answer"),
        (cut, "GET /runs"),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), "GET /runs"),
        (String::new(), "GET /runs"),
    ] {
        let ended = asked(&[answer], &["list"]);
        assert_failed(&ended, "ERR-PYOCO-HTTP: ", &[part]);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn a_redirect_is_followed_on_the_same_server_only() {
    let there = [redirect("/there?x=1"), reply(200, r#"{"run_id":"r-1"}"#)];
    let ended = asked(&there, &["submit"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "{\"run_id\":\"r-1\"}\n"), "{ended:?}");
    let away = asked(&[redirect("http://192.0.2.1/")], &["list"]);
    assert_failed(&away, "ERR-PYOCO-HTTP: ", &["192.0.2.1", "not followed"]);
    let round = asked(&[redirect("/runs")], &["list"]);
    assert_failed(&round, "ERR-PYOCO-HTTP: ", &["not followed"]);
}

#[test]
fn the_time_of_a_call_is_kept_by_silence_and_by_drips() {
    for drip in [false, true] {
        let server = once(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            while !drip || stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let client = Client::new(ClientSettings {
            server,
            api_key: None,
            api_key_header: "X-API-Key".to_owned(),
            timeout: Duration::from_millis(300),
        });
        let before = Instant::now();
        let error = client.unwrap().get_run("x", Include::Snapshot).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "drip {drip}: {error}");
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }
}

#[test]
fn a_wait_that_times_out_has_its_own_number_and_code() {
    let answers = [reply(200, r#"{"run_id":"r-1","status":"CANCELLING"}"#)];
    let arguments = ["cancel", "--run-id", "r-1", "--wait", "--timeout-sec", "0.2"];
    assert_failed(&asked(&answers, &arguments), "ERR-PYOCO-CANCEL: ", &["r-1", "0.2 s"]);
    let ended = asked(&answers, &[&arguments[..], &["--exit-status"]].concat());
    assert_eq!(ended.code, Some(5), "{ended:?}");
}

#[test]
fn a_wait_outlives_a_moment_without_nats() {
    let answers = [
        reply(200, r#"{"status":"CANCELLING"}"#),
        reply(503, r#"{"detail":"nats unavailable"}"#),
        String::new(),
        reply(200, r#"{"status":"CANCELLED"}"#),
    ];
    let ended = asked(&answers, &["cancel", "--run-id", "r", "--wait"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "{\"status\":\"CANCELLED\"}\n");
}

#[test]
fn exit_status_tells_how_the_run_ended() {
    for (status, code) in [("COMPLETED", 0), ("FAILED", 3), ("CANCELLED", 4)] {
        let answers = [reply(200, &format!(r#"{{"run_id":"r","status":"{status}"}}"#))];
        for arguments in [&["cancel", "--run-id", "r", "--wait"][..], &["submit", "--wait"]] {
            assert_eq!(asked(&answers, arguments).code, Some(0));
            let ended = asked(&answers, &[arguments, &["--exit-status"]].concat());
            assert_eq!(ended.code, Some(code), "{ended:?}");
        }
    }
}

#[test]
fn ctrl_c_during_a_wait_ends_with_130() {
    let answers = [reply(200, r#"{"run_id":"r-1","status":"PENDING"}"#)];
    let server = Peer::start(&answers).url;
    let mut command = Binary::Client.command();
    let mut running = Running::start(command.args(["--server", &server, "submit", "--wait"]));
    running.wait_for_line(PATIENCE, "the run id", |line| line.contains("r-1"));
    running.interrupt();
    assert_eq!(running.wait(PATIENCE).code(), Some(130));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Binary::Client
        .command()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything was written.
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
