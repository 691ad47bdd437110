//! What is refused at the gateway of the Python package is refused at ours, in the same words.

use serde_json::{Value, json};

use crate::cluster::cluster_with_flows;
use crate::support::cluster::{Cluster, Gateway, Options};
use crate::support::http::Response;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::WheelFile;

/// A part of a form: name, file name if it is a file, content.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

fn post(gateway: &Gateway, parts: &[Part<'_>]) -> Response {
    const BOUNDARY: &str = "of-a-form";
    let mut body = Vec::new();
    for (name, filename, content) in parts {
        let file = filename.map(|filename| format!("; filename=\"{filename}\""));
        let file = file.unwrap_or_default();
        body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; ").into_bytes());
        body.extend(format!("name=\"{name}\"{file}\r\n\r\n").into_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [("Content-Type", content_type.as_str())];
    gateway.request("POST", "/wheels", &headers, &body)
}

/// Status, and `detail` or what was taken.
fn verdict(answer: &Response) -> (u16, Value) {
    let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    let body = if is_json { answer.json() } else { Value::Null };
    let said = match answer.status {
        200 => json!({"name": body["name"], "tags": body["tags"]}),
        _ => without_files(body["detail"].clone()),
    };
    (answer.status, said)
}

/// A problem that tells all that is known of a file there names it here.
fn without_files(mut detail: Value) -> Value {
    for problem in detail.as_array_mut().into_iter().flatten() {
        if ["string_type", "bool_type"].map(Value::from).contains(&problem["type"]) {
            problem["input"] = Value::Null;
        }
    }
    detail
}

/// Asks both; all that they differ in.
fn compare<'a>(
    gateways: &(Gateway, Gateway),
    cases: impl IntoIterator<Item = String>,
    ask: impl Fn(&Gateway, &str) -> Response + 'a,
) -> Vec<String> {
    let mut differences = Vec::new();
    for case in cases {
        let here = verdict(&ask(&gateways.0, &case));
        let there = eventually(PATIENCE, "an answer", || {
            let there = ask(&gateways.1, &case);
            // Now and then, for no reason.
            (!there.text().contains("NoKeysError")).then(|| verdict(&there))
        });
        if here != there {
            differences.push(format!("{case:?}: {here:?} instead of {there:?}"));
        }
    }
    differences
}

/// Both in front of registries of their own.
fn gateways(sites: &(Cluster, Cluster)) -> (Gateway, Gateway) {
    (sites.0.start_gateway(Options::default()), sites.1.start_python_gateway(Options::default()))
}

fn all(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn names_and_versions() {
    let sites = (cluster_with_flows(), cluster_with_flows());
    let gateways = gateways(&sites);
    let bytes = WheelFile::new("any", "1").build();
    let mut names = all(&[
        "",
        "../x-1-py3-none-any.whl",
        "a/x-1-py3-none-any.whl",
        "in side-1-py3-none-any.whl",
        "é-1-py3-none-any.whl",
        "pct%-1-py3-none-any.whl",
        "x-1-py3-none-any.zip",
        "x-1-py3-none-any.WHL",
        ".whl",
        "a.whl",
        "four-1.0-any.whl",
        "seven-1.0-1-py3-none-any-more.whl",
        "build-1.0-b1-py3-none-any.whl",
        "build-1.0-1b-py3-none-any.whl",
        "p__h-1.0-py3-none-any.whl",
        "foo-bar-2.0-py3-none-any.whl",
        " lead-1.0-py3-none-any.whl",
        "C:\\dir\\back-1.0-py3-none-any.whl",
        "Baz-1.0-PY3-None-Any.whl",
        "Foo_Bar-1.0-py3-none-any.whl",
        "foo_bar-1.0.0-py3-none-any.whl",
        "foo.bar-2.0-cp311-cp311-manylinux_2_17_x86_64.whl",
        "foo_bar-2.0-7-py3-none-any.whl",
        "FOO__BAR-3.0-py3-none-any.whl",
        "many.tags-1.0-py2.py3-none-any.whl",
    ]);
    for version in [
        "v1",
        "1.1.dev1",
        "1.1a1",
        "1.1alpha1",
        "1.1",
        "1.1.0",
        "1.1+abc",
        "1.1+local.1",
        "1.1.post1",
        "1.1-1",
        "1.1_2",
        "1.2rc1",
        "1.10",
        "1.9",
        "2.x",
        "one",
        "1.2.3.4.5",
        "02.0",
        "2.0c1",
        "2..0",
        "3.0.0.0",
        "3",
        "20240101",
        "1e3",
    ] {
        names.push(format!("order-{version}-py3-none-any.whl"));
    }
    let differences =
        compare(&gateways, names, |gateway, name| post(gateway, &[("wheel", Some(name), &bytes)]));
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn fields_of_the_form() {
    let sites = (cluster_with_flows(), cluster_with_flows());
    let gateways = gateways(&sites);
    let bytes = WheelFile::new("any", "1").build();
    let tags = all(&[
        "b,a,b,c",
        " b , a ",
        "a,,b",
        ",",
        "",
        "  ",
        "a b",
        "a.b",
        "é",
        "*",
        "a;b",
        "a/b",
        "A-b_1",
        "good,bad!",
    ]);
    let name_of = |case: &str| {
        let sum: u32 = case.bytes().map(u32::from).sum();
        format!("n{}x{sum}-1.0-py3-none-any.whl", case.len())
    };
    let mut differences = compare(&gateways, tags, |gateway, tags| {
        let name = name_of(tags);
        post(gateway, &[("tags", None, tags.as_bytes()), ("wheel", Some(&name), &bytes)])
    });
    let flags = all(&[
        "true", "1", "yes", "false", "0", "no", "off", "f", "n", "False", "on", "T", "", "maybe", "2",
        " true", " false ",
    ]);
    differences.extend(compare(&gateways, flags, |gateway, flag| {
        let name = format!("flag_{}", name_of(flag));
        post(gateway, &[("wheel", Some(&name), &bytes), ("replace", None, flag.as_bytes())])
    }));
    // A wheel that is there, so that the order of the checks shows.
    let there = "there-1.0-py3-none-any.whl";
    let forms: &[(&str, &[Part<'_>])] = &[
        ("it", &[("wheel", Some(there), &bytes)]),
        ("bad tags", &[("tags", None, b"a.b"), ("wheel", Some(there), &bytes)]),
        ("late bad tags", &[("wheel", Some("late-1-py3-none-any.whl"), &bytes), ("tags", None, b"*")]),
        ("bad name, bad tags", &[("tags", None, b"*"), ("wheel", Some("x.zip"), &bytes)]),
        ("bad flag", &[("replace", None, b"maybe"), ("wheel", Some("bad-1-py3-none-any.whl"), &bytes)]),
        ("no wheel", &[("tags", None, b"a")]),
        ("no wheel, bad flag", &[("replace", None, b"maybe")]),
        ("text", &[("wheel", None, b"abc")]),
        ("file of tags", &[("tags", Some("t"), b"a"), ("wheel", Some("t-1-py3-none-any.whl"), &bytes)]),
        ("file of a flag", &[("replace", Some("t"), b"1"), ("wheel", Some("t-2-py3-none-any.whl"), &bytes)]),
        ("files only", &[("tags", Some("t"), b"1"), ("replace", Some("t"), b"1")]),
        (
            "text after a file",
            &[
                ("tags", Some("t"), b"1"),
                ("tags", None, b"a"),
                ("wheel", Some("t-3-py3-none-any.whl"), &bytes),
            ],
        ),
        ("nothing", &[]),
        (
            "two wheels",
            &[
                ("wheel", Some("one-1.0-py3-none-any.whl"), &bytes),
                ("wheel", Some("two-1.0-py3-none-any.whl"), &bytes),
                ("more", None, b"x"),
                ("tags", None, b"a"),
                ("tags", None, b"b"),
            ],
        ),
    ];
    let names = forms.iter().map(|(name, _)| (*name).to_owned());
    differences.extend(compare(&gateways, names, |gateway, name| {
        post(gateway, forms.iter().find(|(known, _)| *known == name).unwrap().1)
    }));
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn paths_and_queries() {
    let sites = (cluster_with_flows(), cluster_with_flows());
    let gateways = gateways(&sites);
    let bytes = WheelFile::new("any", "1").build();
    let upload = all(&["some-1.0+local.1-py3-none-any.whl", "Some.Thing-1-py3-none-any.whl"]);
    let mut differences = compare(&gateways, upload, |gateway, name| {
        post(gateway, &[("tags", None, b"a"), ("wheel", Some(name), &bytes)])
    });
    let gets = all(&[
        "/wheels/some-1.0+local.1-py3-none-any.whl",
        "/wheels/some-1.0%2Blocal.1-py3-none-any.whl",
        "/wheels/%20Some.Thing-1-py3-none-any.whl%20",
        "/wheels/some.thing-1-py3-none-any.whl",
        "/wheels/nope",
        "/wheels/a%20b.whl",
        "/wheels/x!y.whl",
        "/wheels/%00.whl",
        "/wheels/%2E%2E",
        "/wheels/a%2Fb.whl",
        "/wheels/a.whl/b",
        "/wheels/history?limit=0",
        "/wheels/history?limit=-1",
        "/wheels/history?limit=501",
        "/wheels/history?limit=abc",
        "/wheels/history?limit=",
        "/wheels/history?limit=1.5",
        "/wheels/history?limit=1.0",
        "/wheels/history?limit=%2B3",
        "/wheels/history?limit=0&limit=5",
        "/wheels/history?wheel_name=",
        "/wheels/history?wheel_name=foo",
        "/wheels/history?wheel_name=foo.whl",
        "/wheels/history?wheel_name=..%2Fx.whl",
        "/wheels/history?wheel_name=a%20b.whl",
        "/wheels/history?wheel_name=%20Some.Thing-1-py3-none-any.whl",
        "/wheels/history?action=UPLOAD",
        "/wheels/history?action=%20upload%20",
        "/wheels/history?action=",
        "/wheels/history?action=look",
        "/wheels/history?action=look&wheel_name=foo",
        "/wheels/history?action=look&wheel_name=foo&limit=x",
    ]);
    differences.extend(compare(&gateways, gets, |gateway, path| gateway.get(path)));
    let deletes = all(&[
        "/wheels/nope",
        "/wheels/history",
        "/wheels/%2E%2E",
        "/wheels/some-1.0%2Blocal.1-py3-none-any.whl",
        "/wheels/some-1.0%2Blocal.1-py3-none-any.whl",
    ]);
    differences.extend(compare(&gateways, deletes, |gateway, path| gateway.delete(path)));
    assert!(differences.is_empty(), "{differences:#?}");
}
