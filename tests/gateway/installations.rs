//! Several installations in one NATS account: each has its own, and nobody takes what belongs to another.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, with_env, with_flags};
use crate::support::jetstream;
use crate::support::process::{Binary, Finished, Running, run};
use crate::support::runs::main_flow;
use crate::support::wait::{PATIENCE, eventually};

const SECOND: [(&str, &str); 1] = [("PYOCO_NAMESPACE", "team2")];
/// An operator who has thought of some names and not of the others.
const HALF: [(&str, &str); 2] =
    [("PYOCO_WORK_SUBJECT_PREFIX", "team2.work"), ("PYOCO_RUNS_KV_BUCKET", "team2_runs")];

fn doctor(cluster: &Cluster, env: &[(&str, &str)]) -> Finished {
    let mut command = Binary::Admin.command();
    command.args(["--nats-url", &cluster.nats.url(), "doctor"]).envs(env.iter().copied());
    run(&mut command, b"", PATIENCE)
}

fn assert_ends_with_words(mut process: Running, words: &[&str]) {
    let status = process.wait(PATIENCE);
    let stderr = process.stderr();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_words(&stderr, words);
}

fn assert_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
}

#[test]
fn each_namespace_executes_its_own_jobs() {
    let cluster = Cluster::new().quick().gateway().worker("w1").start();
    let second = cluster.start_gateway(with_env(&SECOND));
    let _worker = cluster.spawn_worker("w2", with_env(&SECOND));
    second.wait_worker("w2");
    let document = "version: 1\nflow: {graph: one}\ntasks: {one: {use: builtin/echo}}";
    let ours: Vec<String> = (0..3).map(|_| cluster.submit_yaml("default", "f", document)).collect();
    let theirs: Vec<String> = (0..3).map(|_| second.submit_yaml("default", "f", document)).collect();
    for run_id in &ours {
        assert_eq!(cluster.ended_as(run_id, "COMPLETED")["worker_id"], "w1");
    }
    for run_id in &theirs {
        assert_eq!(second.ended_as(run_id, "COMPLETED")["worker_id"], "w2");
    }
    cluster.wait_count(3);
    second.wait_count(3);
    assert_eq!(cluster.get(&format!("/runs/{}", theirs[0])).status, 404);
    assert_eq!(cluster.get_json("/workers").as_array().unwrap().len(), 1);
    let names = jetstream::call(&cluster.nats, "STREAM.NAMES", &Value::Null);
    let names = names["streams"].to_string();
    for name in
        ["PYOCO_WORK", "KV_pyoco_runs", "PYOCO_team2_WORK", "KV_pyoco_team2_runs", "PYOCO_team2_ADVISORY"]
    {
        assert!(names.contains(&format!("\"{name}\"")), "{name}: {names}");
    }
    assert_eq!(doctor(&cluster, &SECOND).code, Some(0));
}

#[test]
fn an_explicit_name_wins_and_a_namespace_that_cannot_be_read_ends_the_program() {
    let show = |env: &[(&str, &str)]| {
        let mut command = Binary::Server.command();
        run(command.args(["config", "show"]).envs(env.iter().copied()), b"", PATIENCE).stdout
    };
    let shown = show(&[("PYOCO_NAMESPACE", "team2"), ("PYOCO_RUNS_KV_BUCKET", "mine")]);
    assert_words(
        &shown,
        &[
            "PYOCO_NAMESPACE=team2",
            "PYOCO_RUNS_KV_BUCKET=mine",
            "PYOCO_WORKERS_KV_BUCKET=pyoco_team2_workers",
            "PYOCO_WORK_SUBJECT_PREFIX=pyoco_team2.work",
            "PYOCO_DLQ_STREAM=PYOCO_team2_DLQ",
        ],
    );
    // By default it would be part of another installation.
    for mut command in [Binary::Server.command(), Binary::Worker.command(), Binary::Admin.command()] {
        command.env("PYOCO_NAMESPACE", "team 2");
        let ended = match command.get_program().to_string_lossy().ends_with("admin") {
            true => run(command.arg("doctor"), b"", PATIENCE),
            false => run(&mut command, b"", PATIENCE),
        };
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert_words(&ended.stderr, &["PYOCO_NAMESPACE"]);
    }
}

