//! What a worker says to systemd, and when.

use std::time::Duration;

use crate::flows;
use crate::support::cluster::{Cluster, with_env, with_flags};
use crate::support::nats::NatsOptions;
use crate::support::python::V08;
use crate::support::systemd::{Systemd, WATCHDOG, beats};
use crate::support::wait::PATIENCE;

fn is_ready(line: &str) -> bool {
    line == "READY=1"
}

#[test]
fn a_worker_is_ready_when_nats_has_come_and_lives_until_its_drain_is_over() {
    let mut systemd = Systemd::start();
    let mut cluster = Cluster::new().quick().start();
    cluster.nats.stop();
    let mut worker = cluster.spawn_worker("w1", systemd.options().and(with_flags(&["--python", "off"])));
    systemd.wait_for("what it waits for", |line| line == "STATUS=worker: waits for NATS");
    systemd.listen(Duration::from_secs(1));
    assert!(!systemd.seen.iter().any(|line| is_ready(line)), "{:?}", systemd.seen);
    cluster.nats.restart();
    systemd.wait_for("that it is ready", is_ready);
    for _ in 0..4 {
        systemd.wait_for("a sign of life", |line| line == "WATCHDOG=1");
    }
    // An outage of NATS does not end them: a restart would mend nothing.
    cluster.nats.pause();
    let lines = systemd.listen(WATCHDOG * 10);
    assert!(beats(&lines) >= 4, "{lines:?}");
    cluster.nats.resume();
    let run_id = cluster.queue_yaml("default", &flows::sleep(2.5));
    cluster.wait_stored(&run_id, "RUNNING");
    systemd.wait_for("that it is busy", |line| line.starts_with("STATUS=worker: executes 1 of "));
    worker.terminate();
    systemd.wait_for("that it stops", |line| line == "STOPPING=1");
    assert_eq!(cluster.stored(&run_id).unwrap()["status"], "RUNNING", "before the drain");
    let lines = systemd.listen(WATCHDOG * 3);
    assert!(beats(&lines) >= 3, "its drain shows life: {lines:?}");
    assert_eq!(worker.wait(PATIENCE).code(), Some(0));
    cluster.wait_stored(&run_id, "COMPLETED");
    let count = |wanted: &str| systemd.seen.iter().filter(|line| *line == wanted).count();
    assert_eq!((count("READY=1"), count("STOPPING=1")), (1, 1), "{:?}", systemd.seen);
}

#[test]
fn a_puller_that_is_held_up_shows_no_life() {
    const HOLD: Duration = Duration::from_secs(1);
    // Without the permission to ask for streams, each question lasts until its deadline.
    let nats = |denied: &str| NatsOptions {
        config_lines: vec![format!(
            "authorization {{ users: [ {{ user: a, password: a }}, {{ user: w, password: w, \
             permissions: {{ publish: {{ deny: [{denied}] }} }} }} ] }}\nno_auth_user: a"
        )],
        ..NatsOptions::default()
    };
    let mut systemd = Systemd::start();
    let mut cluster = Cluster::new().quick().nats(nats("\"$JS.API.STREAM.*.PYOCO_WORK\"")).start();
    let user = [("PYOCO_NATS_USER", "w"), ("PYOCO_NATS_PASSWORD", "w")];
    let patience = [("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")];
    let options = systemd.options().and(with_env(&user)).and(with_env(&patience));
    let _worker = cluster.spawn_worker("w1", options.and(with_flags(&["--python", "off"])));
    systemd.wait_for("a sign of life between two questions", |line| line == "WATCHDOG=1");
    let lines = systemd.listen(HOLD * 3);
    assert!((1..=4).contains(&beats(&lines)), "as often as it asks: {lines:?}");
    assert!(!systemd.seen.iter().any(|line| is_ready(line)), "{:?}", systemd.seen);
    cluster.nats.reload(nats(""));
    systemd.wait_for("that it is ready", is_ready);
    let lines = systemd.listen(HOLD * 2);
    assert!(beats(&lines) >= 6, "{lines:?}");
}

#[test]
fn a_worker_that_cannot_work_lives_and_says_why() {
    let mut systemd = Systemd::start_abstract();
    let cluster = Cluster::new().quick().start();
    let worker = cluster.spawn_worker("w1", systemd.options().python(V08));
    systemd.wait_for("that it is ready", is_ready);
    std::fs::remove_dir_all(worker.folder.path()).unwrap();
    cluster.queue_yaml("default", "flow: {graph: a}\ntasks: {a: {callable: 'os:getpid'}}\n");
    systemd.wait_for("that it is unavailable", |line| {
        line.starts_with("STATUS=worker: cannot execute runs: ") && line.contains("working directory")
    });
    let lines = systemd.listen(WATCHDOG * 5);
    assert!(beats(&lines) >= 5, "{lines:?}");
}
