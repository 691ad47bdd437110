//! Several installations in one NATS account: each has its own, and nobody takes what belongs to another.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, with_env, with_flags};
use crate::support::http::Client;
use crate::support::jetstream;
use crate::support::nats::NatsOptions;
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

fn complete_one(gateway: &Client) {
    let document = "version: 1\nflow: {graph: one}\ntasks: {one: {use: builtin/echo}}";
    gateway.ended_as(&gateway.submit_yaml("default", "f", document), "COMPLETED");
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
    // A worker of the first one, silent for long enough to count as old by the settings of the second one.
    cluster.bus.workers().put("old", br#"{"worker_id":"old"}"#).unwrap();
    cluster.nats.stop();
    let gateway =
        cluster.spawn_gateway(with_env(&[HALF.as_slice(), &[("PYOCO_WORKERS_RETENTION_SEC", "1")]].concat()));
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
    // It would look several times in this time.
    std::thread::sleep(Duration::from_millis(3500));
    assert!(cluster.bus.workers().get("old").unwrap().is_some(), "the gateway tidies what is not its own");
}

#[test]
fn a_bucket_of_runs_whose_jobs_are_elsewhere_is_refused() {
    let cluster = Cluster::new().quick().gateway().start();
    let run_id = cluster.submit(&main_flow());
    eventually(PATIENCE, "the streams name their installation", || is_marked(&cluster).then_some(()));
    // A namespace of its own, and a file of settings that both installations have.
    let shared = [("PYOCO_NAMESPACE", "team2"), ("PYOCO_RUNS_KV_BUCKET", "pyoco_runs")];
    let words = ["KV_pyoco_runs", "`PYOCO_WORK`", "`PYOCO_team2_WORK`"];
    assert_ends_with_words(cluster.spawn_gateway(with_env(&shared)).process, &words);
    assert_ends_with_words(cluster.spawn_worker("thief", with_env(&shared)).process, &words);
    let checked = doctor(&cluster, &shared);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert_words(&checked.stdout, &words);
    assert_eq!(cluster.run(&run_id)["status"], "PENDING");
}

/// The streams as an earlier version, the Python package or an operator has made them.
fn make_by_hand(cluster: &Cluster) {
    for stream in [
        json!({"name": "PYOCO_WORK", "subjects": ["pyoco.work.*"], "retention": "workqueue"}),
        json!({"name": "PYOCO_DLQ", "subjects": ["pyoco.dlq.*"]}),
        json!({"name": "KV_pyoco_runs", "subjects": ["$KV.pyoco_runs.>"], "max_msgs_per_subject": 1,
            "allow_rollup_hdrs": true, "deny_delete": true}),
    ] {
        let call = format!("STREAM.CREATE.{}", stream["name"].as_str().unwrap());
        jetstream::call(&cluster.nats, &call, &stream);
    }
}

fn metadata(cluster: &Cluster, stream: &str) -> Value {
    let info = jetstream::call(&cluster.nats, &format!("STREAM.INFO.{stream}"), &Value::Null);
    let metadata = info["config"]["metadata"].as_object().cloned().unwrap_or_default();
    metadata.into_iter().filter(|(key, _)| key.starts_with("pyoco")).collect::<serde_json::Map<_, _>>().into()
}

fn is_marked(cluster: &Cluster) -> bool {
    metadata(cluster, "PYOCO_WORK") == json!({"pyoco_runs_bucket": "pyoco_runs"})
        && metadata(cluster, "KV_pyoco_runs")
            == json!({"pyoco_work_stream": "PYOCO_WORK", "pyoco_work_subjects": "pyoco.work"})
}

#[test]
fn streams_that_were_made_by_others_are_used_and_name_their_installation_then() {
    let cluster = Cluster::new().start();
    make_by_hand(&cluster);
    let gateway = cluster.start_gateway(with_env(&[]));
    let _worker = cluster.start_worker("w1", with_flags(&["--tags", "default"]));
    complete_one(&gateway);
    eventually(PATIENCE, "the streams name their installation", || is_marked(&cluster).then_some(()));
    // The rest of the settings is as it was.
    let info = jetstream::call(&cluster.nats, "STREAM.INFO.PYOCO_WORK", &Value::Null);
    assert_eq!(
        (&info["config"]["subjects"], &info["state"]["messages"]),
        (&json!(["pyoco.work.*"]), &json!(0))
    );
    assert_eq!(doctor(&cluster, &[]).code, Some(0));
}

#[test]
fn doctor_writes_into_streams_whose_they_are() {
    let cluster = Cluster::new().start();
    make_by_hand(&cluster);
    let fix = || {
        let mut command = Binary::Admin.command();
        run(command.args(["--nats-url", &cluster.nats.url(), "doctor", "--fix"]), b"", PATIENCE)
    };
    assert_words(&fix().stdout, &["\"fixed\":\"metadata\""]);
    assert!(is_marked(&cluster));
    assert!(!fix().stdout.contains("\"metadata\""));
}

#[test]
fn a_nats_user_who_may_not_change_streams_uses_them_as_they_are() {
    let user = "{user: a, password: a, permissions: {publish: {deny: \"$JS.API.STREAM.UPDATE.>\"}}}";
    let nats = NatsOptions {
        config_lines: vec![format!("authorization {{ users: [{user}] }}"), "no_auth_user: a".to_owned()],
        ..NatsOptions::default()
    };
    let cluster = Cluster::new().nats(nats).start();
    make_by_hand(&cluster);
    let gateway = cluster.start_gateway(with_env(&[]));
    let _worker = cluster.start_worker("w1", with_flags(&["--tags", "default"]));
    // A second one comes after the gateway has tried.
    for _ in 0..2 {
        complete_one(&gateway);
    }
    assert_eq!(metadata(&cluster, "KV_pyoco_runs"), json!({}));
}

#[test]
fn a_consumer_that_is_pushed_to_stops_its_own_tag_alone() {
    let cluster = Cluster::new().quick().start();
    cluster.bus.queue().ensure().unwrap();
    let name = "pyoco_workers_pushed";
    let config = json!({"durable_name": name, "deliver_subject": "elsewhere", "ack_policy": "explicit",
        "filter_subject": "pyoco.work.pushed"});
    let body = json!({"stream_name": "PYOCO_WORK", "config": config});
    jetstream::call(&cluster.nats, &format!("CONSUMER.DURABLE.CREATE.PYOCO_WORK.{name}"), &body);
    let gateway = cluster.start_gateway(with_env(&[]));
    let _worker = cluster.start_worker("w1", with_flags(&["--tags", "default"]));
    complete_one(&gateway);
    let answer = eventually(PATIENCE, "the gateway says which one", || {
        let answer = gateway.get("/readyz");
        answer.text().contains(name).then_some(answer)
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_words(&answer.text(), &["\"consumers\"", "push based", "\"low\""]);
    let checked = doctor(&cluster, &[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert_words(&checked.stdout, &[name, "push based"]);
}
