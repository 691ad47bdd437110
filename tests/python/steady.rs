//! Hundreds of runs: nothing accumulates, neither processes nor descriptors nor memory.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::cluster::{Cluster, with_flags};
use crate::support::measure::{self, below};
use crate::support::python::V08;
use crate::support::python_flows::write_flows;
use crate::support::wait::{PATIENCE, eventually};

const FLOWS: &str = r#"
@pyoco.task
def work(ctx):
    print("working on", ctx.params["n"])
    child = subprocess.Popen(["sleep", "3600"])
    return {"n": ctx.params["n"]}
flow_of(work)
"#;
/// One after the other.
const IN_A_ROW: usize = 500;
/// At the same time, in as many slots.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 10;
/// Looks in a row that see the same before a process counts as being at rest.
const SAME_AT_REST: usize = 10;
/// Pages that an interpreter may take more of without leaking anything per run.
const ALLOWED_GROWTH_KIB: u64 = 2048;

#[test]
fn five_hundred_runs_in_a_row_and_eight_at_once_leave_nothing_behind() {
    // Pyoco makes a folder for artifacts where it runs.
    std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cluster = Cluster::new().quick().envs(&[("PYOCO_LOG_LEVEL", "WARNING")]).start();
    let folder = tempfile::tempdir().unwrap();
    let resolver = write_flows(folder.path(), FLOWS);
    let python = V08.path().display().to_string();
    let slots = AT_ONCE.to_string();
    let flags = ["--flow-resolver", &resolver, "--python", &python, "--concurrency", &slots];
    let worker = cluster.start_worker("w1", with_flags(&flags));
    let submit = |n: usize| cluster.queue("default", "work", json!({"n": n}));
    let ended = |run: &str, n: usize| {
        let snapshot = cluster.wait_stored(run, "COMPLETED");
        assert_eq!(snapshot["task_records"]["work"]["output"], json!({"n": n}));
    };
    let round = |first: usize| {
        let runs: Vec<String> = (first..first + AT_ONCE).map(submit).collect();
        runs.iter().zip(first..).for_each(|(run, n)| ended(run, n));
    };
    // Caches fill, threads come up.
    (0..20).for_each(|n| ended(&submit(n), n));
    round(20);
    let template = settled(worker.pid());
    let before = [Size::at_rest(worker.pid()), Size::at_rest(template)];
    for n in 0..IN_A_ROW {
        ended(&submit(n), n);
    }
    for first in 0..ROUNDS {
        round(first * AT_ONCE);
    }
    assert_eq!(settled(worker.pid()), template, "the template was replaced");
    let after = [Size::at_rest(worker.pid()), Size::at_rest(template)];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.descriptors, after.descriptors);
        assert_eq!(before.threads, after.threads);
    }
    let grown = after[1].resident_kib.saturating_sub(before[1].resident_kib);
    assert!(grown < ALLOWED_GROWTH_KIB, "the template has grown by {grown} KiB");
    assert_eq!(cluster.dlq().len(), 0);
}

/// Waits until the template is the only process below the worker, without a zombie; returns its pid.
fn settled(worker: u32) -> u32 {
    eventually(PATIENCE, "only the template is left", || match below(worker)[..] {
        [(template, state)] if state != 'Z' => Some(template),
        _ => None,
    })
}

/// What a process holds.
#[derive(Debug)]
struct Size {
    resident_kib: u64,
    threads: usize,
    /// How many of each kind: sockets, pipes, files.
    descriptors: BTreeMap<String, usize>,
}

impl Size {
    /// When nothing changes any more: the slot of the last run closes its pipes a moment after its processes
    /// have ended.
    fn at_rest(pid: u32) -> Size {
        let mut last = Size::of(pid);
        let mut same = 0;
        eventually(PATIENCE, "the process to be at rest", || {
            let now = Size::of(pid);
            let is_same = (now.threads, &now.descriptors) == (last.threads, &last.descriptors);
            same = if is_same { same + 1 } else { 0 };
            last = now;
            (same == SAME_AT_REST).then_some(())
        });
        last
    }

    fn of(pid: u32) -> Size {
        Size {
            resident_kib: measure::resident_kib(pid),
            threads: measure::threads(pid),
            descriptors: measure::descriptors_by_kind(pid),
        }
    }
}
