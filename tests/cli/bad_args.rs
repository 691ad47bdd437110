//! Bad flags: each is refused with its reason and a way out, before anything starts.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::process::{Binary, run};
use crate::support::wait::PATIENCE;

#[test]
fn bad_values_are_refused_with_a_reason() {
    for (flag, value, reason) in [
        ("--flow-resolver", "flows", "must be module:function or file.py:function"),
        ("--python", "", "must name a program"),
        ("--python", " ", "must name a program"),
        ("--run-env", "HOME,PYOCO_NATS_TOKEN", "may hold a secret of this worker"),
        ("--run-env", "A-B", "must be names of variables"),
        ("--run-memory-limit", "15M", "must be a size from 16M to 1024T"),
        ("--run-memory-limit", "much", "must be a size from 16M to 1024T"),
        ("--run-timeout-sec", "0", "must be a number of seconds above 0"),
        ("--run-timeout-sec", "soon", "must be a number of seconds above 0"),
    ] {
        let ended = run(Binary::Worker.command().args([flag, value]), b"", PATIENCE);
        let text = &ended.stderr;
        assert_eq!(ended.code, Some(1), "{flag} {value}: {text}");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("ERR-PYOCO-0018: cannot use the command line"), "{text}");
        let said = lines.next().unwrap_or_default();
        assert!(said.starts_with("- reason: ") && said.contains(reason), "{flag} {value}: {text}");
        assert!(said.contains(flag), "{text}");
        assert_eq!(lines.next(), Some("- usage: pyoco-worker [OPTIONS]"), "{text}");
        assert_eq!(lines.next(), Some("- hint: see `pyoco-worker --help`"), "{text}");
    }
}

#[test]
fn a_gateway_without_keys_stays_on_its_machine() {
    let command = || {
        let mut command = Binary::Server.command();
        command.args(["up", "--host", "0.0.0.0", "--port", "0"]);
        command
    };
    let ended = run(&mut command(), b"", PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for part in ["ERR-PYOCO-0018", "PYOCO_HTTP_AUTH_MODE", "--allow-unauthenticated"] {
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
}

#[test]
fn a_resolver_needs_a_worker() {
    let flag = ["up", "--worker-flow-resolver", "flows:resolve"];
    let ended = run(Binary::Server.command().args(flag), b"", PATIENCE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("--with-worker"), "{}", ended.stderr);
}

#[test]
fn a_program_that_cannot_start_says_what_is_in_the_way() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_str().unwrap();
    let nats = ["--with-nats", "--nats-store-dir", store, "--nats-client-port", &port];
    for (arguments, title) in [
        (&["--port", &port][..], "cannot start the gateway"),
        (&[&["--port", "0"][..], &nats[..]].concat()[..], "cannot start the local NATS"),
    ] {
        let ended = run(Binary::Server.command().arg("up").args(arguments), b"", PATIENCE);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let shown = format!("ERR-PYOCO-0025: {title}\n- reason: ");
        assert!(ended.stderr.contains(&shown), "{}", ended.stderr);
        assert!(ended.stderr.contains("- hint: `reason` says"), "{}", ended.stderr);
    }
}
