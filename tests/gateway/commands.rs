//! The commands that watch and look, against a real gateway.

use pyoco_server::model::clock;
use pyoco_server::model::run::RunStatus;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::Finished;
use crate::support::runs::completed;
use crate::support::wait::{PATIENCE, eventually};

fn client(cluster: &Cluster, arguments: &[&str]) -> Finished {
    cluster.program().finish(arguments)
}

#[test]
fn a_watch_tells_each_change_and_how_the_run_ended() {
    let cluster = Cluster::with_gateway();
    let run_id = &cluster.submit(&json!({"flow_name": "main", "tag": "parked"}));
    let watch = ["watch", run_id, "--until-terminal", "--exit-status"];
    let mut watch = cluster.program().start(&watch);
    watch.wait_for_line(PATIENCE, "the present snapshot", |line| line.contains("PENDING"));
    assert_eq!(client(&cluster, &["cancel", "--run-id", run_id]).code, Some(0));
    watch.wait_for_line(PATIENCE, "the cancel", |line| line.contains("\"CANCELLING\""));
    assert_eq!(watch.wait(PATIENCE).code(), Some(4));
    let statuses: Vec<Value> = watch
        .stdout()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["event"] == "snapshot")
        .map(|line| line["data"]["snapshot"]["status"].clone())
        .collect();
    assert_eq!(statuses, ["PENDING", "CANCELLING", "CANCELLED"]);
    let again = client(&cluster, &["watch", run_id, "--until-terminal", "--output", "status"]);
    assert!(again.stdout.ends_with(&format!("\tsnapshot\tCANCELLED\t{run_id}\n")), "{again:?}");
    // Of what was before --since nothing is told, but the end of the run is known all the same.
    let late = ["watch", run_id, "--since", "9999999999", "--until-terminal", "--exit-status"];
    let late = client(&cluster, &late);
    assert_eq!((late.code, late.stdout.as_str()), (Some(4), ""));
    assert_eq!(client(&cluster, &["watch", "nope"]).code, Some(1));
}

#[test]
fn a_watch_outlives_its_gateway() {
    let mut cluster = Cluster::with_gateway();
    // A second gateway, whose port stays free while it is away.
    let mut second = cluster.another_gateway();
    cluster.put_run("r", 1.0, |run| run.status = RunStatus::Running);
    cluster.wait_status("r", "RUNNING");
    let watch = ["watch", "r", "--until-terminal", "--output", "status"];
    let mut watch = second.program().start(&watch);
    watch.wait_for_line(PATIENCE, "the present snapshot", |line| line.contains("RUNNING"));
    second.process.kill();
    cluster.put_run("r", 2.0, completed);
    second.restart();
    let status = watch.wait(PATIENCE);
    assert!(status.success(), "{status:?}: {}", watch.stderr());
    let snapshots: Vec<String> = watch
        .stdout()
        .lines()
        .filter(|line| line.contains("\tsnapshot\t"))
        .map(|line| line.split('\t').nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(snapshots, ["RUNNING", "COMPLETED"]);
    cluster.gateways[0].process.stop(PATIENCE);
}

#[test]
fn workers_and_figures_are_shown() {
    let cluster = Cluster::with_gateway();
    assert_eq!(client(&cluster, &["workers"]).stdout, "[]\n");
    assert_eq!(client(&cluster, &["workers", "--output", "table"]).stdout, "(no items)\n");
    let record = json!({"worker_id": "w", "state": "IDLE", "tags": ["a", "b"], "last_seen_at": clock::now()});
    cluster.bus.workers().put("w", record.to_string().as_bytes()).unwrap();
    eventually(PATIENCE, "the worker in the table", || {
        let table = client(&cluster, &["workers", "--output", "table"]).stdout;
        table.contains("\nw          IDLE   a,b ").then_some(())
    });
    let refused = client(&cluster, &["workers", "--state", "BUSY"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("ERR-PYOCO-0019"), "{}", refused.stderr);
    let figures = client(&cluster, &["metrics"]);
    assert_eq!(figures.code, Some(0));
    assert!(figures.stdout.contains("\npyoco_workers_alive_total 1\n"), "{}", figures.stdout);
}
