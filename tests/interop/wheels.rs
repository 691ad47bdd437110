//! Our client and the wheel registry of the Python package.

use serde_json::{Value, json};

use crate::cluster::cluster_with_flows;
use crate::support::cluster::{ASKING, Options, with_env};
use crate::support::programs::Program;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, noise, sha256_hex};

/// A wheel that clients find nothing wrong with.
pub fn tasks(version: &str) -> WheelFile {
    WheelFile::new("mytasks", version)
        .file("mytasks.py", "def add(a, b): return a + b\n")
        .metadata("Summary", "Tasks")
        .metadata("Project-URL", "Documentation, https://example.org")
        .entry_points("[pyoco.tasks]\nadd = mytasks:add\n")
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|wheel| wheel["name"].as_str().unwrap()).collect()
}

/// What `wheel-history` prints. The Python gateway answers a 503 with `NoKeysError` now and then, because a
/// listing of keys there may come to nothing.
fn history(client: &Program<'_>, arguments: &[&str]) -> String {
    let arguments = [&["wheel-history"], arguments].concat();
    eventually(PATIENCE, "the history", || {
        let ended = client.finish(&arguments);
        let again = ended.code == Some(1) && ended.stderr.contains("NoKeysError");
        assert!(again || ended.code == Some(0), "{arguments:?}: {ended:?}");
        (!again).then_some(ended.stdout)
    })
}

#[test]
fn our_client_looks_after_the_registry_of_the_python_gateway() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    let client = gateway.program();
    assert_eq!(client.json(&["wheels"]), json!([]));
    assert_eq!(client.text(&["wheels", "--output", "table"]), "(no items)\n");

    let write = |wheel: &WheelFile| wheel.write_to(cluster.folder()).to_str().unwrap().to_owned();
    let (first, second) = (tasks("1.0"), tasks("1.1+local.1"));
    let path = write(&first);
    let item = client.json(&["wheel-upload", "--wheel-file", &path, "--tags", " gpu,cpu,gpu"]);
    assert_eq!(item["name"], first.file_name());
    assert_eq!(item["tags"], json!(["gpu", "cpu"]));
    assert_eq!(item["size_bytes"], first.build().len());
    assert_eq!(item["sha256_hex"], sha256_hex(&first.build()));
    client.json(&["wheel-upload", "--wheel-file", &write(&second), "--no-replace"]);
    let list = client.json(&["wheels"]);
    assert_eq!(names(&list), [first.file_name(), second.file_name()]);
    let table = client.text(&["wheels", "--output", "table"]);
    let row = table.lines().find(|line| line.starts_with(&first.file_name())).unwrap();
    assert!(row.contains("KiB") && row.contains("gpu,cpu") && row.ends_with(['w', 'o']), "{row}");

    for (arguments, parts) in [
        (
            ["wheel-upload", "--wheel-file", &path],
            ["HTTP 409 POST /wheels: {\"detail\":\"wheel version", "- hint: raise the wheel's"],
        ),
        (
            ["wheel-delete", "--name", "none-1.0-py3-none-any.whl"],
            ["HTTP 404 DELETE /wheels/none-1.0-py3-none-any.whl: ", "`pyoco-client wheels`"],
        ),
        (
            ["wheel-history", "--wheel-name", "x"],
            ["HTTP 422 GET /wheels/history: {\"detail\":\"invalid wheel name\"}", "- hint: "],
        ),
    ] {
        let ended = client.finish(&arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
        }
    }

    let deleted = client.json(&["wheel-delete", "--name", &second.file_name()]);
    assert_eq!(deleted, json!({"name": second.file_name(), "deleted": true}));
    assert_eq!(names(&client.json(&["wheels"])), [first.file_name()]);
    let done = |arguments: &[&str]| -> Vec<(String, String)> {
        let entries: Value = serde_json::from_str(&history(&client, arguments)).unwrap();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| (text(entry, "action"), text(entry, "wheel_name"))).collect()
    };
    let entry = |action: &str, wheel: &WheelFile| (action.to_owned(), wheel.file_name());
    let (gone, came) = (entry("delete", &second), entry("upload", &second));
    assert_eq!(done(&[]), [gone.clone(), came.clone(), entry("upload", &first)]);
    assert_eq!(done(&["--action", "delete"]), std::slice::from_ref(&gone));
    assert_eq!(done(&["--limit", "2"]), [gone.clone(), came.clone()]);
    assert_eq!(done(&["--wheel-name", &second.file_name(), "--action", "upload"]), [came]);
    let table = history(&client, &["--output", "table"]);
    assert!(table.contains("delete") && table.contains("127.0.0.1"), "{table}");
    assert!(table.lines().next().unwrap().starts_with("when"), "{table}");
}

#[test]
fn a_wheel_of_many_chunks_arrives_whole() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(Options::default());
    let client = gateway.program();
    let bytes = noise(8 * 1024 * 1024);
    let wheel = tasks("2.0").file("mytasks.bin", &bytes);
    let built = wheel.build();
    assert!(built.len() > bytes.len());
    let path = wheel.write_to(cluster.folder());
    client.json(&["wheel-upload", "--wheel-file", path.to_str().unwrap()]);
    let answer = gateway.get(&format!("/wheels/{}", wheel.file_name()));
    assert_eq!(answer.status, 200);
    assert_eq!(sha256_hex(&answer.body), sha256_hex(&built));
}

#[test]
fn an_upload_without_a_key_is_refused_as_every_request_is() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_python_gateway(with_env(&ASKING));
    let client = gateway.program();
    let path = tasks("1.0").write_to(cluster.folder());
    let ended = client.finish(&["wheel-upload", "--wheel-file", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in ["HTTP 401 POST /wheels: ", "PYOCO_API_KEY"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
}
