//! Gateway and worker with no more permissions in NATS than `docs/operations.md` says.

use crate::support::cluster::{Cluster, with_env};
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::python::V08;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::WheelFile;

/// The users of the page, and one who may do all: the one of whoever names none.
fn documented() -> NatsOptions {
    let page = include_str!("../../docs/operations.md");
    let block = page.split("```text\n").find(|block| block.starts_with("authorization {")).unwrap();
    let users = block.split("```").next().unwrap();
    let users = users.replacen("users: [", "users: [ { user: \"setup\", password: \"setup\" }", 1);
    NatsOptions { config_lines: vec![users, "no_auth_user: setup".into()], ..NatsOptions::default() }
}

fn as_user(name: &str) -> [(&str, &str); 3] {
    [("PYOCO_NATS_USER", name), ("PYOCO_NATS_PASSWORD", "change-me"), ("PYOCO_WHEEL_SYNC_ENABLED", "true")]
}

fn violations(nats: &NatsServer) -> Vec<String> {
    nats.log().lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
}

#[test]
fn gateway_and_worker_need_no_more_than_the_documented_permissions() {
    let mut cluster = Cluster::new().quick().nats(documented()).start();
    cluster.bus.ensure_resources().unwrap();
    let gateway = cluster.start_gateway(with_env(&as_user("gateway")));
    let worker_options = with_env(&as_user("worker")).python(V08);
    let mut worker = cluster.start_worker("w1", worker_options.clone());
    let document = |task: &str| format!("version: 1\nflow: {{graph: t}}\ntasks: {{t: {{{task}}}}}");
    let run = |task: &str| gateway.submit_yaml("default", "hello", &document(task));
    gateway.ended_as(&run("use: builtin/echo"), "COMPLETED");
    gateway.ended_as(&run("use: builtin/fail"), "FAILED");
    cluster.wait_dlq(1);
    let slow = run("use: builtin/sleep, inputs: {seconds: 60}");
    gateway.wait_status(&slow, "RUNNING");
    gateway.cancel(&slow);
    gateway.ended_as(&slow, "CANCELLED");
    let wheel = WheelFile::new("acme", "1.0");
    gateway.add_wheel(&wheel, "default");
    gateway.wait_installed("w1", &[&wheel.file_name()]);
    assert_eq!(gateway.delete_wheel(&wheel.file_name()).status, 200);
    eventually(PATIENCE, "the depth of the queue", || {
        gateway.get("/metrics").text().contains("pyoco_queue_depth{").then_some(())
    });
    // A worker that dies, and another one to which the gateway gives its run.
    let lost = run("use: builtin/sleep, inputs: {seconds: 1}");
    gateway.wait_status(&lost, "RUNNING");
    worker.kill();
    let _second = cluster.start_worker("w2", worker_options);
    gateway.ended_as(&lost, "COMPLETED");
    assert_eq!(violations(&cluster.nats), Vec::<String>::new());
    assert_eq!(gateway.get_json("/readyz")["status"], "ok");
    cluster.nats.restart();
    gateway.wait_ready();
    let after = gateway.submit_yaml("default", "hello", &document("use: builtin/echo"));
    gateway.ended_as(&after, "COMPLETED");
    assert_eq!(violations(&cluster.nats), Vec::<String>::new());
}
