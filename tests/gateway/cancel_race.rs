//! A cancel that meets a worker's writes never turns a run back that has ended.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyoco_server::bus;
use pyoco_server::model::json as wire;
use pyoco_server::model::run::{RunSnapshot, RunStatus};

use crate::support::cluster::Cluster;

const RUNS: usize = 60;
/// Writes of a run's worker before the last one.
const WRITES: usize = 12;

/// Writes as a worker does: by compare-and-set, and after a conflict on top of what is there.
fn work(cluster: &Cluster, run_id: &str) -> u64 {
    let runs = cluster.bus.runs();
    let mut step = 0;
    loop {
        let (mut snapshot, revision) = cluster.snapshot(run_id);
        assert!(!snapshot.status.is_terminal(), "somebody else has ended {run_id}");
        step += 1;
        if step > WRITES {
            snapshot.finish(RunStatus::Completed, None, 2_000.0);
        } else {
            snapshot.tasks.insert(format!("t{step}"), "RUNNING".into());
            snapshot.updated_at = Some(1_000.0 + step as f64);
        }
        let ended = snapshot.status.is_terminal();
        match runs.update(run_id, &wire::to_wire(&snapshot).unwrap(), revision) {
            Ok(revision) if ended => return revision,
            Ok(_) => {}
            Err(bus::Error::Conflict(_)) => step -= 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_has_ended_stays_as_it_is_under_a_hail_of_cancels() {
    let cluster = Cluster::with_gateway();
    let (asked, too_late) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let (cluster, asked, too_late) = (&cluster, &asked, &too_late);
            scope.spawn(move || {
                for n in (lane..RUNS).step_by(4) {
                    let run_id = format!("run-{n}");
                    cluster.put_run(&run_id, 1_000.0, |run| {
                        run.status = RunStatus::Running;
                        run.worker_id = Some("w".into());
                    });
                    let path = format!("/runs/{run_id}/cancel");
                    let last = std::thread::scope(|scope| {
                        let worker = scope.spawn(|| work(cluster, &run_id));
                        for _ in 0..3 {
                            scope.spawn(|| {
                                let answer = cluster.post_nothing(&path);
                                assert_eq!(answer.status, 200, "{}", answer.text());
                                match answer.json()["status"].as_str().unwrap() {
                                    "CANCELLING" => asked.fetch_add(1, Ordering::Relaxed),
                                    "COMPLETED" => too_late.fetch_add(1, Ordering::Relaxed),
                                    other => panic!("{other}"),
                                };
                            });
                        }
                        worker.join().unwrap()
                    });
                    let late = cluster.post_nothing(&path).json();
                    assert_eq!(late["status"], "COMPLETED", "{run_id}");
                    let (snapshot, revision): (RunSnapshot, u64) = cluster.snapshot(&run_id);
                    assert_eq!((snapshot.status, revision), (RunStatus::Completed, last), "{run_id}");
                    // Nobody's write was lost on the way.
                    assert_eq!(snapshot.tasks.len(), WRITES, "{run_id}");
                }
            });
        }
    });
    assert!(asked.load(Ordering::Relaxed) > 0, "no cancel met a run that was still running");
    assert_eq!(asked.into_inner() + too_late.into_inner(), 3 * RUNS);
}
