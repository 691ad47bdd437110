//! How a worker ends: what runs is finished or given back, and nothing of it is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyoco_server::bus::PullEvent;
use pyoco_server::model::run::RunStatus;
use pyoco_server::model::{clock, json};
use serde_json::{Value, json};

use crate::flows::{self, Gate, gated};
use crate::support::cluster::{Cluster, Options, with_flags};
use crate::support::jetstream;
use crate::support::measure::{self, in_child};
use crate::support::runs::new_job;
use crate::support::wait::{PATIENCE, eventually};

#[test]
fn sigterm_finishes_what_runs_and_takes_nothing_new() {
    let cluster = Cluster::new().quick().start();
    let mut worker = cluster.start_worker("w1", with_flags(&["--concurrency", "1"]));
    let run_id = cluster.queue_yaml("default", &flows::sleep(4.0));
    cluster.wait_stored(&run_id, "RUNNING");
    worker.terminate();
    let waiting = cluster.queue_yaml("default", flows::ECHO);
    let status = worker.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", worker.stderr());
    assert_eq!(cluster.wait_stored(&run_id, "COMPLETED")["attempt"], 1);
    assert_eq!(cluster.stored(&waiting).unwrap()["status"], "PENDING");
    let record = cluster.record("w1").unwrap();
    assert_eq!(record["state"], "STOPPED_GRACEFUL");
    assert_eq!(record["stop_reason"], "graceful_shutdown");
    assert_eq!((&record["last_run_id"], &record["last_run_status"]), (&json!(run_id), &json!("COMPLETED")));
    assert!(record["stopped_at"].as_f64().is_some(), "{record}");
    // It had no job in its hands that would have to wait for ack_wait now.
    let _next = cluster.start_worker("w2", Options::default());
    cluster.wait_stored_within(Duration::from_secs(20), &waiting, "COMPLETED");
}

#[test]
fn an_idle_worker_ends_at_once() {
    let cluster = Cluster::new().quick().start();
    let mut worker = cluster.start_worker("w1", with_flags(&["--tags", "a,b,c"]));
    let asked = Instant::now();
    assert_eq!(worker.stop(Duration::from_secs(10)).code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4), "took {:?}", asked.elapsed());
    assert_eq!(cluster.record("w1").unwrap()["state"], "STOPPED_GRACEFUL");
}

/// A worker of the Python side executes it, which never names the delivery.
#[test]
fn a_slot_that_only_watches_a_run_keeps_no_worker_from_ending() {
    let cluster = Cluster::new().quick().start();
    let job = new_job("watched", "default", "main", json!({}));
    let beat = || {
        cluster.put_run("watched", clock::now(), |run| {
            run.status = RunStatus::Running;
            run.heartbeat_at = Some(clock::now());
        });
    };
    beat();
    jetstream::publish(&cluster.nats, "pyoco.work.default", &json::to_wire(&job).unwrap());
    // A pull for more slots would be open yet, and take the job once more.
    let flags = ["--concurrency", "1", "--drain-timeout-sec", "60"];
    let mut worker = cluster.start_worker("w1", with_flags(&flags));
    eventually(PATIENCE, "the job is delivered", || {
        beat();
        let call = "CONSUMER.INFO.PYOCO_WORK.pyoco_workers_default";
        (jetstream::try_call(&cluster.nats, call, &Value::Null)["num_ack_pending"] == 1).then_some(())
    });
    let asked = Instant::now();
    assert_eq!(worker.stop(Duration::from_secs(20)).code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "took {:?}", asked.elapsed());
    // The job was given back: it is delivered long before `ack_wait` is over.
    let mut inbox = cluster.bus.queue().pull_inbox(&["default".to_owned()]);
    inbox.ask(0, 1, true).unwrap();
    eventually(Duration::from_secs(10), "the job comes again", || {
        let arrival = inbox.arrivals().recv_timeout(Duration::from_secs(1)).ok()?;
        matches!(inbox.take(arrival), PullEvent::Delivered { .. }).then_some(())
    });
    assert_eq!(cluster.stored("watched").unwrap()["status"], "RUNNING");
}

#[test]
fn what_outlives_the_drain_time_is_given_back_and_finished_by_another() {
    let cluster = Cluster::new().quick().start();
    let flags = ["--concurrency", "2", "--drain-timeout-sec", "1"];
    let mut worker = cluster.start_worker("w1", with_flags(&flags));
    let listening = cluster.queue_yaml("default", &flows::sleep(12.0));
    let stubborn = cluster.queue_yaml("default", &flows::stubborn(12.0));
    for run_id in [&listening, &stubborn] {
        cluster.wait_stored(run_id, "RUNNING");
    }
    let _other = cluster.start_worker("w2", with_flags(&["--concurrency", "2"]));
    let asked = Instant::now();
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(10)).code(), Some(0), "{}", worker.stderr());
    let took = asked.elapsed();
    assert!((1.0..8.0).contains(&took.as_secs_f64()), "took {took:?}");
    for run_id in [&listening, &stubborn] {
        eventually(Duration::from_secs(8), "the other worker has it", || {
            (cluster.stored(run_id)?["worker_id"] == "w2").then_some(())
        });
    }
    for run_id in [&listening, &stubborn] {
        let history = cluster.settled(run_id, "COMPLETED");
        assert_eq!(history.last()["attempt"], 2);
    }
    assert_eq!(cluster.record("w1").unwrap()["state"], "STOPPED_GRACEFUL");
}

