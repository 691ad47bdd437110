//! `pyoco-server-admin doctor`: each thing that it finds, on a real nats-server that has it, and what `--fix`
//! changes and what it leaves.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pyoco_server::bus::PullEvent;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::nats_cluster::NatsCluster;
use crate::support::port::PortLease;
use crate::support::process::{Binary, run};
use crate::support::wait::{PATIENCE, eventually};

const CONSUMER: &str = "pyoco_workers_default";

/// What a run of `doctor` has printed and how it ended.
#[derive(Debug)]
struct Report {
    code: Option<i32>,
    lines: Vec<Value>,
}

fn doctor(url: &str, flags: &[&str], env: &[(&str, &str)]) -> Report {
    let mut command = Binary::Admin.command();
    command.args(["--nats-url", url, "doctor"]).args(flags).envs(env.iter().copied());
    let ended = run(&mut command, b"", PATIENCE);
    let lines = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Report { code: ended.code, lines }
}

impl Report {
    /// The line of a check that is no line of a fix.
    fn of(&self, check: &str) -> &Value {
        let found = self.lines.iter().find(|line| line["check"] == check && line.get("fixed").is_none());
        found.unwrap_or_else(|| panic!("no {check} in {self:?}"))
    }

    fn warning(&self, check: &str) -> &str {
        let line = self.of(check);
        assert_eq!(line["ok"], true, "{line}");
        line["warning"].as_str().unwrap_or_else(|| panic!("no warning in {line}"))
    }

    fn error(&self, check: &str) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.of(check)["error"].as_str().unwrap_or_else(|| panic!("no error of {check}: {self:?}"))
    }

    /// Check, setting, before and after of each fix.
    fn fixed(&self) -> Vec<(&str, &str, &Value, &Value)> {
        let fixed = self.lines.iter().filter(|line| line.get("fixed").is_some());
        let text = |line: &'_ Value, key: &str| line[key].as_str().unwrap().to_owned().leak() as &str;
        fixed.map(|line| (text(line, "check"), text(line, "fixed"), &line["was"], &line["is"])).collect()
    }

    fn warnings(&self) -> Vec<&Value> {
        self.lines.iter().filter(|line| line.get("warning").is_some() || line["ok"] != true).collect()
    }

    fn has_no_warnings(&self) -> bool {
        self.code == Some(0) && self.warnings().is_empty()
    }

    fn assert_no_warnings(&self) {
        assert_eq!((self.code, self.warnings()), (Some(0), Vec::new()), "{self:?}");
    }
}

fn stream_config(nats: &NatsServer, stream: &str) -> Value {
    jetstream::call(nats, &format!("STREAM.INFO.{stream}"), &Value::Null)["config"].take()
}

/// All streams and buckets, and the consumer of `default`.
fn installed() -> Cluster {
    let cluster = Cluster::new().start();
    cluster.bus.ensure_resources().unwrap();
    cluster.bus.queue().ensure_consumer("default").unwrap();
    cluster
}

#[test]
fn consumers_get_the_settings_that_are_asked_for_later() {
    let cluster = installed();
    let url = &cluster.nats.url();
    doctor(url, &[], &[]).assert_no_warnings();
    let env = [
        ("PYOCO_CONSUMER_MAX_ACK_PENDING", "50"),
        ("PYOCO_CONSUMER_ACK_WAIT_SEC", "42.5"),
        ("PYOCO_CONSUMER_MAX_DELIVER", "30"),
    ];
    let before = doctor(url, &[], &env);
    assert_eq!(before.code, Some(0), "{before:?}");
    let check = format!("consumer {CONSUMER}");
    let warning = before.warning(&check);
    for part in [
        "max_ack_pending is 200, and 50 is asked for",
        "ack_wait is 30s, and 42.5s is asked for",
        "max_deliver is 20, and 30 is asked for",
        "doctor --fix",
    ] {
        assert!(warning.contains(part), "no `{part}` in {warning}");
    }
    assert_eq!(
        before.of(&check)["differences"][2],
        json!({"setting": "max_ack_pending", "is": 200, "asked": 50})
    );
    let fixed = doctor(url, &["--fix"], &env);
    assert_eq!(
        fixed.fixed(),
        [
            (&*check, "ack_wait", &json!(30), &json!(42.5)),
            (&*check, "max_deliver", &json!(20), &json!(30)),
            (&*check, "max_ack_pending", &json!(200), &json!(50)),
        ]
    );
    let info = jetstream::call(&cluster.nats, &format!("CONSUMER.INFO.PYOCO_WORK.{CONSUMER}"), &Value::Null);
    let config = &info["config"];
    assert_eq!(
        (&config["max_ack_pending"], &config["ack_wait"], &config["max_deliver"]),
        (&json!(50), &json!(42_500_000_000_u64), &json!(30))
    );
    doctor(url, &[], &env).assert_no_warnings();
    assert_eq!(doctor(url, &["--fix"], &env).fixed(), []);
    // A worker that runs would lose its jobs to others with less than it has read.
    let less = [("PYOCO_CONSUMER_MAX_ACK_PENDING", "50"), ("PYOCO_CONSUMER_MAX_DELIVER", "9")];
    let left = doctor(url, &["--fix"], &less);
    assert_eq!(left.fixed(), []);
    let warning = left.warning(&check);
    for part in ["ack_wait is 42.5s, and 30s is", "max_deliver is 30, and 9 is", "workers that run rely on"] {
        assert!(warning.contains(part), "no `{part}` in {warning}");
    }
}

