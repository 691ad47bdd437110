//! Pages hang together: what does not change between two pages is shown exactly once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use pyoco_server::model::run::RunStatus;

use crate::support::cluster::Cluster;
use crate::support::runs::ids;

const RUNS: usize = 300;

fn name(n: usize) -> String {
    format!("run-{n:04}")
}

#[test]
fn pages_of_every_size_are_the_whole_list() {
    let cluster = Cluster::with_gateway();
    for n in 0..23 {
        // Groups of the same time, so that pages end inside of one.
        cluster.put_run(&name(n), (n / 5) as f64, |_| {});
    }
    cluster.wait_count(23);
    let whole = ids(&cluster.get("/runs?limit=200").json());
    for limit in [1, 2, 3, 5, 22, 23, 24] {
        assert_eq!(cluster.all_pages(&format!("limit={limit}")), whole, "limit {limit}");
    }
    let after = cluster.all_pages("limit=2&updated_after=2");
    assert_eq!(after.len(), 8);
    assert_eq!(after, whole[..8]);
    assert_eq!(cluster.all_pages("limit=4&status=FAILED"), Vec::<String>::new());
}

/// The cursor may come with padding, and its run may have gone: its place is what counts.
#[test]
fn a_cursor_outlives_its_run() {
    let cluster = Cluster::with_gateway();
    for n in 0..4 {
        cluster.put_run(&name(n), n as f64, |_| {});
    }
    cluster.wait_count(4);
    let page = cluster.get("/runs?limit=2&cursor=").json();
    assert_eq!(ids(&page), [name(3), name(2)]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let (_, revision) = cluster.snapshot(&name(2));
    cluster.bus.runs().delete(&name(2), revision).unwrap();
    cluster.wait_count(3);
    let rest = cluster.get(&format!("/runs?limit=2&cursor={cursor}")).json();
    assert_eq!(ids(&rest), [name(1), name(0)]);
    let padded = cluster.get(&format!("/runs?limit=2&cursor={cursor}%3D%3D")).json();
    assert_eq!(rest, padded);
}

#[test]
fn nothing_unchanged_is_skipped_or_shown_twice_while_others_change() {
    let cluster = Cluster::with_gateway();
    for n in 0..RUNS {
        cluster.put_run(&name(n), 1_000.0 + n as f64, |_| {});
    }
    cluster.wait_count(RUNS);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Every third run changes, again and again; new ones come and some of them go.
        scope.spawn(|| {
            let mut tick = 0;
            while !done.load(Ordering::Relaxed) {
                tick += 1;
                let at = 10_000.0 + f64::from(tick);
                cluster.put_run(&name(3 * (tick as usize % (RUNS / 3))), at, |run| {
                    run.status = RunStatus::Running;
                });
                let guest = format!("guest-{}", tick % 20);
                let revision = cluster.put_run(&guest, at + 0.5, |_| {});
                if tick % 2 == 0 {
                    cluster.bus.runs().delete(&guest, revision).unwrap();
                }
            }
        });
        for round in 0..5 {
            let shown = cluster.all_pages("limit=7");
            let mut times: HashMap<&str, usize> = HashMap::new();
            shown.iter().for_each(|run_id| *times.entry(run_id).or_default() += 1);
            let unchanged: HashSet<String> = (0..RUNS).filter(|n| n % 3 != 0).map(name).collect();
            for run_id in &unchanged {
                let count = times.get(run_id.as_str()).copied().unwrap_or(0);
                assert_eq!(count, 1, "round {round}: {run_id}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
