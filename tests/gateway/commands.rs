//! The commands that watch and look, against a real gateway.

use pyoco_server::model::clock;
use pyoco_server::model::run::RunStatus;
use serde_json::{Value, json};

use crate::stage::{Gateway, Stage, completed};
use crate::support::port::PortLease;
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::wait::PATIENCE;

fn client(stage: &Stage, arguments: &[&str]) -> Finished {
    let server = format!("http://{}", stage.address());
    let mut command = Binary::Client.command();
    run(command.args(["--server", &server]).args(arguments), b"", PATIENCE)
}

#[test]
fn a_watch_tells_each_change_and_how_the_run_ended() {
    let stage = Stage::start();
    let run_id = &stage.submit(&json!({"flow_name": "main", "tag": "parked"}));
    let server = format!("http://{}", stage.address());
    let mut command = Binary::Client.command();
    command.args(["--server", &server, "watch", run_id, "--until-terminal", "--exit-status"]);
    let mut watch = Running::start(&mut command);
    watch.wait_for_line(PATIENCE, "the present snapshot", |line| line.contains("PENDING"));
    assert_eq!(client(&stage, &["cancel", "--run-id", run_id]).code, Some(0));
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
    let again = client(&stage, &["watch", run_id, "--until-terminal", "--output", "status"]);
    assert!(again.stdout.ends_with(&format!("\tsnapshot\tCANCELLED\t{run_id}\n")), "{again:?}");
    // Of what was before --since nothing is told, but the end of the run is known all the same.
    let late = ["watch", run_id, "--since", "9999999999", "--until-terminal", "--exit-status"];
    let late = client(&stage, &late);
    assert_eq!((late.code, late.stdout.as_str()), (Some(4), ""));
    assert_eq!(client(&stage, &["watch", "nope"]).code, Some(1));
}

#[test]
fn a_watch_outlives_its_gateway() {
    let mut stage = Stage::start();
    // A second gateway on a port that stays free while it is away.
    let lease = PortLease::take();
    let mut second = Gateway::start_on(&stage.nats, lease.port(), &[]);
    second.wait_ready();
    stage.put_run("r", 1.0, |run| run.status = RunStatus::Running);
    stage.wait_status("r", "RUNNING");
    let server = format!("http://{}", second.address);
    let mut command = Binary::Client.command();
    command.args(["--server", &server, "watch", "r", "--until-terminal", "--output", "status"]);
    let mut watch = Running::start(&mut command);
    watch.wait_for_line(PATIENCE, "the present snapshot", |line| line.contains("RUNNING"));
    second.process.kill();
    stage.put_run("r", 2.0, completed);
    let mut second = Gateway::start_on(&stage.nats, lease.port(), &[]);
    second.wait_ready();
    let status = watch.wait(PATIENCE);
    assert!(status.success(), "{status:?}: {}", watch.stderr());
    let snapshots: Vec<String> = watch
        .stdout()
        .lines()
        .filter(|line| line.contains("\tsnapshot\t"))
        .map(|line| line.split('\t').nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(snapshots, ["RUNNING", "COMPLETED"]);
    stage.gateway.process.stop(PATIENCE);
}

#[test]
fn workers_and_figures_are_shown() {
    let stage = Stage::start();
    assert_eq!(client(&stage, &["workers"]).stdout, "[]\n");
    assert_eq!(client(&stage, &["workers", "--output", "table"]).stdout, "(no items)\n");
    let record = json!({"worker_id": "w", "state": "IDLE", "tags": ["a", "b"], "last_seen_at": clock::now()});
    stage.bus.workers().put("w", record.to_string().as_bytes()).unwrap();
    crate::support::wait::eventually(PATIENCE, "the worker in the table", || {
        let table = client(&stage, &["workers", "--output", "table"]).stdout;
        table.contains("\nw          IDLE   a,b ").then_some(())
    });
    let refused = client(&stage, &["workers", "--state", "BUSY"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("ERR-PYOCO-0019"), "{}", refused.stderr);
    let figures = client(&stage, &["metrics"]);
    assert_eq!(figures.code, Some(0));
    assert!(figures.stdout.contains("\npyoco_workers_alive_total 1\n"), "{}", figures.stdout);
}