#[test]
fn streams_and_buckets_get_what_loses_nothing_and_keep_the_rest() {
    let cluster = installed();
    let (nats, url) = (&cluster.nats, &cluster.nats.url());
    cluster.bus.workers().put("w1", b"{}").unwrap();
    // As the Python package makes it.
    jetstream::update(nats, "KV_pyoco_workers", |config| {
        config["max_age"] = 15_000_000_000_u64.into();
        config["duplicate_window"] = 15_000_000_000_u64.into();
        config["allow_direct"] = false.into();
    });
    jetstream::update(nats, "PYOCO_DLQ", |config| config["max_bytes"] = 1_000_000.into());
    jetstream::update(nats, "PYOCO_AUDIT", |config| config["max_bytes"] = (-1).into());
    jetstream::update(nats, "KV_pyoco_auth", |config| config["discard"] = "old".into());
    jetstream::update(nats, "PYOCO_WORK", |config| {
        config["max_age"] = 900_000_000_000_u64.into();
        // A bound that an operator has set where we have none.
        config["max_msgs"] = 1_000_000.into();
    });
    let before = doctor(url, &[], &[]);
    assert_eq!(before.code, Some(0), "{before:?}");
    for (check, parts) in [
        ("KV_pyoco_workers", &["max_age is 15s, and no limit is", "allow_direct is false, and true"][..]),
        ("PYOCO_DLQ", &["max_bytes is 1000000, and 536870912 is asked for", "doctor --fix"]),
        ("PYOCO_AUDIT", &["max_bytes is no limit, and 268435456 is asked for", "tools of NATS"]),
        ("KV_pyoco_auth", &["discard is old, and new is asked for", "tools of NATS"]),
        ("PYOCO_WORK", &["max_age is 900s, and no limit is asked for", "tools of NATS"]),
    ] {
        let warning = before.warning(check);
        for part in parts {
            assert!(warning.contains(part), "no `{part}` in {warning}");
        }
    }
    let fixed = doctor(url, &["--fix"], &[]);
    let settings: Vec<(&str, &str)> = fixed.fixed().iter().map(|fix| (fix.0, fix.1)).collect();
    assert_eq!(
        settings,
        [
            ("PYOCO_DLQ", "max_bytes"),
            ("KV_pyoco_workers", "max_age"),
            ("KV_pyoco_workers", "duplicate_window"),
            ("KV_pyoco_workers", "allow_direct"),
        ]
    );
    let workers = stream_config(nats, "KV_pyoco_workers");
    assert_eq!(
        (&workers["max_age"], &workers["duplicate_window"], &workers["allow_direct"]),
        (&json!(0), &json!(120_000_000_000_u64), &json!(true))
    );
    let work = stream_config(nats, "PYOCO_WORK");
    assert_eq!((&work["max_age"], &work["max_msgs"]), (&json!(900_000_000_000_u64), &json!(1_000_000)));
    assert_eq!(stream_config(nats, "PYOCO_AUDIT")["max_bytes"], -1);
    assert_eq!(stream_config(nats, "KV_pyoco_auth")["discard"], "old");
    let after = doctor(url, &[], &[]);
    let warned: Vec<&Value> =
        after.lines.iter().filter(|line| line.get("warning").is_some()).map(|line| &line["check"]).collect();
    assert_eq!(warned, ["PYOCO_WORK", "PYOCO_AUDIT", "KV_pyoco_auth"]);
    assert_eq!(cluster.bus.workers().get("w1").unwrap().unwrap().value, b"{}");
}

