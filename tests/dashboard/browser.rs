//! Scenarios of `browser/` in front of a gateway that speaks English.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::cluster::{Builder, Cluster};
use crate::support::process::{Running, without_settings};
use crate::support::python::playwright;

/// A whole scenario on a loaded machine, the start of the browser included.
const SCENARIO: Duration = Duration::from_secs(180);

/// A gateway in English.
pub fn english() -> Builder {
    Cluster::new().gateway().flags(&["--dashboard-lang", "en"])
}

/// The same with a worker of the tags `default` and `gpu` that executes no Python.
pub fn with_worker() -> Cluster {
    worker(english(), "worker-1", "default,gpu").python("off").start()
}

pub fn worker(builder: Builder, id: &str, tags: &str) -> Builder {
    builder.worker(id).tags(tags).flags(&["--concurrency", "2"])
}

/// Starts `browser/<name>.py` on this gateway, with these variables.
pub fn open(cluster: &Cluster, name: &str, environment: &[(&str, &str)]) -> Running {
    let script = folder().join("browser").join(format!("{name}.py"));
    let mut command = without_settings(playwright());
    command
        .arg(script)
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYOCO_TEST_URL", cluster.url())
        .env("PYOCO_TEST_CHROMIUM", chromium())
        .envs(environment.iter().copied());
    Running::start(&mut command)
}

/// Runs the scenario to its end, which must be a good one.
pub fn play(cluster: &Cluster, name: &str) {
    finish(open(cluster, name, &[]), name);
}

/// Waits for the good end of a scenario.
pub fn finish(mut scenario: Running, name: &str) {
    let status = scenario.wait(SCENARIO);
    assert!(status.success(), "{name}: {status}\n{}{}", scenario.stdout(), scenario.stderr());
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard")
}

/// The browser: `PYOCO_TEST_CHROMIUM`, `CHROMIUM`, then PATH.
fn chromium() -> PathBuf {
    for variable in ["PYOCO_TEST_CHROMIUM", "CHROMIUM"] {
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            return PathBuf::from(path);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut candidates = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| {
        panic!("no chromium; run `bash tests/setup.sh`, or name it with PYOCO_TEST_CHROMIUM")
    })
}
