//! The package whose wheels these tests upload.

use serde_json::Value;

use crate::support::wheel::WheelFile;

/// A package `flows` whose flow `main` tells its version, and which module it has loaded late.
pub fn flows(version: &str) -> WheelFile {
    let text = format!(
        r#"
import os, time
from pyoco import Flow, task

@task
def tell(ctx):
    while ctx.params.get("until") and not os.path.exists(ctx.params["until"]):
        if not os.path.exists(ctx.params["began"]):
            open(ctx.params["began"], "w").close()
        time.sleep(0.02)
    from flows import late
    return {{"version": "{version}", "late": late.VERSION}}

def resolve_flow(name):
    return Flow(name=name) >> tell if name == "main" else None
"#
    );
    WheelFile::new("flows", version)
        .file("flows/__init__.py", text)
        .file("flows/late.py", format!("VERSION = \"{version}\"\n"))
}

/// What the flow of [`flows`] has told.
pub fn told(run: &Value) -> (&str, &str) {
    let output = &run["task_records"]["tell"]["output"];
    (output["version"].as_str().unwrap(), output["late"].as_str().unwrap())
}