#[test]
fn what_belongs_to_another_installation_is_not_changed() {
    let cluster = installed();
    let (nats, url) = (&cluster.nats, &cluster.nats.url());
    let streams = ["PYOCO_WORK", "PYOCO_DLQ"];
    let before = streams.map(|stream| stream_config(nats, stream));
    // The names of the first installation with subjects and buckets of another one.
    let other = [
        ("PYOCO_WORK_SUBJECT_PREFIX", "other.work"),
        ("PYOCO_RUNS_KV_BUCKET", "other_runs"),
        ("PYOCO_DLQ_SUBJECT_PREFIX", "other.dlq"),
        ("PYOCO_DLQ_MAX_BYTES", "900000000"),
        ("PYOCO_CONSUMER_MAX_ACK_PENDING", "7"),
    ];
    let report = doctor(url, &["--fix"], &other);
    assert!(report.error("PYOCO_WORK").contains("another installation"), "{report:?}");
    assert_eq!(report.fixed(), []);
    assert_eq!(streams.map(|stream| stream_config(nats, stream)), before);
    let info = jetstream::call(nats, &format!("CONSUMER.INFO.PYOCO_WORK.{CONSUMER}"), &Value::Null);
    assert_eq!(info["config"]["max_ack_pending"], 200);
    // Nothing was created either.
    assert_eq!(report.of("KV_other_runs")["details"]["state"], "missing, created when needed");
    assert_eq!(report.of("writes")["details"]["state"], "not tried: the bucket is missing");
}

fn monitored(port: &PortLease, sync_interval: Option<&str>) -> NatsServer {
    NatsServer::start_with(NatsOptions {
        sync_interval: sync_interval.map(str::to_owned),
        jetstream_lines: vec!["max_file_store: 2GB".to_owned()],
        config_lines: vec![format!("http: \"127.0.0.1:{}\"", port.port())],
        ..NatsOptions::default()
    })
}

#[test]
fn a_server_that_acknowledges_before_it_syncs_is_told() {
    let (late, always, none) = (PortLease::take(), PortLease::take(), PortLease::take());
    let url = |port: &PortLease| format!("http://127.0.0.1:{}", port.port());
    let nats = monitored(&late, None);
    let report = doctor(&nats.url(), &[], &[("PYOCO_NATS_MONITOR_URL", &url(&late))]);
    assert_eq!(report.code, Some(0), "{report:?}");
    assert!(report.warning("sync_interval").contains("sync_interval: always"), "{report:?}");
    assert_eq!(report.of("sync_interval")["sync_interval"], "120s");
    assert_eq!(report.of("store")["details"]["max_bytes"], 2_147_483_648_u64);
    // Nobody listens there: that is no fault, and how to find out is told.
    let report = doctor(&nats.url(), &[], &[("PYOCO_NATS_MONITOR_URL", &url(&none))]);
    report.assert_no_warnings();
    let line = report.of("sync_interval");
    assert_eq!(line["sync_interval"], "unknown");
    assert!(line["hint"].as_str().unwrap().contains("PYOCO_NATS_MONITOR_URL"), "{line}");
    let nats = monitored(&always, Some("always"));
    let report = doctor(&nats.url(), &[], &[("PYOCO_NATS_MONITOR_URL", &url(&always))]);
    report.assert_no_warnings();
    assert_eq!(report.of("sync_interval")["sync_interval"], "always");
    drop(nats);
}

