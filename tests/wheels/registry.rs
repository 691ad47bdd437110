//! Upload, list, download, delete and history, as a client sees them.

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Options};
use crate::support::http;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, noise, sha256_hex};

fn detail(answer: &http::Response) -> (u16, Value) {
    (answer.status, answer.json()["detail"].clone())
}

#[test]
fn a_wheel_comes_is_shown_and_goes() {
    let cluster = Cluster::with_gateway();
    assert_eq!(cluster.get("/wheels").json(), json!([]));
    assert_eq!(cluster.get("/wheels/history").json(), json!([]));
    let wheel = WheelFile::new("Foo_Bar", "1.0").file("foo/__init__.py", "x = 1\n");
    let (name, bytes) = (wheel.file_name(), wheel.build());
    let item = cluster.add_wheel(&wheel, " cpu, linux,cpu ");
    assert_eq!(item["name"], name);
    assert_eq!(item["size_bytes"], bytes.len());
    assert_eq!(item["bucket"], "pyoco_wheels");
    assert_eq!(item["sha256_hex"], sha256_hex(&bytes));
    assert_eq!(item["tags"], json!(["cpu", "linux"]));
    assert!(item["digest"].as_str().unwrap().starts_with("SHA-256="), "{item}");
    assert!(item["modified"].as_f64().unwrap() > 1e9 && item["mtime"].is_string(), "{item}");
    // At once, and the same.
    assert_eq!(cluster.get("/wheels").json(), json!([item]));
    let download = cluster.get(&format!("/wheels/{name}"));
    assert_eq!((download.status, &download.body), (200, &bytes));
    assert_eq!(download.header("content-type"), Some("application/octet-stream"));
    assert_eq!(download.header("content-disposition"), Some(&*format!("attachment; filename=\"{name}\"")));
    assert_eq!(cluster.delete_wheel(&name).json(), json!({"name": name, "deleted": true}));
    assert_eq!(detail(&cluster.delete_wheel(&name)), (404, json!("wheel not found")));
    assert_eq!(detail(&cluster.get(&format!("/wheels/{name}"))), (404, json!("wheel not found")));
    // What cannot be a name is no trouble of NATS.
    let long = "a".repeat(2000);
    assert_eq!(detail(&cluster.delete_wheel(&long)), (404, json!("wheel not found")));
    assert_eq!(cluster.get(&format!("/wheels/{long}")).status, 404);
    assert!(cluster.wheel_names().is_empty());
    // What is left says that there was something: no bytes of it.
    assert_eq!(cluster.stored_wheel_messages(), 1);
}

#[test]
fn a_version_is_uploaded_once_and_rises() {
    let cluster = Cluster::with_gateway();
    let send = |name: &str, version: &str, tag: &str, replace: &str| {
        let wheel = WheelFile::new(name, version).tag(tag);
        let fields = [("replace", replace)];
        cluster.upload_bytes(&wheel.file_name(), &wheel.build(), &fields)
    };
    let any = "py3-none-any";
    assert_eq!(send("foo", "1.9", any, "true").status, 200);
    assert_eq!(send("foo", "1.10", any, "false").status, 200);
    let exists = json!("wheel version already exists; bump version");
    let lower = json!("wheel version must be greater than existing latest version");
    for (name, version, tag, replace, expected) in [
        ("foo", "1.10", any, "true", &exists),
        ("FOO", "1.10.0", any, "true", &exists),
        ("foo", "1.10", "cp311-cp311-linux_x86_64", "no", &exists),
        ("foo", "1.9.1", any, "true", &lower),
        ("foo", "1.10rc1", any, "true", &lower),
        ("foo", "1.10", any, "false", &json!("wheel already exists")),
    ] {
        let answer = send(name, version, tag, replace);
        assert_eq!(detail(&answer), (409, expected.clone()), "{name} {version} {tag} {replace}");
        assert_eq!(answer.json()["err_id"], "ERR-PYOCO-0022");
        assert!(answer.json()["reason"].as_str().unwrap().contains("foo-1.10-"), "{}", answer.text());
    }
    assert_eq!(cluster.wheel_names(), ["foo-1.10-py3-none-any.whl", "foo-1.9-py3-none-any.whl"]);
    // What is deleted does not count any more.
    assert_eq!(cluster.delete_wheel("foo-1.10-py3-none-any.whl").status, 200);
    assert_eq!(send("foo", "1.10rc1", any, "true").status, 200);
    assert_eq!(send("foo", "1.10", any, "true").status, 200);
    // Two metas of one chunk each, one of the deleted one's successor, one of the candidate.
    assert_eq!(cluster.wheel_names().len(), 3);
    assert_eq!(cluster.stored_wheel_messages(), 6);
}

