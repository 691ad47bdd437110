//! `GET /metrics`: a text that Prometheus reads, with figures that are true, also without NATS.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use pyoco_server::model::clock;
use pyoco_server::model::run::{RunSnapshot, RunStatus};
use serde_json::json;

use crate::support::cluster::{Cluster, with_flags};
use crate::support::process::run;
use crate::support::runs::{completed, main_flow};
use crate::support::wait::{PATIENCE, eventually};

/// The value of the one sample that is called so, labels and all.
pub fn value(text: &str, sample: &str) -> f64 {
    try_value(text, sample).unwrap_or_else(|| panic!("no {sample} in:\n{text}"))
}

fn try_value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

fn scrape(cluster: &Cluster) -> String {
    let answer = cluster.get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let text = answer.text();
    check(&text);
    text
}

/// Reads a text as strictly as the format is written down, and panics at the first fault.
fn check(text: &str) {
    assert!(text.ends_with('\n'));
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut family = "";
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(help.len() > family.len() + 10, "no help: {line}");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").expect("no type after help");
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family, "a type of another metric");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert!(kinds.insert(family, kind).is_none(), "{family} comes twice");
            assert!(kind != "counter" || family.ends_with("_total"), "{family}");
            continue;
        }
        let (name, labels, value) = sample(line);
        let kind = kinds[family];
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} within {family}"));
        let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(allowed.contains(&suffix), "{line} within {family}");
        assert!(samples.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
        assert!(!value.is_nan() && (kind == "gauge" || value >= 0.0), "{line}");
        let others = labels.iter().filter(|(name, _)| name != "le").map(|(n, v)| format!("{n}={v}"));
        let series = format!("{family} {}", others.collect::<Vec<_>>().join(" "));
        if suffix == "_bucket" {
            let bound = &labels.iter().find(|(name, _)| name == "le").unwrap().1;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            buckets.entry(series).or_default().push((bound, value));
        } else if suffix == "_count" {
            let buckets = &buckets[&series];
            assert!(buckets.is_sorted(), "{series}: {buckets:?}");
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{series}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, value)), "{series}");
        }
    }
}

/// Name, labels and value of a line.
fn sample(line: &str) -> (&str, Vec<(String, String)>, f64) {
    let is_name = |text: &str| {
        !text.is_empty()
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
    let Some((name, rest)) = head.split_once('{') else {
        assert!(is_name(head), "{line}");
        return (head, Vec::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    let mut rest = rest;
    while rest != "}" {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(label), "{line}");
        let mut text = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{line}")) {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => text.push('\n'),
                    c @ ('"' | '\\') => text.push(c),
                    other => panic!("escaped {other:?}: {line}"),
                },
                (_, c) => text.push(c),
            }
        };
        labels.push((label.to_owned(), text));
        rest = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
    }
    (name, labels, value)
}

