//! Many versions in quick succession while many short runs are executed.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use crate::package::{flows, told};
use crate::support::cluster::Cluster;
use crate::support::measure;
use crate::support::runs::RUN_DEADLINE;
use crate::support::wait::eventually;

/// Versions that are uploaded, and runs that are submitted after each.
const VERSIONS: usize = 12;
const RUNS_EACH: usize = 12;

#[test]
fn under_a_rush_of_versions_each_run_has_the_code_that_it_names_and_nothing_is_left() {
    let cluster = Cluster::with_gateway();
    cluster.add_wheel(&flows("1.0"), "");
    let flags = ["--flow-resolver", "flows:resolve_flow", "--concurrency", "4"];
    let mut worker = cluster.spawn_wheel_worker("w1", "default", &flags);
    cluster.wait_installed("w1", &[&flows("1.0").file_name()]);
    let idle = measure::descriptors(worker.process.pid());
    let mut runs = Vec::new();
    for version in 1..=VERSIONS {
        cluster.add_wheel(&flows(&format!("1.{version}")), "");
        runs.extend((0..RUNS_EACH).map(|_| cluster.submit_flow("default", "main", json!({}))));
    }
    let mut seen = BTreeSet::new();
    for run in &runs {
        let run = cluster.ended_as(run, "COMPLETED");
        let named = run["wheels"][0]["package_version"].as_str().unwrap();
        assert_eq!(told(&run), (named, named), "{run}");
        seen.insert(named.to_owned());
    }
    eprintln!("{} runs with {} versions: {seen:?}", runs.len(), seen.len());
    let last = flows(&format!("1.{VERSIONS}"));
    cluster.wait_installed("w1", &[&last.file_name()]);
    let pid = worker.process.pid();
    eventually(RUN_DEADLINE, "one template and one folder to be left", || {
        let folders = worker.unpacked().len();
        (measure::below(pid).len() == 1 && folders == 1).then_some(())
    });
    eventually(RUN_DEADLINE, "the descriptors to be given back", || {
        (measure::descriptors(pid) <= idle).then_some(())
    });
    let template = measure::below(pid)[0].0;
    let names = fs::read_dir(worker.folder.path().join(".pyoco/wheels")).unwrap();
    let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with(".tmp-")), "{names:?}");
    worker.process.terminate();
    assert!(worker.process.wait(RUN_DEADLINE).success(), "{}", worker.process.stderr());
    assert!(!fs::exists(format!("/proc/{template}")).unwrap(), "the template lives on");
}