#[test]
fn what_belongs_to_another_installation_is_refused_with_both_names() {
    let cluster = Cluster::new().quick().gateway().start();
    let run_id = cluster.submit(&main_flow());
    let both = ["PYOCO_WORK", "pyoco.work.>", "team2.work.>", "PYOCO_NAMESPACE"];
    assert_ends_with_words(cluster.spawn_worker("thief", with_env(&HALF)).process, &both);
    assert_ends_with_words(cluster.spawn_gateway(with_env(&HALF)).process, &both);
    let checked = doctor(&cluster, &HALF);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert_words(&checked.stdout, &both);
    // With the subjects of the first one, but other snapshots.
    let buckets = ["`pyoco_runs`", "`team2_runs`"];
    assert_ends_with_words(cluster.spawn_worker("thief", with_env(&HALF[1..])).process, &buckets);
    // Its own subjects, in a stream that another one has them in.
    let overlap = [("PYOCO_NAMESPACE", "team2"), ("PYOCO_WORK_SUBJECT_PREFIX", "pyoco.work")];
    assert_ends_with_words(
        cluster.spawn_worker("thief", with_env(&overlap)).process,
        &["PYOCO_WORK", "PYOCO_team2_WORK"],
    );
    // Nobody has touched the run.
    assert_eq!((cluster.run(&run_id)["status"].as_str(), cluster.queued()), (Some("PENDING"), 1));
    let _owner = cluster.start_worker("owner", with_flags(&["--tags", "default"]));
    assert_eq!(cluster.ended(&run_id)["worker_id"], "owner");
}

#[test]
fn a_consumer_of_other_jobs_is_refused() {
    let cluster = Cluster::new().quick().gateway().start();
    for (tag, config, words) in [
        ("wide", json!({"filter_subject": "pyoco.work.>"}), ["`pyoco.work.>`", "`pyoco.work.wide`"]),
        (
            "two",
            json!({"filter_subjects": ["pyoco.work.two", "pyoco.work.x"]}),
            ["`pyoco.work.x`", "`pyoco.work.two`"],
        ),
    ] {
        let name = format!("pyoco_workers_{tag}");
        let mut config = config;
        config["durable_name"] = name.as_str().into();
        config["ack_policy"] = "explicit".into();
        let body = json!({"stream_name": "PYOCO_WORK", "config": config});
        jetstream::call(&cluster.nats, &format!("CONSUMER.DURABLE.CREATE.PYOCO_WORK.{name}"), &body);
        let worker = cluster.spawn_worker("w", with_flags(&["--tags", tag]));
        assert_ends_with_words(worker.process, &[&name, words[0], words[1]]);
        let checked = doctor(&cluster, &[]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
        assert_words(&checked.stdout, &[&name, words[0], words[1]]);
        jetstream::call(&cluster.nats, &format!("CONSUMER.DELETE.PYOCO_WORK.{name}"), &Value::Null);
    }
}

#[test]
fn a_nats_that_comes_later_is_looked_at_too() {
    let mut cluster = Cluster::new().quick().gateway().start();
    cluster.submit(&main_flow());
    cluster.nats.stop();
    let gateway = cluster.spawn_gateway(with_env(&HALF));
    let worker = cluster.spawn_worker("thief", with_env(&HALF));
    gateway.wait_answer("/readyz", 503);
    // Beyond the two seconds in which its start would have ended.
    std::thread::sleep(Duration::from_millis(2200));
    cluster.nats.restart();
    assert_ends_with_words(worker.process, &["pyoco.work.>", "team2.work.>"]);
    let answer = eventually(PATIENCE, "the gateway says why it is not ready", || {
        let answer = gateway.get("/readyz");
        (answer.status == 503 && answer.text().contains("pyoco.work.>")).then_some(answer)
    });
    assert_words(&answer.text(), &["team2.work.>", "PYOCO_NAMESPACE"]);
    let refused = gateway.post("/runs", &main_flow());
    assert_eq!(refused.status, 503, "{}", refused.text());
}
