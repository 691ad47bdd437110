//! Many versions in quick succession while many short runs are executed.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use crate::crew::{PATIENCE, Worker, ended, flows, submit, told, wait_installed};
use crate::desk::take;
use crate::stage::Stage;
use crate::support::wait::eventually;

/// Versions that are uploaded, and runs that are submitted after each.
const VERSIONS: usize = 12;
const RUNS_EACH: usize = 12;

#[test]
fn under_a_rush_of_versions_each_run_has_the_code_that_it_names_and_nothing_is_left() {
    let stage = Stage::start();
    take(&stage, &flows("1.0"), "");
    let flags = ["--flow-resolver", "flows:resolve_flow", "--concurrency", "4"];
    let mut worker = Worker::start(&stage, "w1", "default", &flags);
    wait_installed(&stage, "w1", &[&flows("1.0").file_name()]);
    let idle = descriptors(worker.process.pid());
    let mut runs = Vec::new();
    for version in 1..=VERSIONS {
        take(&stage, &flows(&format!("1.{version}")), "");
        runs.extend((0..RUNS_EACH).map(|_| submit(&stage, "main", "default", json!({}))));
    }
    let mut seen = BTreeSet::new();
    for run in &runs {
        let run = ended(&stage, run, "COMPLETED");
        let named = run["wheels"][0]["package_version"].as_str().unwrap();
        assert_eq!(told(&run), (named, named), "{run}");
        seen.insert(named.to_owned());
    }
    eprintln!("{} runs with {} versions: {seen:?}", runs.len(), seen.len());
    let last = flows(&format!("1.{VERSIONS}"));
    wait_installed(&stage, "w1", &[&last.file_name()]);
    let pid = worker.process.pid();
    eventually(PATIENCE, "one template and one folder to be left", || {
        let folders = worker.unpacked().len();
        (children(pid).len() == 1 && folders == 1).then_some(())
    });
    eventually(PATIENCE, "the descriptors to be given back", || {
        (descriptors(pid) <= idle).then_some(())
    });
    let template = children(pid)[0];
    let names = fs::read_dir(worker.folder.path().join(".pyoco/wheels")).unwrap();
    let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with(".tmp-")), "{names:?}");
    worker.process.terminate();
    assert!(worker.process.wait(PATIENCE).success(), "{}", worker.process.stderr());
    assert!(!fs::exists(format!("/proc/{template}")).unwrap(), "the template lives on");
}

/// Open files of a process.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Processes that this one has started and not waited for.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.filter_map(|t| fs::read_to_string(t.unwrap().path().join("children")).ok());
    lists
        .flat_map(|l| l.split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}