#[test]
fn what_cannot_be_a_wheel_is_refused_and_leaves_nothing() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WHEEL_MAX_BYTES", "200000")]);
    let good = WheelFile::new("foo", "1.0");
    let (name, bytes) = (good.file_name(), good.build());
    let send = |filename: &str, content: &[u8], fields: &[(&str, &str)]| {
        cluster.upload_bytes(filename, content, fields)
    };
    for (filename, expected) in [
        ("", "invalid wheel name"),
        ("foo.zip", "invalid wheel name"),
        ("../foo-1.0-py3-none-any.whl", "invalid wheel name"),
        ("foo-1.0.whl", "invalid wheel filename"),
        ("foo-one-py3-none-any.whl", "invalid wheel filename"),
    ] {
        assert_eq!(detail(&send(filename, &bytes, &[])), (422, json!(expected)), "{filename}");
    }
    for tags in ["a b", "a.b", "good,*"] {
        let answer = send(&name, &bytes, &[("tags", tags)]);
        assert_eq!(detail(&answer), (422, json!("invalid wheel tags")), "{tags}");
    }
    for content in [&b""[..], b"junk", &bytes[..bytes.len() - 1], &bytes[1..]] {
        assert_eq!(detail(&send(&name, content, &[])), (422, json!("invalid wheel file")));
    }
    let large = WheelFile::new("foo", "1.0").file("noise", noise(200_000));
    assert_eq!(detail(&send(&name, &large.build(), &[])), (413, json!("wheel too large")));
    let answer = send(&name, &bytes, &[("replace", "maybe")]);
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["detail"][0]["loc"], json!(["body", "replace"]));
    let answer = cluster.post_form("/wheels", &[("wheel", None, b"text")]);
    assert_eq!(answer.json()["detail"][0]["type"], "value_error", "{}", answer.text());
    for content_type in
        ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        let body: &[u8] = if content_type.starts_with("multi") { b"--x--\r\n" } else { b"{}" };
        let headers = [("Content-Type", content_type)];
        let answer = cluster.request("POST", "/wheels", &headers, body);
        assert_eq!(answer.status, 422, "{content_type}: {}", answer.text());
        assert_eq!(answer.json()["detail"][0]["loc"], json!(["body", "wheel"]));
    }
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    let cut = b"--x\r\nContent-Disposition: form-data; name=\"wheel\"; filename=\"foo-1.0-py3-none-any.whl\"\r\n\r\nPK";
    assert_eq!(cluster.request("POST", "/wheels", &headers, cut).status, 400);
    for path in ["nope", "a%20b.whl", "%00.whl", "foo-1.0-py3-none-any.whl"] {
        assert_eq!(cluster.get(&format!("/wheels/{path}")).status, 404, "{path}");
        assert_eq!(cluster.delete_wheel(path).status, 404, "{path}");
    }
    eventually(PATIENCE, "the chunks of refused uploads to be gone", || {
        (cluster.stored_wheel_messages() == 0).then_some(())
    });
    assert_eq!(cluster.get("/wheels/history").json(), json!([]));
    // The last of two files counts, whatever stands around them.
    let later = WheelFile::new("bar", "2.0").build();
    let parts: [(&str, Option<&str>, &[u8]); 4] = [
        ("wheel", Some(&name), &bytes),
        ("else", None, b"x"),
        ("wheel", Some("bar-2.0-py3-none-any.whl"), &later),
        ("tags", None, b"late"),
    ];
    let answer = cluster.post_form("/wheels", &parts);
    assert_eq!(
        (&answer.json()["name"], &answer.json()["tags"]),
        (&json!("bar-2.0-py3-none-any.whl"), &json!(["late"]))
    );
    assert_eq!(cluster.wheel_names(), ["bar-2.0-py3-none-any.whl"]);
}

#[test]
fn a_full_store_says_so() {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_WHEEL_MAX_BYTES", "600000")]);
    let one = WheelFile::new("one", "1").file("noise", noise(400_000));
    cluster.add_wheel(&one, "");
    let two = WheelFile::new("two", "1").file("noise", noise(400_000));
    let answer = cluster.upload_bytes(&two.file_name(), &two.build(), &[]);
    assert_eq!(detail(&answer), (507, json!("wheel store is full")));
    assert!(answer.json()["hint"].as_str().unwrap().contains("wheel-delete"), "{}", answer.text());
    assert_eq!(cluster.delete_wheel(&one.file_name()).status, 200);
    eventually(PATIENCE, "room for the other wheel", || {
        let answer = cluster.upload_bytes(&two.file_name(), &two.build(), &[]);
        (answer.status == 200).then_some(())
    });
}

