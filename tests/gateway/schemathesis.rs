//! The gateway against what Schemathesis makes up from its OpenAPI document: requests that fit and
//! requests that do not.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::cluster::{Cluster, with_flags};
use crate::support::process::{run, without_settings};
use crate::support::python::schemathesis;
use crate::support::wheel::{WheelFile, noise};

/// For all requests that it makes up, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(180);
const YAML: &[u8] = b"version: 1\nflow: {graph: a >> b}\ntasks: {a: {use: builtin/echo}, b: {use: builtin/sleep, inputs: {seconds: 0.1}}}\n";

#[test]
fn answers_are_as_the_document_says_whatever_is_asked() {
    let mut cluster = Cluster::with_gateway();
    let mut worker = cluster.spawn_worker("w", with_flags(&["--tags", "default"]));
    for _ in 0..3 {
        let parts = [("workflow", Some("flow.yaml"), YAML), ("flow_name", None, &b"main"[..])];
        assert_eq!(cluster.post_form("/runs/yaml", &parts).status, 200);
    }
    let parked = cluster.submit(&json!({"flow_name": "main", "tag": "parked"}));
    cluster.wait_count(4);
    let wheel = WheelFile::new("tools", "1.0").file("tools.bin", noise(300_000));
    cluster.add_wheel(&wheel, "");

    let folder = tempfile::Builder::new().prefix("pyoco-openapi-").tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, cluster.get("/openapi.json").body).unwrap();
    let mut command = without_settings(schemathesis());
    command.args(["-m", "openapi_spec_validator", "--schema", "3.1"]).arg(&document);
    let judged = run(&mut command, b"", DEADLINE);
    assert_eq!(judged.code, Some(0), "{}{}", judged.stdout, judged.stderr);

    let mut command = without_settings(schemathesis().with_file_name("schemathesis"));
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/schemathesis.toml");
    command.arg("--config-file").arg(settings).arg("run").arg(&document);
    command.args(["--url", &cluster.url()]);
    command.args(["--request-timeout", "20", "--no-color"]);
    command.current_dir(folder.path());
    let judged = run(&mut command, b"", DEADLINE);
    assert_eq!(judged.code, Some(0), "{}{}", judged.stdout, judged.stderr);

    // Nobody was harmed.
    assert_eq!(cluster.get(&format!("/runs/{parked}")).status, 200);
    // The wheel may have been found in a list, and deleted.
    assert_eq!(cluster.get("/wheels").status, 200);
    assert!(worker.is_running() && cluster.gateways[0].process.is_running());
}