#[test]
fn a_full_stream_and_a_write_that_fails_are_errors() {
    let cluster = installed();
    let (nats, url) = (&cluster.nats, &cluster.nats.url());
    let soon = || Instant::now() + Duration::from_secs(5);
    jetstream::limit_jobs(nats, 10);
    for n in 0..9 {
        cluster.bus.queue().submit("default", &format!("r{n}"), b"{}", soon()).unwrap();
    }
    let report = doctor(url, &[], &[]);
    assert_eq!(report.code, Some(0), "{report:?}");
    assert!(report.warning("PYOCO_WORK").contains("90 % of max_msgs is used (9 of 10)"), "{report:?}");
    cluster.bus.queue().submit("default", "r9", b"{}", soon()).unwrap();
    assert!(doctor(url, &[], &[]).error("PYOCO_WORK").contains("max_msgs is reached (10 of 10)"));
    // Until NATS refuses the next one, however many bytes that leaves.
    jetstream::update(nats, "KV_pyoco_runs", |config| config["max_bytes"] = 20_000.into());
    let filled = (0..1000).find(|n| cluster.bus.runs().put(&format!("r{n}"), &[b'x'; 900]).is_err());
    assert!(filled.is_some(), "it takes all");
    let report = doctor(url, &[], &[]);
    assert!(report.error("KV_pyoco_runs").contains("max_bytes is reached"), "{report:?}");
    jetstream::update(nats, "KV_pyoco_runs", |config| {
        config["max_bytes"] = (-1).into();
        config["max_msg_size"] = 1.into();
    });
    assert!(doctor(url, &[], &[]).error("writes").contains("KV_pyoco_runs"));
}

#[test]
fn the_room_of_the_account_and_of_the_server_is_looked_at() {
    let port = PortLease::take();
    let accounts = |limit: u64, http: &PortLease| NatsOptions {
        jetstream_lines: vec!["max_file_store: 3GB".to_owned()],
        config_lines: vec![
            format!(
                "accounts {{ A {{ jetstream {{ max_file: {limit} }}, users: [{{user: a, password: a}}] }} }}"
            ),
            "no_auth_user: a".to_owned(),
            format!("http: \"127.0.0.1:{}\"", http.port()),
        ],
        ..NatsOptions::default()
    };
    let mut cluster = Cluster::new().nats(accounts(2_000_000_000, &port)).start();
    cluster.bus.ensure_resources().unwrap();
    doctor(&cluster.nats.url(), &[], &[]).assert_no_warnings();
    for n in 0..10 {
        cluster.bus.runs().put(&format!("r{n}"), &[b'x'; 100_000]).unwrap();
    }
    // What is reserved counts with the account, so the limit is that of what is there.
    for (limit, is_error) in [(1_400_000_000_u64, false), (900_000, true)] {
        cluster.nats.reconfigure(accounts(limit, &port));
        cluster.nats.restart();
        let report = doctor(&cluster.nats.url(), &[], &[]);
        match is_error {
            false => assert!(report.warning("account").contains("have reserved"), "{report:?}"),
            true => assert!(report.error("account").contains("max_storage is reached"), "{report:?}"),
        }
    }
}

#[test]
fn jobs_that_nats_does_not_deliver_any_more_are_counted_by_tag() {
    let cluster = Cluster::new().env("PYOCO_CONSUMER_MAX_DELIVER", "1").start();
    cluster.bus.ensure_resources().unwrap();
    let queue = cluster.bus.queue();
    queue.ensure_consumer("default").unwrap();
    let env = [("PYOCO_CONSUMER_MAX_DELIVER", "1")];
    queue.submit("default", "r1", b"{}", Instant::now() + Duration::from_secs(5)).unwrap();
    doctor(&cluster.nats.url(), &[], &env).assert_no_warnings();
    let mut inbox = queue.pull_inbox(&["default".to_owned()]);
    inbox.ask(0, 1, true).unwrap();
    loop {
        let arrival = inbox.arrivals().recv_timeout(PATIENCE).unwrap();
        if let PullEvent::Delivered { message, .. } = inbox.take(arrival) {
            message.nak(Duration::ZERO).unwrap();
            break;
        }
    }
    eventually(PATIENCE, "the server gives the message up", || {
        // It finds that out when somebody asks.
        inbox.ask(0, 1, false).unwrap();
        let figures = queue.deliveries("default").unwrap().unwrap();
        (figures.pending + figures.ack_pending == 0).then_some(())
    });
    let report = doctor(&cluster.nats.url(), &[], &env);
    assert_eq!(report.code, Some(0), "{report:?}");
    let warning = report.warning("deliveries");
    assert!(warning.contains("1 of tag `default`") && warning.contains("half a minute"), "{warning}");
    assert_eq!(report.of("deliveries")["stuck"], json!({"default": 1}));
}

