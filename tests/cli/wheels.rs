//! The commands about wheels: their arguments, the look at a wheel before its upload, and peers that
//! take an upload badly. What a gateway says to them is tried with a gateway.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyoco_server::client::{Client, ClientSettings, Error, WheelUpload};
use serde_json::json;
use tempfile::TempDir;

use crate::peer::{client, listen, once, redirect, reply};
use crate::support::measure;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, sha256_hex};

/// A wheel that lacks nothing.
fn good() -> WheelFile {
    described().entry_points("[pyoco.tasks]\nadd = mytasks:add\n")
}

/// The same without entry points.
fn described() -> WheelFile {
    bare().metadata("Summary", "Tasks").metadata("Project-URL", "Docs, https://example.org")
}

/// A wheel without anything that is only asked for here.
fn bare() -> WheelFile {
    WheelFile::new("mytasks", "1.0").file("mytasks.py", "def add(a, b): return a + b\n")
}

fn upload(server: &str, file: &Path, arguments: &[&str]) -> Finished {
    let mut command = Binary::Client.command();
    command.args(["--server", server, "wheel-upload", "--wheel-file"]).arg(file).args(arguments);
    run(&mut command, b"", PATIENCE)
}

/// An upload that comes as far as to the network, where nobody is.
struct Nobody {
    folder: TempDir,
    server: String,
    _port: PortLease,
}

impl Nobody {
    fn new() -> Nobody {
        let port = PortLease::take();
        let server = format!("http://127.0.0.1:{}", port.port());
        Nobody { folder: tempfile::tempdir().unwrap(), server, _port: port }
    }

    fn upload(&self, wheel: &WheelFile, arguments: &[&str]) -> Finished {
        upload(&self.server, &wheel.write_to(self.folder.path()), arguments)
    }

    fn upload_bytes(&self, name: &str, bytes: &[u8], arguments: &[&str]) -> Finished {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        upload(&self.server, &path, arguments)
    }
}