#[test]
fn the_history_tells_who_from_where() {
    let cluster = Cluster::with_gateway();
    let foo = WheelFile::new("foo", "1.0");
    cluster.add_wheel(&foo, "cpu");
    cluster.add_wheel(&WheelFile::new("bar", "1.0"), "");
    let headers = [("User-Agent", "tests/1"), ("X-Real-IP", "10.0.0.1"), ("X-Forwarded-For", "1.2.3.4")];
    let path = format!("/wheels/{}", foo.file_name());
    assert_eq!(cluster.request("DELETE", &path, &headers, b"").status, 200);
    let events = cluster.get("/wheels/history").json();
    let actions: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["wheel_name"].as_str().unwrap()))
        .collect();
    let (foo_name, bar_name) = ("foo-1.0-py3-none-any.whl", "bar-1.0-py3-none-any.whl");
    assert_eq!(actions, [("delete", foo_name), ("upload", bar_name), ("upload", foo_name)]);
    let gone = &events[0];
    assert_eq!((&gone["replace"], &gone["tags"]), (&Value::Null, &json!(["cpu"])));
    assert_eq!(gone["sha256_hex"], sha256_hex(&foo.build()));
    assert_eq!(gone["actor"], json!({"tenant_id": null, "api_key_id": null}));
    assert_eq!(
        gone["source"],
        json!({
            "remote_addr": "127.0.0.1", "x_forwarded_for": "1.2.3.4", "x_real_ip": "10.0.0.1",
            "user_agent": "tests/1", "host": cluster.address.to_string(), "scheme": "http",
        })
    );
    assert_eq!((&events[1]["replace"], events[1]["event_id"].as_str().unwrap().len()), (&json!(true), 32));
    let count = |query: &str| {
        let answer = cluster.get(&format!("/wheels/history?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json().as_array().unwrap().len()
    };
    assert_eq!(count("limit=1"), 1);
    assert_eq!(count("action=UPLOAD"), 2);
    assert_eq!(count(&format!("wheel_name={foo_name}")), 2);
    assert_eq!(count(&format!("wheel_name={foo_name}&action=delete")), 1);
    assert_eq!(count("wheel_name=&action="), 3);
    for (query, words) in [("wheel_name=foo", "invalid wheel name"), ("action=look", "invalid action")] {
        let answer = cluster.get(&format!("/wheels/history?{query}"));
        assert_eq!(detail(&answer), (422, json!(words)), "{query}");
    }
    assert_eq!(cluster.get("/wheels/history?limit=501").status, 422);
    // A gateway that starts later knows all of it.
    let other = cluster.spawn_gateway(Options::default());
    let told = other.get("/wheels/history").json();
    assert_eq!(told, events);
    assert_eq!(other.get("/wheels").json(), cluster.get("/wheels").json());
}

#[test]
fn a_request_cannot_fill_the_history() {
    let cluster = Cluster::with_gateway();
    let foo = WheelFile::new("foo", "1.0");
    cluster.add_wheel(&foo, "");
    let long = "x".repeat(12_000);
    let path = format!("/wheels/{}", foo.file_name());
    let deleted = cluster.request("DELETE", &path, &[("X-Forwarded-For", &long)], b"");
    assert_eq!(deleted.status, 200);
    let gone = &cluster.get("/wheels/history?limit=1").json()[0];
    let told = gone["source"]["x_forwarded_for"].as_str().unwrap();
    assert!(told.starts_with("xxx") && told.len() <= 256, "{} bytes", told.len());
}

#[test]
fn bytes_that_are_not_the_wheels_are_not_handed_out_whole() {
    let cluster = Cluster::with_gateway();
    let wheel = WheelFile::new("foo", "1.0").file("noise", noise(400_000));
    cluster.add_wheel(&wheel, "");
    let meta = cluster.connect().wheels().find(&wheel.file_name()).unwrap().unwrap();
    crate::race::spoil(&cluster, &meta.nuid);
    let head = format!("GET /wheels/{} HTTP/1.1\r\nHost: x\r\n\r\n", wheel.file_name());
    let mut connection = http::Connection::open(cluster.address);
    connection.send(head.as_bytes()).unwrap();
    let error = connection.receive().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    // The gateway is well.
    assert_eq!(cluster.wheel_names(), [wheel.file_name()]);
}