/// Lets the Python package `prometheus_client` read a text, where a Python with it is named by
/// `PYOCO_TEST_PYTHON`; [`check`] does without.
fn check_with_python(text: &str) {
    let Some(python) = std::env::var_os("PYOCO_TEST_PYTHON") else { return };
    let program = "import sys
from prometheus_client.parser import text_string_to_metric_families as read
print(sum(len(family.samples) for family in read(sys.stdin.read())))";
    let mut command = Command::new(python);
    let ended = run(command.args(["-c", program]), text.as_bytes(), PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(ended.stdout.trim(), samples.to_string());
}

#[test]
fn an_empty_system_has_zeros() {
    let cluster = Cluster::with_gateway();
    cluster.wait_live();
    let text = scrape(&cluster);
    check_with_python(&text);
    for status in RunStatus::ALL.map(RunStatus::as_str) {
        for name in ["pyoco_runs", "pyoco_runs_total", "pyoco_runs_today_total"] {
            assert_eq!(value(&text, &format!("{name}{{status=\"{status}\"}}")), 0.0);
        }
    }
    for state in ["RUNNING", "IDLE", "UNAVAILABLE", "STOPPED_GRACEFUL", "DISCONNECTED"] {
        assert_eq!(value(&text, &format!("pyoco_workers{{state=\"{state}\"}}")), 0.0);
    }
    for name in [
        "pyoco_workers_alive_total",
        "pyoco_dlq_messages_total",
        "pyoco_queue_depth{tag=\"default\"}",
        "pyoco_queue_in_flight{tag=\"default\"}",
        "pyoco_queue_oldest_age_seconds{tag=\"default\"}",
        "pyoco_run_duration_seconds_count",
        "pyoco_run_queue_wait_seconds_count",
        "pyoco_sse_clients",
        "pyoco_sse_dropped_total",
        "pyoco_log_lines_dropped_total",
        "pyoco_nats_reconnects_total",
    ] {
        assert_eq!(value(&text, name), 0.0, "{name}");
    }
    assert_eq!((value(&text, "pyoco_nats_up"), value(&text, "pyoco_view_live")), (1.0, 1.0));
    let version = pyoco_server::VERSION;
    assert_eq!(value(&text, &format!("pyoco_build_info{{version=\"{version}\"}}")), 1.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_open_fds") > 10.0 && value(&text, "process_threads") > 10.0);
    // The probes of this test have been counted.
    let health = "pyoco_http_requests_total{method=\"GET\",route=\"/readyz\",code=\"200\"}";
    assert!(value(&text, health) >= 1.0);
}

#[test]
fn runs_are_counted_as_they_move() {
    let cluster = Cluster::with_gateway();
    // What was there before is no news.
    let now = clock::now();
    cluster.put_run("yesterday", now - 2.0 * 86_400.0, completed);
    cluster.wait_count(1);
    let run_id = cluster.submit(&json!({"flow_name": "main", "tag": "gpu"}));
    let (mut run, revision) = cluster.snapshot(&run_id);
    let submitted = run.submitted_at.unwrap();
    (run.status, run.start_time) = (RunStatus::Running, Some(submitted + 2.0));
    let wire = |run: &RunSnapshot| pyoco_server::model::json::to_wire(run).unwrap();
    let revision = cluster.bus.runs().update(&run_id, &wire(&run), revision).unwrap();
    cluster.wait_status(&run_id, "RUNNING");
    let text = scrape(&cluster);
    assert_eq!(value(&text, "pyoco_runs{status=\"RUNNING\"}"), 1.0);
    assert_eq!(value(&text, "pyoco_runs_submitted_total{tag=\"gpu\"}"), 1.0);
    assert_eq!(value(&text, "pyoco_run_queue_wait_seconds_sum"), 2.0);
    assert_eq!(value(&text, "pyoco_run_queue_wait_seconds_bucket{le=\"1\"}"), 0.0);
    assert_eq!(value(&text, "pyoco_run_queue_wait_seconds_bucket{le=\"5\"}"), 1.0);

    run.finish(RunStatus::Failed, None, submitted + 9.0);
    run.updated_at = Some(now);
    cluster.bus.runs().update(&run_id, &wire(&run), revision).unwrap();
    cluster.wait_status(&run_id, "FAILED");
    let text = scrape(&cluster);
    assert_eq!(value(&text, "pyoco_runs_finished_total{status=\"FAILED\",tag=\"gpu\"}"), 1.0);
    assert!((value(&text, "pyoco_run_duration_seconds_sum") - 7.0).abs() < 1e-6);
    assert_eq!(value(&text, "pyoco_runs_total{status=\"FAILED\"}"), 1.0);
    assert_eq!(value(&text, "pyoco_runs_today_total{status=\"FAILED\"}"), 1.0);
    assert_eq!(value(&text, "pyoco_runs_total{status=\"COMPLETED\"}"), 1.0);
    assert_eq!(value(&text, "pyoco_runs_today_total{status=\"COMPLETED\"}"), 0.0);
}

#[test]
fn the_queue_is_told_by_tag_waiting_and_taken() {
    let cluster = Cluster::with_gateway();
    let yaml = b"flow: {graph: a}\ntasks: {a: {use: builtin/sleep, inputs: {seconds: 600}}}";
    let parts: &[(&str, Option<&str>, &[u8])] =
        &[("workflow", Some("f.yaml"), yaml), ("flow_name", None, b"f"), ("tag", None, b"gpu")];
    for _ in 0..3 {
        assert_eq!(cluster.post_form("/runs/yaml", parts).status, 200);
    }
    let figure = |name: &str| format!("pyoco_queue_{name}{{tag=\"gpu\"}}");
    let waiting = eventually(PATIENCE, "three jobs that wait", || {
        let text = scrape(&cluster);
        (try_value(&text, &figure("depth")) == Some(3.0)).then_some(text)
    });
    assert_eq!(value(&waiting, &figure("in_flight")), 0.0);
    let age = value(&waiting, &figure("oldest_age_seconds"));
    assert!(age > 0.0 && age < 60.0, "{age}");
    let _worker = cluster.spawn_worker("w1", with_flags(&["--tags", "gpu", "--concurrency", "1"]));
    eventually(PATIENCE, "one job to be taken", || {
        let text = scrape(&cluster);
        let taken = try_value(&text, &figure("in_flight")) == Some(1.0);
        (taken && value(&text, &figure("depth")) == 2.0).then_some(())
    });
    let text = scrape(&cluster);
    assert!(value(&text, &figure("oldest_age_seconds")) > age);
    assert_eq!(value(&text, "pyoco_workers_alive_total"), 1.0);
    let heartbeat = text.lines().find(|l| l.starts_with("pyoco_worker_heartbeat_timestamp_seconds{"));
    assert!(heartbeat.is_some(), "{text}");
    cluster.bus.queue().ensure_all().unwrap();
    cluster.bus.queue().publish_dlq("gpu", b"{}").unwrap();
    eventually(PATIENCE, "the entry of the DLQ", || {
        (value(&scrape(&cluster), "pyoco_dlq_messages_total") == 1.0).then_some(())
    });
}

#[test]
fn labels_are_escaped_and_bounded() {
    let cluster = Cluster::with_gateway();
    for n in 0..120 {
        let run_id = cluster.submit(&json!({"flow_name": "main", "tag": format!("tag-{n}")}));
        assert!(!run_id.is_empty());
    }
    let path = "/runs/%22%5C%0A";
    assert_eq!(cluster.get(path).status, 404);
    assert_eq!(cluster.get("/no%22pe").status, 404);
    assert_eq!(cluster.request("BREW", "/runs", &[], b"").status, 405);
    let text = scrape(&cluster);
    check_with_python(&text);
    let tags = text.lines().filter(|l| l.starts_with("pyoco_runs_submitted_total{")).count();
    assert_eq!(tags, 101);
    assert_eq!(value(&text, "pyoco_runs_submitted_total{tag=\"(other)\"}"), 20.0);
    for (labels, count) in [
        ("method=\"GET\",route=\"/runs/{id}\",code=\"404\"", 1.0),
        ("method=\"GET\",route=\"(none)\",code=\"404\"", 1.0),
        ("method=\"other\",route=\"(none)\",code=\"405\"", 1.0),
        ("method=\"POST\",route=\"/runs\",code=\"200\"", 120.0),
    ] {
        assert_eq!(value(&text, &format!("pyoco_http_requests_total{{{labels}}}")), count, "{labels}");
    }
}

#[test]
fn a_scrape_never_hangs_on_nats() {
    let mut cluster = Cluster::with_gateway_env(&[("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "1")]);
    cluster.submit(&main_flow());
    assert_eq!(value(&scrape(&cluster), "pyoco_queue_depth{tag=\"default\"}"), 1.0);
    let timed = |what: &str| {
        let begun = Instant::now();
        let text = scrape(&cluster);
        assert!(begun.elapsed() < Duration::from_secs(2), "{what}: {:?}", begun.elapsed());
        text
    };
    // Frozen: nobody can know at first.
    cluster.nats.pause();
    let frozen = eventually(PATIENCE, "the frozen NATS to be noticed", || {
        let text = timed("frozen");
        (value(&text, "pyoco_nats_up") == 0.0).then_some(text)
    });
    // What is known stays known.
    assert_eq!(value(&frozen, "pyoco_runs{status=\"PENDING\"}"), 1.0);
    assert_eq!(value(&frozen, "pyoco_queue_depth{tag=\"default\"}"), 1.0);
    cluster.nats.resume();
    eventually(PATIENCE, "NATS to be back", || {
        let text = timed("resumed");
        (value(&text, "pyoco_nats_up") == 1.0 && value(&text, "pyoco_view_live") == 1.0).then_some(())
    });
    cluster.nats.stop();
    eventually(PATIENCE, "the end of NATS to be noticed", || {
        let text = scrape(&cluster);
        (value(&text, "pyoco_nats_up") == 0.0 && value(&text, "pyoco_view_live") == 0.0).then_some(())
    });
    cluster.nats.restart();
    eventually(PATIENCE, "the reconnect to be counted", || {
        let text = scrape(&cluster);
        let up = value(&text, "pyoco_nats_up") == 1.0;
        (up && value(&text, "pyoco_nats_reconnects_total") >= 1.0).then_some(())
    });
}