#[test]
fn one_replica_in_a_cluster_is_told_and_more_are_made_when_asked_for() {
    let nodes = NatsCluster::start(3);
    let url = &nodes.urls();
    let admin = |command: &str| {
        let mut admin = Binary::Admin.command();
        run(admin.args(["--nats-url", url, command]), b"", PATIENCE)
    };
    eventually(PATIENCE, "streams and buckets are there", || (admin("init").code == Some(0)).then_some(()));
    let config = json!({
        "durable_name": CONSUMER, "filter_subject": "pyoco.work.default", "ack_policy": "explicit",
        "ack_wait": 30_000_000_000_u64, "max_deliver": 20, "max_ack_pending": 200, "num_replicas": 1,
    });
    let body = json!({"stream_name": "PYOCO_WORK", "config": config});
    jetstream::call(nodes.any(), &format!("CONSUMER.DURABLE.CREATE.PYOCO_WORK.{CONSUMER}"), &body);
    let report = doctor(url, &[], &[]);
    assert_eq!(report.code, Some(0), "{report:?}");
    for stream in ["PYOCO_WORK", "KV_pyoco_runs", "OBJ_pyoco_wheels"] {
        let warning = report.warning(stream);
        assert!(warning.contains("one replica") && warning.contains("PYOCO_JS_REPLICAS=3"), "{warning}");
    }
    // Not asked for, so not changed.
    assert_eq!(doctor(url, &["--fix"], &[]).fixed(), []);
    let three = [("PYOCO_JS_REPLICAS", "3")];
    assert!(doctor(url, &[], &three).warning("PYOCO_WORK").contains("num_replicas is 1, and 3"));
    let fixed = doctor(url, &["--fix"], &three);
    assert!(fixed.fixed().contains(&("PYOCO_WORK", "num_replicas", &json!(1), &json!(3))), "{fixed:?}");
    assert_eq!(stream_config(nodes.any(), "KV_pyoco_runs")["num_replicas"], 3);
    // The cluster takes its time: what it refuses while a stream moves is changed by another call.
    eventually(PATIENCE, "everything has three replicas", || {
        doctor(url, &["--fix"], &three);
        doctor(url, &[], &three).has_no_warnings().then_some(())
    });
    // Fewer are never made by a program.
    assert!(doctor(url, &["--fix"], &[]).warning("PYOCO_WORK").contains("tools of NATS"));
    assert_eq!(stream_config(nodes.any(), "PYOCO_WORK")["num_replicas"], 3);
}

/// Passes on what a nats-server says, with another version in its greeting.
fn server_of_version(nats: &NatsServer, version: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), nats.address());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(behind)) else { return };
            std::thread::spawn(move || {
                let mut from_server = BufReader::new(server.try_clone().unwrap());
                let mut greeting = String::new();
                let _ = from_server.read_line(&mut greeting);
                let (begin, rest) = greeting.split_once("\"version\":\"").unwrap_or_default();
                let rest = rest.split_once('"').unwrap_or_default().1;
                let _ = (&client).write_all(format!("{begin}\"version\":\"{version}\"{rest}").as_bytes());
                let (from_client, to_server) = (client.try_clone().unwrap(), server);
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &from_client, &mut &to_server);
                    let _ = to_server.shutdown(Shutdown::Both);
                });
                let _ = std::io::copy(&mut from_server, &mut &client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    format!("nats://{address}")
}

#[test]
fn an_old_server_is_told_and_one_that_is_too_old_is_an_error() {
    let nats = NatsServer::start();
    let report = doctor(&server_of_version(&nats, "2.11.9"), &[], &[]);
    assert_eq!(report.code, Some(0), "{report:?}");
    assert!(report.warning("nats").contains("install 2.12.3 or later"), "{report:?}");
    let report = doctor(&server_of_version(&nats, "2.9.25"), &[], &[]);
    assert!(report.error("nats").contains("2.9.25 is too old"), "{report:?}");
    doctor(&server_of_version(&nats, "2.12.3"), &[], &[]).assert_no_warnings();
}