#[test]
fn a_job_that_is_given_back_at_the_end_does_not_come_to_the_worker_that_ends() {
    let cluster = Cluster::new().quick().start();
    // The slots that are free keep pulls open.
    let flags = ["--concurrency", "4", "--drain-timeout-sec", "1"];
    let mut worker = cluster.start_worker("w1", with_flags(&flags));
    let run_id = cluster.queue_yaml("default", &flows::stubborn(3.0));
    cluster.wait_stored(&run_id, "RUNNING");
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(10)).code(), Some(0), "{}", worker.stderr());
    let _other = cluster.start_worker("w2", Options::default());
    let stored = cluster.wait_stored_within(Duration::from_secs(15), &run_id, "COMPLETED");
    assert_eq!((&stored["worker_id"], &stored["lost_attempts"]), (&json!("w2"), &Value::Null));
}

#[test]
fn a_second_sigterm_leaves_at_once() {
    let cluster = Cluster::new().quick().start();
    let mut worker = cluster.start_worker("w1", Options::default());
    let run_id = cluster.queue_yaml("default", &flows::stubborn(60.0));
    cluster.wait_stored(&run_id, "RUNNING");
    worker.terminate();
    worker.wait_for_line(PATIENCE, "that it waits", |line| line.contains("waiting for what runs"));
    let asked = Instant::now();
    worker.terminate();
    assert_eq!(worker.wait(Duration::from_secs(10)).code(), Some(128 + 15));
    assert!(asked.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_worker_can_be_stopped_before_it_has_ever_reached_nats() {
    let mut cluster = Cluster::new().quick().start();
    cluster.nats.stop();
    let mut worker = cluster.spawn_worker("w1", Options::default());
    worker.wait_for_line(PATIENCE, "that it waits for NATS", |line| line.contains("cannot connect"));
    let asked = Instant::now();
    assert_eq!(worker.stop(Duration::from_secs(10)).code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
}

#[test]
fn a_stopped_worker_leaves_no_thread_behind() {
    // In a process of its own, where nobody else's threads come and go.
    if !in_child("stopping::a_stopped_worker_leaves_no_thread_behind") {
        return;
    }
    let cluster = Cluster::new().quick().envs(&[("PYOCO_CANCEL_GRACE_PERIOD_SEC", "0.2")]).start();
    let names = || measure::thread_names(measure::own());
    let before = names();
    for round in 0..3 {
        let gate = Arc::new(Gate::default());
        gate.open();
        let worker = cluster.local_worker("w1", &["a", "b"], 4, gated(&gate, PATIENCE));
        let mut runs: Vec<String> = (0..10).map(|_| cluster.queue("a", "gated", json!({}))).collect();
        runs.push(cluster.queue_yaml("b", &flows::fail("boom")));
        // Its thread is given up and ends a second later.
        let stubborn = cluster.queue_yaml("b", &flows::stubborn(1.0));
        cluster.wait_stored(&stubborn, "RUNNING");
        cluster.mark_cancelling(&stubborn);
        cluster.wait_stored(&stubborn, "CANCELLED");
        cluster.wait_queue_empty();
        worker.stop().unwrap();
        // The crate's threads of a dropped connection may take up to two minutes; they are its own.
        // They inherit the name of the thread that dialled.
        let theirs = ["nats_", "nats-", "dial-"];
        let ours = |name: &&String| !theirs.iter().any(|prefix| name.starts_with(prefix));
        let leftover = |now: &[String]| -> Vec<String> {
            let mut left: Vec<String> = now.iter().filter(ours).cloned().collect();
            for name in before.iter().filter(ours) {
                if let Some(at) = left.iter().position(|other| other == name) {
                    left.remove(at);
                }
            }
            left
        };
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = leftover(&names());
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "round {round} has left {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    eprintln!("threads: {} before, {} after", before.len(), names().len());
}

#[test]
fn a_worker_does_not_grow_threads_or_descriptors_with_its_runs() {
    let cluster = Cluster::new().quick().start();
    let worker = cluster.start_worker("w1", with_flags(&["--concurrency", "4"]));
    let (threads, descriptors) = (|| measure::threads(worker.pid()), || measure::descriptors(worker.pid()));
    let burst = || {
        for _ in 0..60 {
            cluster.queue_yaml("default", flows::ECHO);
        }
        cluster.wait_queue_empty();
        cluster.wait_record("w1", "idle", |record| record["state"] == "IDLE");
    };
    burst();
    let idle = eventually(PATIENCE, "threads settle", || {
        let before = threads();
        std::thread::sleep(Duration::from_millis(100));
        (threads() == before).then_some((before, descriptors()))
    });
    burst();
    eventually(PATIENCE, &format!("back at {idle:?} threads and descriptors"), || {
        (threads() <= idle.0 && descriptors() <= idle.1).then_some(())
    });
}
