//! The gateway against what Schemathesis makes up from its OpenAPI document: requests that fit and
//! requests that do not.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::stage::{Stage, form, post_form};
use crate::support::http;
use crate::support::process::{Binary, Running, run, without_settings};
use crate::support::python;
use crate::support::wheel::{WheelFile, noise};

/// For all requests that it makes up, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(180);
const YAML: &[u8] = b"version: 1\nflow: {graph: a >> b}\ntasks: {a: {use: builtin/echo}, b: {use: builtin/sleep, inputs: {seconds: 0.1}}}\n";

#[test]
fn answers_are_as_the_document_says_whatever_is_asked() {
    let mut stage = Stage::start();
    let mut command = Binary::Worker.command();
    command.args(["--nats-url", &stage.nats.url(), "--worker-id", "w", "--tags", "default"]);
    let mut worker = Running::start(&mut command);
    for _ in 0..3 {
        let parts = [("workflow", Some("flow.yaml"), YAML), ("flow_name", None, &b"main"[..])];
        assert_eq!(post_form(stage.address(), &parts).status, 200);
    }
    let parked = stage.submit(&json!({"flow_name": "main", "tag": "parked"}));
    stage.wait_count(4);
    let wheel = WheelFile::new("tools", "1.0").file("tools.bin", noise(300_000));
    let (name, bytes) = (wheel.file_name(), wheel.build());
    let (content_type, body) = form(&[("wheel", Some(&name), &bytes)]);
    let headers = [("Content-Type", &*content_type)];
    let uploaded = http::request(stage.address(), "POST", "/wheels", &headers, &body);
    assert_eq!(uploaded.status, 200, "{}", uploaded.text());

    let folder = tempfile::Builder::new().prefix("pyoco-openapi-").tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, stage.get("/openapi.json").body).unwrap();
    let mut command = without_settings(python::schemathesis());
    command.args(["-m", "openapi_spec_validator", "--schema", "3.1"]).arg(&document);
    let judged = run(&mut command, b"", DEADLINE);
    assert_eq!(judged.code, Some(0), "{}{}", judged.stdout, judged.stderr);

    let mut command = without_settings(python::schemathesis().with_file_name("schemathesis"));
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/schemathesis.toml");
    command.arg("--config-file").arg(settings).arg("run").arg(&document);
    command.args(["--url", &format!("http://{}", stage.address())]);
    command.args(["--request-timeout", "20", "--no-color"]);
    command.current_dir(folder.path());
    let judged = run(&mut command, b"", DEADLINE);
    assert_eq!(judged.code, Some(0), "{}{}", judged.stdout, judged.stderr);

    // Nobody was harmed.
    assert_eq!(stage.get(&format!("/runs/{parked}")).status, 200);
    // The wheel may have been found in a list, and deleted.
    assert_eq!(stage.get("/wheels").status, 200);
    assert!(worker.is_running() && stage.gateway.process.is_running());
}