#[track_caller]
fn assert_refused(ended: &Finished, parts: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("ERR-PYOCO-0018: "), "{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in:\n{}", ended.stderr);
    }
    assert!(ended.stderr.contains("\n- usage: pyoco-client wheel-"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\n- hint: "), "{}", ended.stderr);
}

/// It was looked at, and sent; there was nobody.
#[track_caller]
fn assert_sent(ended: &Finished, warnings: &[&str]) {
    let mut expected: Vec<String> = warnings.iter().map(|text| format!("warning: {text}")).collect();
    expected.push("ERR-PYOCO-0001: cannot reach the gateway".to_owned());
    let lines: Vec<&str> = ended.stderr.lines().take(expected.len()).collect();
    assert_eq!(lines, expected, "{ended:?}");
}

const NO_ENTRY_POINTS: &str = "entry points are missing (entry_points.txt names none)";
const NO_USAGE_DOC: &str = "usage documentation is missing (METADATA needs a description of 80 \
    characters, or a Project-URL labelled Documentation)";
const NO_SUMMARY: &str = "METADATA has no Summary";

#[test]
fn bad_arguments_say_what_and_how() {
    let cases: [(&[&str], &[&str]); 8] = [
        (&["wheel-upload"], &["--wheel-file", "usage: pyoco-client wheel-upload"]),
        (&["wheel-upload", "--wheel-file", "/nonexistent.whl"], &["/nonexistent.whl", "path"]),
        (&["wheel-upload", "--wheel-file", "/"], &["not a file"]),
        (&["wheel-upload", "--wheel-file", "x", "--tags", "a b"], &["`a b` is no tag"]),
        (&["wheel-upload", "--wheel-file", "x", "--preflight", "no"], &["'no'", "strict, warn, off"]),
        (&["wheel-delete"], &["--name", "usage: pyoco-client wheel-delete"]),
        (&["wheel-delete", "--name", ""], &["--name"]),
        (&["wheel-history", "--action", "replace"], &["'replace'", "upload, delete"]),
    ];
    for (arguments, parts) in cases {
        assert_refused(&client(arguments), parts);
    }
    // The file is opened for the upload, too.
    let ended = upload("http://127.0.0.1:9", Path::new("/nonexistent.whl"), &["--preflight", "off"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("ERR-PYOCO-0018: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("/nonexistent.whl"), "{}", ended.stderr);
}

#[test]
fn a_wheel_that_lacks_something_is_not_sent() {
    let nobody = Nobody::new();
    assert_sent(&nobody.upload(&good(), &[]), &[]);
    assert_refused(
        &nobody.upload(&described(), &[]),
        &[&format!("- reason: wheel preflight failed: {NO_ENTRY_POINTS}\n"), "--allow-no-entry-points"],
    );
    let ended = nobody.upload(&bare(), &["--preflight", "strict"]);
    let reason = format!("- reason: wheel preflight failed: {NO_USAGE_DOC}; {NO_ENTRY_POINTS}\n");
    assert_refused(&ended, &[&reason, "--allow-missing-usage-doc", "--preflight warn"]);
    assert!(ended.stderr.starts_with(&format!("warning: {NO_SUMMARY}\n")), "{}", ended.stderr);
    let ended = nobody.upload(&good().without("METADATA"), &[]);
    assert_refused(&ended, &["wheel preflight failed: METADATA is missing\n"]);
    assert_refused(&nobody.upload(&good().without("RECORD"), &[]), &["RECORD is missing"]);
    let other = good().metadata("Name", "other").metadata("Version", "2.0");
    assert_refused(&nobody.upload(&other, &[]), &["has the Name other", "has the Version 2.0"]);
    let junk = nobody.upload_bytes("mytasks-1.0-py3-none-any.whl", b"junk", &[]);
    assert_refused(&junk, &["not a readable zip archive"]);
    let renamed = nobody.upload_bytes("mytasks.zip", &good().build(), &[]);
    assert_refused(&renamed, &["package-1.0-py3-none-any.whl"]);
    let moved = nobody.upload_bytes("mytasks-1.1-py3-none-any.whl", &good().build(), &[]);
    assert_refused(&moved, &["mytasks-1.0.dist-info is not that of mytasks 1.1"]);
}

#[test]
fn what_is_excused_is_a_warning() {
    let nobody = Nobody::new();
    assert_sent(
        &nobody.upload(&bare(), &["--allow-no-entry-points", "--allow-missing-usage-doc"]),
        &[NO_USAGE_DOC, NO_SUMMARY, NO_ENTRY_POINTS],
    );
    assert_refused(&nobody.upload(&bare(), &["--allow-no-entry-points"]), &[NO_USAGE_DOC]);
    let warned = nobody.upload(&good().without("RECORD"), &["--preflight", "warn"]);
    assert_sent(&warned, &["RECORD is missing"]);
    assert_sent(&nobody.upload_bytes("x.txt", b"junk", &["--preflight", "off"]), &[]);
    // Text of others does not move the cursor.
    let coloured = good().metadata("Name", "\u{1b}[31mred");
    let ended = nobody.upload(&coloured, &["--preflight", "warn"]);
    assert!(ended.stderr.contains("has the Name  [31mred"), "{:?}", ended.stderr);
}

/// Reads a request up to the end of its form; how many bytes that had, and how the request begins.
fn read_form(stream: &mut TcpStream) -> (u64, String) {
    let mut head = Vec::new();
    let mut buffer = [0; 64 * 1024];
    let end = loop {
        let count = stream.read(&mut buffer).unwrap();
        head.extend_from_slice(&buffer[..count]);
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert_ne!(count, 0, "the connection has ended");
    };
    let lower = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(!lower.contains("transfer-encoding"), "{lower}");
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: u64 = length.unwrap().parse().unwrap();
    let mut come = (head.len() - end) as u64;
    while come < length {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => {
                come += count as u64;
                let kept = count.min(2048_usize.saturating_sub(head.len()));
                head.extend_from_slice(&buffer[..kept]);
            }
            other => panic!("{other:?} after {come} of {length} bytes"),
        }
    }
    (come, String::from_utf8_lossy(&head).into_owned())
}

/// A file of zeros, which takes no room on a disk.
fn large_file(folder: &TempDir, size: u64) -> PathBuf {
    let path = folder.path().join("large-1.0-py3-none-any.whl");
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

const LARGE: u64 = 200 * 1024 * 1024;

#[test]
fn a_large_wheel_is_never_in_memory_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_file(&folder, LARGE);
    let (come, comes) = std::sync::mpsc::channel();
    let (answer, answers) = std::sync::mpsc::channel::<()>();
    let server = once(move |mut stream| {
        come.send(read_form(&mut stream)).unwrap();
        answers.recv().unwrap();
        stream.write_all(reply(200, r#"{"name":"large"}"#).as_bytes()).unwrap();
    });
    let mut command = Binary::Client.command();
    command.args(["--server", &server, "wheel-upload", "--preflight", "off", "--no-replace"]);
    command.args(["--tags", "gpu, cpu", "--wheel-file"]).arg(&path);
    let mut running = Running::start(&mut command);
    let (bytes, text) = comes.recv_timeout(PATIENCE).unwrap();
    let peak = measure::peak_kib(running.pid());
    answer.send(()).unwrap();
    assert!(running.wait(PATIENCE).success(), "{}", running.stderr());
    assert!(bytes > LARGE && bytes < LARGE + 2048, "{bytes}");
    for part in ["name=\"replace\"\r\n\r\nfalse\r\n", "name=\"tags\"\r\n\r\ngpu,cpu\r\n"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(peak < 32 * 1024, "{peak} KiB at the peak");
    // Nobody sees a bar where there is no terminal.
    eventually(PATIENCE, "the item", || running.stdout().contains("large").then_some(()));
    assert_eq!(running.stderr(), "");
}

#[test]
fn a_refusal_before_the_end_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_file(&folder, LARGE);
    for (status, body, hint) in [
        (409, r#"{"detail":"wheel version already exists; bump version"}"#, "raise the wheel's"),
        (413, r#"{"detail":"wheel too large"}"#, "PYOCO_WHEEL_MAX_BYTES"),
    ] {
        let answer = reply(status, body);
        let server = once(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            // Much of what was sent is unread, so the other end sees a reset.
        });
        let ended = upload(&server, &path, &["--preflight", "off"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let reason = format!("- reason: HTTP {status} POST /wheels: {body}\n");
        assert!(ended.stderr.contains(&reason), "{}", ended.stderr);
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }
}

#[test]
fn a_peer_that_leaves_without_a_word_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_file(&folder, LARGE);
    let server = once(|mut stream| {
        let _ = stream.read(&mut [0; 4096]).unwrap();
    });
    let ended = upload(&server, &path, &["--preflight", "off"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("ERR-PYOCO-HTTP: "), "{}", ended.stderr);
    for part in ["- reason: POST /wheels: ", "look with `pyoco-client wheels`"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_file(&folder, LARGE);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let server = once(move |stream| {
        let _ = wait.recv();
        drop(stream);
    });
    let client = Client::new(ClientSettings {
        server,
        api_key: None,
        api_key_header: "X-API-Key".to_owned(),
        timeout: Duration::from_millis(300),
    });
    let before = Instant::now();
    let upload = WheelUpload { path, tags: Vec::new(), replace: true };
    let mut last = 0;
    let ended = client.unwrap().upload_wheel(&upload, &mut |sent, size| {
        assert!(sent > last && size == LARGE, "{sent} after {last}");
        last = sent;
    });
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(error.to_string(), "POST /wheels: the server has taken nothing for 300ms");
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert!(last > 0 && last < LARGE, "{last}");
    drop(done);
}

#[test]
fn a_wheel_that_is_stored_otherwise_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = good().write_to(folder.path());
    let sent = sha256_hex(&good().build());
    let answered = |hash: String| {
        once(move |mut stream| {
            read_form(&mut stream);
            let body = json!({"name": "mytasks", "sha256_hex": hash}).to_string();
            stream.write_all(reply(200, &body).as_bytes()).unwrap();
        })
    };
    let ended = upload(&answered("0".repeat(64)), &path, &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let name = good().file_name();
    for part in [
        format!("{name} was sent with the SHA-256 {sent} and stored with 0000"),
        format!("pyoco-client wheel-delete --name {name}"),
    ] {
        assert!(ended.stderr.contains(&part), "no {part:?} in {}", ended.stderr);
    }
    let ended = upload(&answered(sent.to_uppercase()), &path, &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

#[test]
fn a_redirected_wheel_is_sent_again_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = good().write_to(folder.path());
    let (listener, server) = listen();
    let peer = std::thread::spawn(move || {
        let answers = [redirect("/there"), reply(200, r#"{"name":"mytasks"}"#)];
        answers.map(|answer| {
            let mut stream = listener.accept().unwrap().0;
            let form = read_form(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            form
        })
    });
    let ended = upload(&server, &path, &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let [first, second] = peer.join().unwrap();
    assert!(first.1.starts_with("POST /wheels HTTP/1.1"), "{}", first.1);
    assert!(second.1.starts_with("POST /there HTTP/1.1"), "{}", second.1);
    assert_eq!(first.0, second.0);
}
